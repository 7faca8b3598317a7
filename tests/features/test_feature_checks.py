"""Each check passes on what was made, and fails when its fault is planted."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.features import checks, snapshot
from assets.features.adversarial import tell_apart
from assets.features.checks import Finding
from assets.features.serving import materialize
from assets.features.snapshot import Snapshot, build_training_set
from assets.home import Home
from assets.settings import SnapshotSettings

AS_OF = "2020-03-15"
BOUNDS = {"max_copies": None, "near_duplicate_similarity": 0.7, "reference_share": 0.1, "max_adversarial_auc": 0.8}
Tamper = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def made(home: Home, marts: Path, settings: SnapshotSettings) -> Snapshot:
    return build_training_set(home, AS_OF, settings)


def tampered(made: Snapshot, part: str, tamper: Tamper) -> Snapshot:
    path = made.path / f"{part}.parquet"
    tamper(pd.read_parquet(path)).to_parquet(path)
    return made


def set_first(**values: object) -> Tamper:
    def tamper(rows: pd.DataFrame) -> pd.DataFrame:
        for name, value in values.items():
            rows.loc[0, name] = value
        return rows

    return tamper


def test_an_untouched_training_set_passes(home: Home, made: Snapshot) -> None:
    findings = checks.check_training_set(home, made)
    assert [finding for finding in findings if not finding.passed] == []
    assert min(finding.examined for finding in findings) >= 74


def test_a_check_that_examined_nothing_has_not_passed() -> None:
    assert not Finding("any", examined=0, faults=0, fault="").passed


def test_five_hundred_rows_and_more_are_looked_up_again(
    home: Home, make_records: Callable[..., list[dict[str, object]]], publish: Callable[..., Path]
) -> None:
    publish(home, make_records(days=80, per_day=16))
    many = SnapshotSettings(
        **(BOUNDS | {"test_rows": 200, "min_train_rows": 500, "max_train_rows": 900, "reference_rows": 15})
    )
    made = build_training_set(home, AS_OF, many)
    for check in (checks.check_point_in_time, checks.check_canary, checks.check_shift):
        found = check(home, made)
        assert found.passed
        assert found.examined >= 500


Records = list[dict[str, object]]
Late = tuple[Records, Records]


@pytest.fixture
def late(make_records: Callable[..., Records]) -> Late:
    """Records, and corrections of some of them that land on the day after as-of."""
    rows = make_records()
    other = {"mortgage": "cards"}
    return rows, [row | {"label": other.get(str(row["label"]), "mortgage")} for row in rows[200:300:10]]


def corrected(late: Late) -> Records:
    """The records as the corrections have them."""
    by_id = {row["record_id"]: row for row in late[1]}
    return [by_id.get(row["record_id"], row) for row in late[0]]


def landed(late: Late) -> list[tuple[str, str | None, Records]]:
    return [("a", None, late[0]), ("b", "2020-03-16", late[1])]


def test_a_correction_that_lands_after_as_of_changes_no_row(
    home: Home, late: Late, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    publish(home, late[0], landed=landed(late))
    assert checks.check_landed(home, build_training_set(home, AS_OF, settings)).passed


def test_a_correction_applied_to_days_before_it_landed_is_found(
    home: Home, late: Late, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    publish(home, corrected(late), landed=landed(late))
    made = build_training_set(home, AS_OF, settings)
    assert all(finding.passed for finding in checks.check_training_set(home, made)[1:])
    assert checks.check_landed(home, made).faults > 10


def test_a_correction_that_shows_in_statistics_alone_is_found(
    home: Home, late: Late, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    leaked = publish(home, corrected(late), "leaked")
    marts = publish(home, late[0], landed=landed(late))
    shutil.copytree(leaked / "company_daily", marts / "company_daily", dirs_exist_ok=True)
    made = build_training_set(home, AS_OF, settings)
    assert checks.check_point_in_time(home, made).passed
    assert checks.check_landed(home, made).faults > 10


def test_a_row_of_an_object_that_lands_later_or_was_withdrawn_is_found(
    home: Home, late: Late, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    publish(home, late[0], landed=[("a", None, late[0][:300]), ("b", "2020-03-16", late[0][300:])])
    made = build_training_set(home, AS_OF, settings)
    too_early = int((pd.concat([made.train(), made.test(), made.reference()])["record_id"] >= "00300").sum())
    assert checks.check_landed(home, made).faults > too_early > 100
    objects = home.lake.current("raw_records") / "objects.parquet"
    pd.read_parquet(objects).query("object_id == 'a'").to_parquet(objects)
    assert checks.check_landed(home, made).faults > too_early


@pytest.mark.parametrize("value", [12345.0, np.nan])
def test_a_feature_that_is_not_of_its_instant_is_found(home: Home, made: Snapshot, value: float) -> None:
    faulty = tampered(made, "test", set_first(company_labels=value))
    assert checks.check_point_in_time(home, faulty).faults == 1


def test_a_store_that_looks_a_day_ahead_is_found(
    home: Home, marts: Path, settings: SnapshotSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = snapshot.with_features

    def ahead(home: Home, marts: Path, rows: object, features: object) -> object:
        later = rows.to_pandas()
        later["known_at"] += pd.Timedelta(days=1)
        joined = join(home, marts, type(rows).from_pandas(later, schema=rows.schema, preserve_index=False), features)
        return joined.set_column(1, "known_at", rows["known_at"])

    monkeypatch.setattr(snapshot, "with_features", ahead)
    assert checks.check_point_in_time(home, build_training_set(home, AS_OF, settings)).faults > 100


def test_a_store_that_ignores_when_a_value_was_known_is_found(
    home: Home, made: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.check_canary(home, made).passed
    from assets.features import offline_store

    monkeypatch.setattr(offline_store._Source, "created", property(lambda source: source.event))
    late = checks.check_canary(home, made)
    assert late.faults == late.examined
    monkeypatch.setattr(offline_store._Source, "event", property(lambda source: "0"))
    assert checks.check_canary(home, made).faults > 0


def test_a_store_that_fills_gaps_with_values_of_the_future_is_found(
    home: Home, made: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known shows, and the canary with it."""
    monkeypatch.setattr(checks, "_join_canary", lambda *given: given[-1].assign(known=1, canary=1))
    found = checks.check_canary(home, made)
    assert found.faults == found.examined


def test_a_label_of_the_future_is_found(made: Snapshot) -> None:
    faulty = tampered(made, "train", set_first(label_known_at=datetime(2020, 3, 16)))
    assert checks.check_labels(faulty).faults == 1


def test_a_row_on_the_wrong_side_is_found(made: Snapshot) -> None:
    faulty = tampered(made, "train", set_first(known_at=datetime(2020, 3, 12), label_known_at=datetime(2020, 3, 12)))
    assert checks.check_labels(faulty).faults == 1


@pytest.mark.parametrize("column", ["record_id", "text"])
def test_a_row_on_both_sides_is_found(made: Snapshot, column: str) -> None:
    faulty = tampered(made, "train", set_first(**{column: made.test()[column].iloc[3]}))
    assert checks.check_overlap(faulty).faults >= 1


def test_a_form_letter_on_both_sides_is_found(made: Snapshot) -> None:
    """It begins alike; what follows is everybody's own, so that the two have few shingles in common."""
    letter = "under the act named below i demand that you delete what is listed here as it is not mine " * 2
    ours, theirs = (" ".join(f"{word}{chr(97 + n % 26)}" for n in range(90)) for word in ("own", "other"))
    tampered(made, "test", set_first(text=f"{letter} {ours}"))
    assert checks.check_overlap(made).passed
    assert checks.check_overlap(tampered(made, "train", set_first(text=f"{letter} {theirs}"))).faults == 1


def test_a_near_duplicate_on_both_sides_is_found(made: Snapshot) -> None:
    text = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(60))
    tampered(made, "test", set_first(text=text))
    assert checks.check_overlap(made).passed
    assert checks.check_overlap(tampered(made, "train", set_first(text="now " + text))).faults == 1


def test_an_outcome_among_the_columns_is_found(made: Snapshot) -> None:
    faulty = tampered(made, "train", lambda rows: rows.assign(sub_issue="late fee"))
    assert checks.check_columns(faulty).faults == 1
    leaky = dataclasses.replace(made, features=(*made.features, "sub_issue"))
    assert checks.check_columns(leaky).faults == 1


def test_a_lost_row_is_found(home: Home, made: Snapshot) -> None:
    assert checks.check_rows(home, made).passed
    assert checks.check_rows(home, tampered(made, "train", lambda rows: rows.iloc[1:])).faults == 1


def test_rows_removed_as_duplicates_are_not_lost(home: Home, made: Snapshot) -> None:
    path = made.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["removed"]["similar"] += 1
    counted = dataclasses.replace(made, manifest=manifest)
    assert checks.check_rows(home, counted).faults == 1
    assert checks.check_rows(home, tampered(counted, "train", lambda rows: rows.iloc[1:])).passed


def test_an_online_store_of_another_date_is_found(home: Home, marts: Path) -> None:
    materialize(home, AS_OF)
    assert checks.check_online(home, AS_OF).passed
    materialize(home, "2020-03-14")
    assert checks.check_online(home, AS_OF).faults > 100


def test_an_online_store_of_another_date_with_the_same_values_is_found(
    home: Home, marts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = materialize(home, AS_OF)
    monkeypatch.setattr(checks, "online_store", lambda _: dataclasses.replace(filled, as_of="2020-03-14"))
    assert checks.check_online(home, AS_OF).faults == 1


def test_online_values_that_drifted_are_found(home: Home, marts: Path) -> None:
    import sqlite3

    materialize(home, AS_OF)
    with sqlite3.connect(home.features / "online.db") as connection:
        connection.execute("delete from evergreen_company_statistics where feature_name = 'company_labels'")
    connection.close()
    finding = checks.check_online(home, AS_OF)
    assert finding.faults == finding.examined


@pytest.mark.parametrize("days", [1, -1])
def test_a_store_that_ignores_time_or_is_late_is_found(
    home: Home, made: Snapshot, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """A day later than asked for is what the rows had; a day earlier is neither that nor what was asked for."""
    assert checks.check_shift(home, made).passed
    join = checks.with_features

    def shifted(home: Home, marts: Path, rows: object, features: tuple[str, ...]) -> object:
        others = rows.to_pandas()
        others["known_at"] += pd.Timedelta(days=days)
        return join(home, marts, type(rows).from_pandas(others, preserve_index=False), features)

    monkeypatch.setattr(checks, "with_features", shifted)
    assert checks.check_shift(home, made).faults >= made.train_rows


def test_a_feature_that_tells_test_from_train_is_named(made: Snapshot) -> None:
    calm = tell_apart(made)
    leaking = tampered(made, "test", lambda rows: rows.assign(company_labels=rows["company_labels"] + 1e6))
    found = tell_apart(leaking)
    assert found.auc > 0.99 > found.allowed > calm.auc
    assert next(iter(found.features.items())) == ("company_labels", 1.0)


def test_a_statistic_that_grows_is_no_news(made: Snapshot) -> None:
    """It parts the newest train rows from those before them just as well."""
    for part, first in (("train", 0), ("test", made.train_rows)):
        tampered(made, part, lambda rows, first=first: rows.assign(company_labels=np.arange(first, first + len(rows))))
    found = tell_apart(made)
    assert found.features["company_labels"] == 1.0
    assert found.allowed > found.auc > BOUNDS["max_adversarial_auc"]
