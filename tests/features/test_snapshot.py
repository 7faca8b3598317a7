"""Training sets: a function of what was known as of a date, named by their content."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.exceptions import NotPublished, SnapshotError
from assets.features import snapshot as module
from assets.features.checks import check_rows, check_training_set
from assets.features.content import content_hash
from assets.features.kept_out import KeptOut
from assets.features.snapshot import (
    Snapshot,
    build_refit_set,
    build_training_set,
    load_snapshot,
    read_snapshot,
    rebuild_training_set,
)
from assets.features.store import definitions
from assets.home import Home
from assets.settings import SnapshotSettings, load_domain

LABELS = tuple(load_domain().labels)

AS_OF = "2020-03-15"
INSTANT = datetime(2020, 3, 15)
Records = list[dict[str, Any]]


@pytest.fixture
def rows(make_records: Callable[..., Records]) -> Records:
    return make_records()


@pytest.fixture
def made(home: Home, marts: Path, settings: SnapshotSettings) -> Snapshot:
    return build_training_set(home, AS_OF, settings)


def test_rows_are_ordered_and_split_at_the_start_of_a_day(made: Snapshot, settings: SnapshotSettings) -> None:
    train, test = made.train(), made.test()
    assert list(train.columns) == list(test.columns) == [*made.domain.columns, *made.features]
    assert (len(train), len(test)) == (made.train_rows, made.test_rows)
    assert made.test_rows >= settings.test_rows > (test["known_at"] > test["known_at"].min()).sum()
    assert train["known_at"].max() < test["known_at"].min()
    for part in (train, test):
        assert part.sort_values(["known_at", "record_id"]).index.tolist() == list(range(len(part)))
        assert (part["label_known_at"] <= INSTANT).all()
        assert set(part["label"]) <= set(LABELS)
        assert all(part[name].dtype == np.float64 for name in made.features)


def test_a_refit_learns_from_the_test_rows_and_holds_out_the_reference_rows_alone(
    home: Home, made: Snapshot, settings: SnapshotSettings, marts: Path, tmp_path: Path
) -> None:
    refit = build_refit_set(home, made)
    learned = set(refit.train()["record_id"])
    assert len(refit.test()) == refit.test_rows == 0
    assert set(refit.manifest["period"]) == {"train"}
    assert refit.manifest["period"]["train"][1] == made.manifest["period"]["test"][1]
    newest = made.test()
    reserved = KeptOut(reserved=settings.reference_share).among(newest["text"])
    assert 0 < reserved.sum() < len(newest)
    assert set(newest["record_id"][~reserved]) <= learned
    assert not set(newest["record_id"][reserved]) & learned
    assert not set(refit.reference()["record_id"]) & learned
    assert [finding for finding in check_training_set(home, refit) if not finding.passed] == []
    assert load_snapshot(home.lake, AS_OF) == made
    assert read_snapshot(home.lake, AS_OF, refit.id) == refit
    again = rebuild_training_set(Home(tmp_path / "again"), refit, marts)
    assert (again.id, again.holds_out) == (refit.id, False) != (made.id, made.holds_out)


def test_a_refit_keeps_to_the_newest_rows(home: Home, marts: Path, settings: SnapshotSettings) -> None:
    few = build_training_set(home, AS_OF, settings.model_copy(update={"max_train_rows": 100}))
    refit = build_refit_set(home, few)
    assert refit.train_rows + refit.reference_rows + sum(refit.manifest["removed"].values()) == 100
    assert check_rows(home, refit).passed
    assert refit.train()["known_at"].min() > few.train()["known_at"].min()


def test_a_refit_is_made_without_what_was_withdrawn_since(
    home: Home, rows: Records, settings: SnapshotSettings, publish: Callable[..., Path]
) -> None:
    kept, bad = [rows[:300] + rows[330:], rows[300:330]]
    objects = [("a", None, kept), ("b", None, bad)]
    publish(home, rows, "both", landed=objects)
    made = build_training_set(home, AS_OF, settings)
    publish(home, kept, "without", landed=objects, withdrawn=["b"])
    refit = build_refit_set(home, made)
    assert not {row["record_id"] for row in bad} & set(refit.train()["record_id"])
    assert set(made.test()["record_id"]) <= {*refit.train()["record_id"], *refit.reference()["record_id"]}
    assert refit.manifest["marts"] == "without"
    assert [finding for finding in check_training_set(home, refit) if not finding.passed] == []


def test_a_refit_is_not_sound_while_the_marts_still_hold_what_was_withdrawn(
    home: Home, rows: Records, settings: SnapshotSettings, publish: Callable[..., Path]
) -> None:
    objects = [("a", None, rows[:300]), ("b", None, rows[300:])]
    publish(home, rows, "both", landed=objects)
    made = build_training_set(home, AS_OF, settings)
    publish(home, rows, "both", landed=objects, withdrawn=["b"])
    faults = [finding.name for finding in check_training_set(home, build_refit_set(home, made)) if not finding.passed]
    assert faults == ["as_it_had_landed"]


def test_a_refit_needs_the_marts_of_the_version_that_was_evaluated(home: Home, made: Snapshot, marts: Path) -> None:
    marts.rename(marts.with_name("gone"))
    with pytest.raises(
        NotPublished, match=f"marts {marts.name}, which training set {made.id} was built from, are gone"
    ):
        build_refit_set(home, made)


def test_every_mart_statistic_and_request_feature_is_there(home: Home, made: Snapshot, marts: Path) -> None:
    statistics = [
        name
        for table, key in (("company_daily", "company"), ("state_daily", "state"))
        for name in pd.read_parquet(marts / table).columns
        if name not in (key, "event_timestamp")
    ]
    request = ["words_log", "redacted_share", "has_amount", "is_older", "is_servicemember"]
    request += ["via_web", "via_phone", "via_mail", "via_referral"]
    assert set(made.features) == {*statistics, *request}
    assert made.features == definitions(home).features
    assert {name for name in made.features if "_share_" in name} == {
        f"{key}_share_{label}" for key in ("company", "state") for label in LABELS
    }


def test_request_features_say_what_the_record_shows(
    home: Home, rows: Records, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    said = {"text": "I paid {$5.00} to XXXX XXXX", "tags": "Older American, Servicemember", "channel": "Fax"}
    rows[300] |= said
    rows[301] |= {"text": "nothing\n much", "tags": None, "channel": None}
    publish(home, rows)
    features = build_training_set(home, AS_OF, settings).train().set_index("record_id")
    names = ["redacted_share", "has_amount", "is_older", "is_servicemember", "via_web", "via_mail", "via_phone"]
    assert features.loc["00300", names].tolist() == pytest.approx([2 / 6, 1, 1, 1, 0, 1, 0])
    assert features.loc["00300", "words_log"] == round(float(np.log(7)), 4)
    assert features.loc["00301", names].tolist() == [0.0] * 7
    assert features.loc["00301", "tags"] is None


def test_only_what_was_known_is_used(
    home: Home, rows: Records, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    day = timedelta(days=1)
    rows[400] |= {"label_known_at": INSTANT + day}
    rows[401] |= {"label": None}
    rows[402] |= {"text": " \n "}
    rows[403] |= {"text": None}
    rows[404] |= {"known_until": INSTANT}
    rows[405] |= {"known_until": INSTANT + day}
    publish(home, rows)
    ids = set(pd.concat([(s := build_training_set(home, AS_OF, settings)).train(), s.test()])["record_id"])
    assert not ids & {"00400", "00401", "00402", "00403", "00404"}
    assert {"00399", "00405", "00406"} <= ids


def test_train_keeps_no_near_duplicate_of_test(
    home: Home, rows: Records, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    settings = settings.model_copy(update={"reference_share": 0.0})
    text = rows[430]["text"] = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(60))
    rows[300] |= {"text": text.upper()}
    rows[301] |= {"text": "it said " + text}
    rows[302] |= {"text": text[:150] + " and nothing of what comes after that"}
    rows[303] |= {"text": "it said " + text[200:]}
    publish(home, rows)
    made = build_training_set(home, AS_OF, settings)
    assert made.manifest["removed"] == {"same_record": 0, "same_start": 2, "similar": 1, "copies": 0, "reserved": 0}
    ids = set(made.train()["record_id"])
    assert not ids & {"00300", "00301", "00302"}
    assert {"00299", "00303"} <= ids
    assert "00430" in set(made.test()["record_id"])
    assert made.train_rows == settings.max_train_rows - 3
    later = pd.Series([text.upper(), text[:150] + " and so on", rows[299]["text"]])
    assert KeptOut.of(made.manifest).among(later).tolist() == [True, True, False]


def test_id_is_of_the_content_alone(
    home: Home,
    tmp_path: Path,
    rows: Records,
    publish: Callable[..., Path],
    settings: SnapshotSettings,
    made: Snapshot,
) -> None:
    other = Home(tmp_path / "elsewhere")
    elsewhere = [row | {"object_id": "f" * 16, "line": row["line"] + 7} for row in rows]
    publish(other, elsewhere, version="another", shuffled=5)
    assert build_training_set(other, AS_OF, settings).id == made.id


@pytest.mark.parametrize("change", [{"label": "mortgage"}, {"tags": "new"}, {"company": "BETA "}, {"zip_code": "1"}])
def test_id_changes_with_any_value(
    home: Home,
    tmp_path: Path,
    rows: Records,
    publish: Callable[..., Path],
    settings: SnapshotSettings,
    made: Snapshot,
    change: dict[str, str],
) -> None:
    other = Home(tmp_path / "elsewhere")
    rows[430] |= {"label": "cards"} if rows[430]["label"] == "mortgage" else change
    publish(other, rows)
    assert build_training_set(other, AS_OF, settings).id != made.id


def test_missing_and_empty_texts_are_not_the_same(made: Snapshot) -> None:
    import pyarrow as pa

    def of(values: list[Any], kind: pa.DataType) -> str:
        return content_hash({"train": pa.table({"column": pa.array(values, kind)})}, (), ())

    texts = [["a", "b"], ["ab", ""], ["", "ab"], ["ab", None], ["a", "b", ""]]
    assert len({of(values, pa.string()) for values in texts}) == len(texts)
    assert of(["a", "b"], pa.string()) == of(["a", "b"], pa.large_string())
    numbers = [[1.0, None], [1.0, 0.0], [0.0, 1.0]]
    assert len({of(values, pa.float64()) for values in numbers}) == len(numbers)
    assert of([float("nan"), -0.0], pa.float64()) == of([None, 0.0], pa.float64())


def test_unchanged_inputs_are_not_joined_again(
    home: Home, made: Snapshot, settings: SnapshotSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "with_features", None)
    assert build_training_set(home, AS_OF, settings) == made
    with pytest.raises(TypeError):
        build_training_set(home, AS_OF, settings.model_copy(update={"test_rows": 41}))


def test_an_earlier_as_of_is_what_it_would_have_been_then(
    home: Home,
    tmp_path: Path,
    rows: Records,
    publish: Callable[..., Path],
    settings: SnapshotSettings,
    made: Snapshot,
) -> None:
    then = datetime(2020, 2, 25)
    past = Home(tmp_path / "past")
    publish(past, [row for row in rows if row["known_at"] <= then])
    assert build_training_set(home, "2020-02-25", settings).id == build_training_set(past, "2020-02-25", settings).id
    assert load_snapshot(home.lake, AS_OF) == made


def test_too_few_rows_publish_nothing(home: Home, marts: Path, settings: SnapshotSettings) -> None:
    with pytest.raises(SnapshotError, match=r"snapshot\.min_train_rows = 50"):
        build_training_set(home, "2020-01-05", settings)
    with pytest.raises(NotPublished):
        load_snapshot(home.lake, "2020-01-05")


def test_without_marts_there_is_no_training_set(home: Home, settings: SnapshotSettings) -> None:
    with pytest.raises(NotPublished, match="marts"):
        build_training_set(home, AS_OF, settings)


def test_reference_rows_are_the_same_whenever_they_are_asked_for_and_never_trained_on(
    home: Home, rows: Records, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    settings = settings.model_copy(update={"max_train_rows": 10_000, "reference_rows": 10_000})
    publish(home, rows)
    earlier, later = (build_training_set(home, day, settings) for day in ("2020-02-20", AS_OF))
    first, second = (set(snapshot.reference()["record_id"]) for snapshot in (earlier, later))
    assert 10 < len(first) < len(second)
    assert first < second
    for snapshot in (earlier, later):
        assert not set(snapshot.train()["record_id"]) & second
        assert snapshot.manifest["reference_rows"] == len(snapshot.reference())


def test_form_letters_are_all_set_aside_or_none(
    home: Home, rows: Records, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    settings = settings.model_copy(update={"reference_share": 0.5, "max_train_rows": 10_000, "reference_rows": 10_000})
    for number in range(0, 60, 2):
        rows[number] |= {"text": f"{'I dispute this account ' * 6} letter {'abcdefghij'[number % 10]}"}
    publish(home, rows)
    letters = {rows[number]["record_id"] for number in range(0, 60, 2)}
    reserved = letters & set(build_training_set(home, AS_OF, settings).reference()["record_id"])
    assert reserved in (letters, set())


def test_of_form_letters_the_newest_are_kept(
    home: Home, rows: Records, publish: Callable[..., Path], settings: SnapshotSettings
) -> None:
    publish(home, rows)
    chosen = sorted(build_training_set(home, AS_OF, settings).train()["record_id"])[::7]
    for row in rows:
        if row["record_id"] in chosen:
            row["text"] = f"{'I dispute this account ' * 6} letter {row['record_id']}"
    publish(home, rows, "v2")
    every = build_training_set(home, AS_OF, settings)
    fewer = build_training_set(home, AS_OF, settings.model_copy(update={"max_copies": 3}))
    letters, kept = (
        part[part["text"].str.startswith("I dispute")]["record_id"].tolist() for part in (every.train(), fewer.train())
    )
    assert len(letters) > 3
    assert kept == letters[-3:]
    assert fewer.manifest["removed"]["copies"] == every.train_rows - fewer.train_rows == len(letters) - 3
    assert check_rows(home, fewer).passed
    assert fewer.test()["record_id"].tolist() == every.test()["record_id"].tolist()
