import json
import re
from typing import Any

import pytest

from assets.lake import Home
from assets.monitoring.columns import fit_binning, psi
from assets.monitoring.comparison import Side, compare
from assets.monitoring.drift import load_drift, measure_drift
from assets.settings import load_settings

AS_OF = "2024-02-01"
SETTINGS = load_settings("quick").drift


def test_evidentlys_numbers_are_ours(world: Any) -> None:
    frames = [world(seed).rows(rows, "2024-01-01", 30, "a") for seed, rows in ((1, 900), (2, 400))]
    columns = ["company_complaints_30d", "company", "tags"]
    sides = [Side({"features": f[columns], "predictions": f[["queue"]].head(300)}) for f in frames]
    found, _ = compare(*sides, SETTINGS)
    assert [c.name for c in found] == [*columns, "queue"]
    for column in found:
        left, right = (side.groups[column.group][column.name] for side in sides)
        binning = fit_binning(left, SETTINGS.bins, len(right))
        assert column.psi == pytest.approx(psi(binning.apply(left), binning.apply(right)))


def test_calm_data_does_not_alarm_and_the_page_is_safe(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    score_window(world(2))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is False
    assert report.groups == {"text": 0.0, "features": 0.0, "predictions": 0.0}
    assert (report.reference_rows, report.current_rows, report.model_version) == (1500, 1500, "3")
    page = (home.reports / "drift" / f"{AS_OF}.html").read_text()
    assert "No drift as of 2024-02-01" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=[\"']?(?!data:)", page)
    assert not re.findall(r"(?:url\(|@import)\s*[\"']?https?:", page)
    published = (home.lake.current(f"drift/{AS_OF}") / "drift.json").read_text()
    for text in (page, published):
        assert "zanzibarian" not in text
    assert json.loads(published)["detected"] is False


def test_a_new_vocabulary_alarms(home: Home, champion: Any, world: Any, train: Any, score_window: Any) -> None:
    train(world(1))
    score_window(world(2, first_word=100))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is True
    assert [c.name for c in report.columns if c.drifted] == ["text_unknown_share"]
    assert "text_unknown_share" in report.reason


def test_a_shifted_mix_alarms(home: Home, champion: Any, world: Any, train: Any, score_window: Any) -> None:
    train(world(1))
    score_window(world(2, mix=(0.05, 0.05, 0.05, 0.05, 0.05, 0.1, 0.1, 0.2, 0.35)))
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is True
    assert report.groups["predictions"] == 0.5
    assert load_drift(home.lake, AS_OF) == report


def test_measuring_again_changes_nothing(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world(1))
    score_window(world(2), rows=50)
    first = measure_drift(home, AS_OF, champion, SETTINGS)
    version = home.lake.version(f"drift/{AS_OF}")
    monkeypatch.setattr("assets.monitoring.drift._report", lambda *_: pytest.fail("measured again"))
    (home.reports / "drift" / f"{AS_OF}.html").unlink()
    assert measure_drift(home, AS_OF, champion, SETTINGS) == first
    assert home.lake.version(f"drift/{AS_OF}") == version
    assert (home.reports / "drift" / f"{AS_OF}.html").exists()


def test_too_few_rows_cannot_be_judged(home: Home, champion: Any, world: Any, train: Any, score_window: Any) -> None:
    train(world(1))
    score_window(world(2), rows=99)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert (report.detected, report.share, report.current_rows) == (None, None, 99)
    assert "cannot be measured" in report.reason
    assert "99 scored complaints" in (home.reports / "drift" / f"{AS_OF}.html").read_text()


def test_rows_that_the_champion_was_trained_on_are_left_out(
    home: Home, champion: Any, world: Any, train: Any, publish_marts: Any, publish_predictions: Any
) -> None:
    train(world(1))
    trained = world(1).rows(500, "2024-01-05", 25, "t")
    publish_marts(trained.assign(known_until=None))
    publish_predictions(AS_OF, trained)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    assert report.detected is None
    assert "the window has 0 scored complaints that the champion was not trained on" in report.reason


def test_without_a_champion_or_its_predictions(home: Home, champion: Any, world: Any, score_window: Any) -> None:
    assert "there is no champion yet" in measure_drift(home, AS_OF, None, SETTINGS).reason
    assert "nothing was scored" in measure_drift(home, AS_OF, champion, SETTINGS).reason
    score_window(world(2))
    other = type(champion)("4", "training-2", "snapshot-2", "2024-01-15", {}, "")
    report = measure_drift(home, AS_OF, other, SETTINGS)
    assert report.detected is None
    assert "scored by version 3, not by the champion, version 4" in report.reason
