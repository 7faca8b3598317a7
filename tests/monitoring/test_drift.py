import json
import re
import shutil
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from assets.features.duplicates import hash_starts
from assets.home import Home
from assets.monitoring.drift import measure_drift
from assets.monitoring.performance import measure_performance
from assets.monitoring.report import load_drift
from assets.monitoring.sides import arrived_labels
from assets.settings import load_settings

AS_OF = "2024-02-01"
SETTINGS = load_settings("quick").drift
POLICY = load_settings("quick").retraining
FEATURES = ("company_records_30d", "company_share_cards", "text_length")


def test_calm_data_does_not_alarm_and_evidentlys_report_is_safe(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    score_window(world(2))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is False
    assert report.groups == dict.fromkeys(("text", "features", "labels", "predictions", "wording"), 0.0)
    assert (report.since, set(report.left_out)) == ({}, {"answers"})
    assert (report.reference_rows, report.current_rows, report.model_version) == (1500, 1500, "3")
    html = (home.reports / "evidently" / f"{AS_OF}.html").read_text()
    assert "in this order: text, features, labels, predictions." in html
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=[\"']?(?!data:)", html)
    assert not re.findall(r"(?:url\(|@import)\s*[\"']?https?:", html)
    folder = home.lake.current(f"drift/{AS_OF}")
    assert {path.name for path in folder.iterdir()} == {"drift.json", "distributions.json", "report.html"}
    for text in (html, *(path.read_text() for path in folder.iterdir())):
        assert "zanzibarian" not in text
    assert json.loads((folder / "drift.json").read_text())["detected"] is False


def test_a_new_vocabulary_alarms(home: Home, champion: Any, world: Any, train: Any, score_window: Any) -> None:
    train(world(1))
    score_window(world(2, first_word=100))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is True
    assert {c.name for c in report.columns if c.drifted} == {"text_unknown_share", "domain_classifier"}
    assert "text_unknown_share" in report.reason


def test_known_words_that_become_frequent_alarm(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    score_window(world(2, favourites=40))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is True
    assert [c.name for c in report.columns if c.drifted] == ["domain_classifier"]


def test_serving_features_that_broke_alarm(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    score_window(world(2, broken=FEATURES))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is True
    assert {c.name for c in report.columns if c.drifted} == set(FEATURES)


def test_a_shifted_mix_alarms(home: Home, champion: Any, world: Any, train: Any, score_window: Any) -> None:
    train(world(1))
    score_window(world(2, mix=(0.05, 0.05, 0.05, 0.05, 0.05, 0.1, 0.1, 0.2, 0.35)))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is True
    assert (report.groups["predictions"], report.groups["labels"]) == (0.5, 1.0)
    assert load_drift(home.lake, AS_OF) == report


@pytest.mark.parametrize(("arrived", "measured"), [(99, False), (1500, True)])
def test_labels_count_once_enough_have_arrived(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any, arrived: int, measured: bool
) -> None:
    train(world(1))
    score_window(world(2), labels=arrived)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert ("labels" in report.groups) is measured
    assert ("labels" in report.left_out) is not measured
    if not measured:
        assert "labels not measured: " in report.reason
        assert "100 are needed" in report.left_out["labels"]


def test_labels_from_after_the_as_of_are_not_read(
    home: Home, champion: Any, world: Any, train: Any, publish_marts: Any, publish_predictions: Any
) -> None:
    train(world(1))
    window = world(2).rows(1500, "2024-01-05", 25, "n").assign(known_until=pd.NaT)
    late = window.assign(label_known_at=pd.Timestamp("2024-02-02"))
    publish_marts(window, late)
    publish_predictions(AS_OF, window)
    assert measure_drift(home, AS_OF, champion, SETTINGS).left_out["labels"].startswith("0 rows of the window")


def test_labels_that_are_settled_late_are_missing_from_both_sides() -> None:
    """Cards arrive at once, mortgages after four weeks: most of a window's labels are cards, and that is no drift."""
    rows = pd.DataFrame({"label": ["cards", "mortgage"] * 3000, "known_at": pd.Timestamp("2024-01-01")})
    lags = pd.to_timedelta(np.where(rows["label"] == "cards", 0, 27), unit="D")
    found = arrived_labels(rows.assign(label_known_at=rows["known_at"] + lags), 30)
    assert (found == "cards").sum() == 3000
    assert (found == "mortgage").sum() == pytest.approx(300, abs=10)


def test_without_an_evaluation_predictions_are_left_out(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1), test_rows=0)
    score_window(world(2))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is False
    assert set(report.left_out) == {"predictions", "answers"}


@pytest.mark.parametrize("swapped", [False, True])
def test_texts_that_go_to_another_label_break_the_champions_promise(
    home: Home, champion: Any, answer_traded: Any, swapped: bool
) -> None:
    """Nothing that is seen of a record moves, nor the mix of the labels: their meaning alone does."""
    pairs = {"cards": "bank_account", "consumer_loan": "credit_reporting"}
    answer_traded(pairs if swapped else {})
    measure_performance(home, AS_OF, champion, POLICY, SETTINGS)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is swapped
    found = {column.name for column in report.columns if column.drifted}
    labels = {f"{side}_{label}" for side in ("answered", "true") for label in (*pairs, *pairs.values())}
    assert found == ({"answers", "sure_answers", *labels} if swapped else set())
    assert all(", " in column.note for column in report.columns if column.group == "answers")


def test_a_calm_window_in_between_begins_anew(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    days = {"2024-01-30": world(2, first_word=100), "2024-01-31": world(3), AS_OF: world(4, first_word=100)}
    for as_of, moved in days.items():
        score_window(moved, version=f"p-{as_of}", as_of=as_of)
        report = measure_drift(home, as_of, champion, SETTINGS)
    assert set(report.since.values()) == {AS_OF}


def test_measuring_again_changes_nothing(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world(1))
    score_window(world(2))
    first = measure_drift(home, AS_OF, champion, SETTINGS)
    version = home.lake.version(f"drift/{AS_OF}")
    monkeypatch.setattr("assets.monitoring.drift._report", lambda *_: pytest.fail("measured again"))
    (home.reports / "evidently" / f"{AS_OF}.html").unlink()
    assert measure_drift(home, AS_OF, champion, SETTINGS) == first
    assert home.lake.version(f"drift/{AS_OF}") == version
    assert (home.reports / "evidently" / f"{AS_OF}.html").exists()


def test_too_few_rows_cannot_be_judged(home: Home, champion: Any, world: Any, train: Any, score_window: Any) -> None:
    train(world(1))
    score_window(world(2), rows=99)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert (report.detected, report.share, report.current_rows) == (None, None, 99)
    assert "cannot be measured: the window has 99 scored complaints" in report.reason
    assert not (home.reports / "evidently").exists()


def test_a_window_whose_marts_were_removed_cannot_be_judged(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    score_window(world(2))
    shutil.rmtree(home.lake.path("marts", "p1"))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is None
    assert "p1, are gone (publications in configs/retention.yaml); materialize predictions again" in report.reason


def test_a_report_of_evidently_that_was_removed_is_not_served_again(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    score_window(world(2))
    first, served = measure_drift(home, AS_OF, champion, SETTINGS), home.reports / "evidently" / f"{AS_OF}.html"
    kept = home.lake.current(f"drift/{AS_OF}") / "report.html"
    assert served.samefile(kept)
    for path in (served, kept):
        path.unlink()
    assert measure_drift(home, AS_OF, champion, SETTINGS) == first
    assert not served.exists()


def test_rows_that_the_champion_was_trained_on_are_left_out(
    home: Home, champion: Any, world: Any, train: Any, publish_marts: Any, publish_predictions: Any
) -> None:
    train(world(1))
    trained = world(1).rows(500, "2024-01-05", 25, "t")
    trained = trained.assign(known_until=None)
    publish_marts(trained, trained)
    publish_predictions(AS_OF, trained)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is None
    assert "the window has 0 scored complaints that the champion was not trained on" in report.reason


@pytest.mark.parametrize("kept_out", [True, False])
def test_letters_that_were_kept_from_the_training_are_no_news(
    home: Home, champion: Any, world: Any, train: Any, publish_marts: Any, publish_predictions: Any, kept_out: bool
) -> None:
    """The test part has a form letter, so the training has none of its copies; the window has, as ever."""
    letter = (
        "I hereby give notice under section nine of the act that the bureau shall delete what it cannot verify. " * 3
    )
    train(world(1), kept_out=hash_starts(pa.chunked_array([[letter]])).tolist() if kept_out else ())
    rows = world(2).rows(1500, "2024-01-05", 25, "w").assign(known_until=pd.NaT)
    rows.loc[rows.index[::5], "text"] = letter
    known = ["record_id", "known_at", "known_until", "label", "label_known_at"]
    publish_marts(rows.drop(columns=[*FEATURES, "confidence"]), rows[known])
    publish_predictions(AS_OF, rows)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is not kept_out
    assert any(column.drifted for column in report.columns if column.group == "wording") is not kept_out


def test_without_a_champion_or_its_predictions(home: Home, champion: Any, world: Any, score_window: Any) -> None:
    assert "there is no champion yet" in measure_drift(home, AS_OF, None, SETTINGS).reason
    assert "nothing was scored" in measure_drift(home, AS_OF, champion, SETTINGS).reason
    score_window(world(2))
    other = type(champion)("4", "training-2", "snapshot-2", "2024-01-15", {}, "")
    report = measure_drift(home, AS_OF, other, SETTINGS)
    assert report.detected is None
    assert "scored by version 3, training training-1, not by the champion, version 4" in report.reason
