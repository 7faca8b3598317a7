"""The online store: one date's features, the same as a training row of that instant gets."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from assets.exceptions import NotPublished
from assets.features import serving, store
from assets.features.serving import OnlineReader, materialize, online_features, online_store, pinned
from assets.features.snapshot import with_features
from assets.features.store import definitions, repository_registry
from assets.home import Home

LATE, EARLY = "2020-03-10", "2020-02-01"


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "record_id": ["9", "7", "8", "6"],
            "text": ["They owe me $5", None, "XXXX said no", "They owe me $5"],
            "company": ["BETA", None, "NEVER SEEN", "BETA"],
            "state": ["NY", "CA", None, "NY"],
            "zip_code": [None, "1", "2", "3"],
            "tags": [None, "Servicemember", None, None],
            "channel": ["Web", None, "Phone", "Web"],
        },
        index=[30, 10, 20, 40],
    )


def offline(home: Home, marts: Path, rows: pd.DataFrame, as_of: str) -> pd.DataFrame:
    names = definitions(home).features
    known = {"company": "unknown", "state": "unknown"}
    entities = rows.fillna(known).assign(known_at=pd.Timestamp(as_of))
    joined = with_features(home, marts, pa.Table.from_pandas(entities, preserve_index=False), names)
    frame: pd.DataFrame = joined.select(names).to_pandas()
    return frame.set_index(rows.index)


def test_online_equals_offline_and_keeps_rows_as_they_are(home: Home, marts: Path, rows: pd.DataFrame) -> None:
    materialize(home, LATE)
    found = online_features(home, rows)
    names = list(definitions(home).features)
    pd.testing.assert_frame_equal(found[names], offline(home, marts, rows, LATE), check_exact=True)
    pd.testing.assert_frame_equal(found[rows.columns], rows)
    assert found.loc[20, names].filter(like="company_").isna().all()
    assert found.loc[10, names].notna().all()
    assert found.loc[[30, 40], names].drop_duplicates().shape[0] == 1


def test_as_of_moves_backwards_too(home: Home, marts: Path, rows: pd.DataFrame) -> None:
    names = list(definitions_after(home, EARLY))
    first = online_features(home, rows)
    materialize(home, LATE)
    assert not online_features(home, rows)[names].equals(first[names])
    materialize(home, EARLY)
    pd.testing.assert_frame_equal(online_features(home, rows), first)
    pd.testing.assert_frame_equal(first[names], offline(home, marts, rows, EARLY), check_exact=True)
    assert online_store(home.features).as_of == EARLY


def definitions_after(home: Home, as_of: str) -> tuple[str, ...]:
    materialize(home, as_of)
    return definitions(home).features


def test_before_the_first_record_nothing_is_known(home: Home, marts: Path, rows: pd.DataFrame) -> None:
    filled = materialize(home, "2019-12-31")
    assert set(filled.keys.values()) == {0}
    assert online_features(home, rows)["company_labels"].isna().all()
    assert online_features(home, rows)["has_amount"].tolist() == [1, 0, 0, 1]


def test_a_failure_half_way_leaves_the_store_as_it_was(
    home: Home, marts: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize(home, EARLY)
    before = online_features(home, rows)
    monkeypatch.setattr(serving, "_write_stamp", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        materialize(home, LATE)
    assert online_store(home.features).as_of == EARLY
    pd.testing.assert_frame_equal(online_features(home, rows), before)
    assert not list(home.root.glob("**/.staging-*"))


def test_what_killed_runs_have_left_is_swept(home: Home, marts: Path) -> None:
    abandoned = home.lake.root / "online_features" / ".staging-x"
    abandoned.mkdir(parents=True)
    materialize(home, LATE)
    assert not abandoned.exists()


def test_the_same_date_is_not_filled_again(home: Home, marts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = materialize(home, LATE)
    monkeypatch.setattr(serving, "apply_repository", None)
    assert materialize(home, LATE) == filled
    with pytest.raises(TypeError):
        materialize(home, EARLY)


def test_filling_says_nothing(home: Home, marts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    materialize(home, LATE)
    assert capfd.readouterr().out == ""


def test_no_rows_and_many_rows(home: Home, marts: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize(home, LATE)
    whole = online_features(home, rows)
    assert online_features(home, rows.iloc[:0]).columns.tolist() == whole.columns.tolist()
    monkeypatch.setattr(serving, "_CHUNK_ROWS", 3)
    pd.testing.assert_frame_equal(online_features(home, rows), whole)


def test_a_fill_has_few_keys_in_memory_at_a_time(
    home: Home, marts: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast.infra.online_stores.sqlite import SqliteOnlineStore

    materialize(home, EARLY)
    whole = online_features(home, rows)
    (home.features / "online.db").unlink()
    written: list[int] = []
    write = SqliteOnlineStore.online_write_batch
    monkeypatch.setattr(store, "_WRITTEN_AT_ONCE", 2)
    monkeypatch.setattr(
        SqliteOnlineStore,
        "online_write_batch",
        lambda own, config, table, data, progress: (
            written.append(len(data)),
            write(own, config, table, data, progress),
        ),
    )
    filled = materialize(home, EARLY)
    assert max(written) == 2
    assert sum(written) == sum(filled.keys.values()) > 4
    pd.testing.assert_frame_equal(online_features(home, rows), whole)


def test_what_another_run_fills_the_store_with_is_not_used(home: Home, marts: Path, rows: pd.DataFrame) -> None:
    materialize(home, EARLY)
    early = online_features(home, rows)
    with pinned(home, EARLY, marts, home.root) as held:
        materialize(home, LATE)
        pd.testing.assert_frame_equal(online_features(home, rows, held), early)
    with pinned(home, EARLY, marts, home.root) as filled:
        pd.testing.assert_frame_equal(online_features(home, rows, filled), early)
    assert online_store(home.features).as_of == LATE
    assert not list(home.root.glob(".online-*"))


def test_an_opened_store_says_when_it_was_filled_again(home: Home, marts: Path, rows: pd.DataFrame) -> None:
    materialize(home, EARLY)
    early, opened = online_features(home, rows), OnlineReader.open(home)
    pd.testing.assert_frame_equal(opened.features(rows), early)
    assert opened.is_current
    materialize(home, LATE)
    assert not opened.is_current
    again = OnlineReader.open(home)
    assert (again.content.as_of, again.is_current) == (LATE, True)
    pd.testing.assert_frame_equal(again.features(rows), online_features(home, rows))
    (home.features / "online.db").unlink()
    with pytest.raises(NotPublished):
        _ = again.is_current


def test_an_empty_store_says_what_to_do(home: Home, marts: Path, rows: pd.DataFrame) -> None:
    with pytest.raises(NotPublished, match="materialize online_features first"):
        online_features(home, rows)


def test_code_planted_in_a_registry_is_never_run(home: Home, marts: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    materialize(home, LATE)
    expected, planted = online_features(home, rows), tmp_path / "ran"
    (home.features / "registry.db").write_bytes(repository_registry())
    plant(home.features / "registry.db", f"open({str(planted)!r}, 'w')")
    pd.testing.assert_frame_equal(online_features(home, rows), expected)
    offline(home, marts, rows, LATE)
    materialize(home, EARLY)
    assert not planted.exists()


def plant(path: Path, code: str) -> None:
    """Put a line of code into the functions of a registry, both as source and pickled."""
    import dill
    from feast.protos.feast.core.Registry_pb2 import Registry

    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (code,)

    registry = Registry.FromString(path.read_bytes())
    assert registry.on_demand_feature_views
    for view in registry.on_demand_feature_views:
        function = view.spec.feature_transformation.user_defined_function
        function.body, function.body_text = dill.dumps(Planted()), f"{code}\n{function.body_text}"
    path.write_bytes(registry.SerializeToString())


def test_features_of_other_definitions_are_not_served(
    home: Home, marts: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize(home, LATE)
    monkeypatch.setattr(serving, "digest", lambda: "another")
    with pytest.raises(NotPublished, match="the feature definitions have changed"):
        online_features(home, rows)


def test_two_homes_do_not_touch_each_other(home: Home, marts: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    with home.lake.staging("x") as _, other.lake.staging("marts") as staged:
        shutil.copytree(marts, staged, dirs_exist_ok=True)
        other.lake.publish("marts", "v1", staged)
    materialize(home, LATE)
    materialize(other, EARLY)
    assert online_store(home.features).as_of == LATE
    late, early = (online_features(h, rows)["company_labels"] for h in (home, other))
    assert late[30] > early[30]
    assert np.isnan(late[20])
