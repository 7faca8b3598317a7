from typing import Any

import pandas as pd
import pytest

from assets.home import Home
from assets.monitoring.performance import load_performance, measure_performance
from assets.registry.registry import RegisteredVersion
from assets.registry.shared_ledger import ledger_of
from assets.settings import load_settings

AS_OF = "2024-02-01"
POLICY = load_settings("quick").retraining.model_copy(update={"min_mature_rows": 2})
DRIFT = load_settings("quick").drift


def label(record_id: str, known: str, label: str = "cards", **other: Any) -> dict[str, Any]:
    row = {"record_id": record_id, "known_at": "2024-01-05", "known_until": None, "label": label}
    return {**row, "label_known_at": known, **other}


def records(labels: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(labels).assign(text="something", company="ACME", state="CA", tags=None, channel="Web")


def answers(**labels: str | None) -> pd.DataFrame:
    return pd.DataFrame({"record_id": list(labels), "predicted": list(labels.values()), "confidence": 0.75})


@pytest.fixture
def publish(publish_marts: Any) -> Any:
    def publish(*labels: dict[str, Any], version: str = "m1") -> None:
        publish_marts(records(list(labels)), pd.DataFrame(list(labels)), version)

    return publish


def test_only_blind_predictions_with_a_known_label_count(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any
) -> None:
    publish(
        label("right", "2024-01-10"),
        label("wrong", "2024-02-01", "mortgage"),
        label("immature", "2024-02-02"),
        label("in_snapshot", "2024-01-01"),
        label("no_text", "2024-01-10"),
    )
    publish_predictions(
        AS_OF, answers(right="cards", wrong="cards", immature="cards", in_snapshot="cards", no_text=None)
    )
    found = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert (found.realised.rows, found.realised.accuracy) == (2, 0.5)
    assert found.realised.macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert found.recall == {"cards": 1.0, "mortgage": 0.0}
    assert (found.window_rows, found.window_labels, found.maturity) == (4, 3, 0.75)
    assert found.estimated_accuracy is None
    assert "right on 50.0% of 2 blind predictions" in found.sentence


def test_the_first_answer_counts_and_later_days_are_not_read(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any
) -> None:
    publish(label("a", "2024-01-15"), label("b", "2024-01-15"))
    publish_predictions("2024-01-10", answers(a="cards"))
    publish_predictions("2024-01-20", answers(a="other", b="cards"))
    publish_predictions("2024-02-02", answers(a="other", b="other"))
    found = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert (found.realised.rows, found.realised.accuracy) == (2, 1.0)
    assert (found.before_label.rows, found.before_label.accuracy) == (1, 1.0)


def test_the_newest_labels_tell_how_good_the_champion_is_now(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any
) -> None:
    known = {"old": "2024-01-02", "first": "2024-01-03", "last": "2024-02-01", "ahead": "2024-02-02"}
    publish(*(label(name, day) for name, day in known.items()))
    publish_predictions("2024-01-02", answers(old="cards", first="other", last="other"))
    found = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert (found.realised.rows, found.realised.accuracy) == (2, 0.0)
    more = POLICY.model_copy(update={"min_mature_rows": 3})
    assert measure_performance(home, AS_OF, champion, more, DRIFT).realised.rows == 3
    longer = POLICY.model_copy(update={"realised_days": 31})
    assert measure_performance(home, AS_OF, champion, longer, DRIFT).realised.rows == 3
    most = POLICY.model_copy(update={"min_mature_rows": 4})
    assert measure_performance(home, AS_OF, champion, most, DRIFT).realised.rows == 3


def test_days_of_its_reign_that_were_removed_are_told_of(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publish(label("a", "2024-01-15"))
    publish_predictions("2024-01-20", answers(a="cards"))
    days = ("2024-01-09", "2024-01-10", "2024-01-11", "2024-01-20", "2024-02-02")
    removed = {"days": {"names": [f"lake/predictions/{day}" for day in days]}}
    ledger_of(home).append("prune", "1", AS_OF, {"removed": removed, "reason": "5 by days"})
    measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert caplog.messages == [], "it was no champion"
    ledger_of(home).append("alias", "1", "2024-01-10", {"training_id": champion.training_id})
    measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert caplog.messages == [
        "predictions of 2 days, 2024-01-10 to 2024-01-11, were removed and no longer count (days in "
        "configs/retention.yaml)"
    ]


def test_another_models_predictions_do_not_count(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any
) -> None:
    publish(label("a", "2024-01-15"))
    publish_predictions(
        "2024-01-10", answers(a="cards"), RegisteredVersion("2", "training-0", "s", "2023-12-01", {}, "")
    )
    found = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert found.realised.rows == 0
    assert found.realised.accuracy is None
    assert "cannot be measured: 0 blind predictions of version 3 have a known label, and 2 are needed" in found.sentence


def test_a_label_that_the_snapshot_knew_in_an_earlier_version_is_not_blind(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any
) -> None:
    publish(
        label("a", "2023-12-20", known_at="2023-12-20", known_until="2024-01-20"),
        label("a", "2024-01-25", known_at="2024-01-20"),
    )
    publish_predictions(AS_OF, answers(a="cards"))
    found = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert found.realised.rows == 0
    assert found.new_labels == 0


def test_new_labels_are_those_that_training_could_use(
    home: Home, champion: RegisteredVersion, publish_marts: Any
) -> None:
    labels = [
        label("old", "2024-01-01"),
        label("new", "2024-01-02"),
        label("mute", "2024-01-02"),
        label("x", "2024-02-02"),
    ]
    table = records(labels)
    table.loc[table["record_id"] == "mute", "text"] = " "
    publish_marts(table, pd.DataFrame(labels))
    assert measure_performance(home, AS_OF, champion, POLICY, DRIFT).new_labels == 1
    assert measure_performance(home, AS_OF, None, POLICY, DRIFT).new_labels == 2


def test_the_yardstick_is_the_champions_own_evaluation(
    home: Home, champion: RegisteredVersion, publish: Any, train: Any, world: Any
) -> None:
    publish(label("a", "2024-01-15"))
    train(world(1))
    evaluated = measure_performance(home, AS_OF, champion, POLICY, DRIFT).evaluated
    assert (evaluated.rows, evaluated.accuracy, evaluated.macro_f1) == (600, 1.0, 1.0)


def test_the_newest_window_is_estimated_by_the_champions_evaluation(
    home: Home, champion: RegisteredVersion, train: Any, world: Any, score_window: Any
) -> None:
    """The evaluation was wrong below a confidence of 0.6: as many of the window's answers are expected to be wrong."""
    train(world(1), test_rows=3000, wrong_below=0.6)
    score_window(world(2))
    found = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    window = world(2).rows(1500, "2024-01-05", 25, "n")
    assert found.estimated_accuracy == pytest.approx(float((window["confidence"] >= 0.6).mean()), abs=0.01)
    assert found.estimated_between is not None
    assert found.estimated_between == pytest.approx([float((window["confidence"] >= 0.6).mean())] * 2, abs=0.02)
    assert found.estimated_macro_f1 is not None
    assert 0 < found.estimated_macro_f1 < 1
    assert [(w.as_of, w.estimated_accuracy) for w in found.windows] == [(AS_OF, found.estimated_accuracy)]


def test_earlier_windows_show_what_was_estimated_and_what_was_realised(
    home: Home, champion: RegisteredVersion, train: Any, world: Any, publish: Any, publish_predictions: Any
) -> None:
    train(world(1), wrong_below=0.6)
    known = [label(name, "2024-01-15") for name in "abcd"]
    publish(*known[:1], label("b", "2024-02-20"), label("c", "2024-02-20"), label("d", "2024-02-20"))
    publish_predictions("2024-01-16", answers(a="cards", b="cards", c="cards", d="other"))
    early = measure_performance(home, "2024-01-16", champion, POLICY, DRIFT)
    (window,) = early.windows
    assert (window.rows, window.labels, window.maturity, window.realised_accuracy) == (4, 1, 0.25, None)
    assert window.estimated_accuracy == pytest.approx(1.0)
    publish(*known, version="m2")
    publish_predictions(AS_OF, answers(a="cards"))
    later = measure_performance(home, AS_OF, champion, POLICY, DRIFT).windows
    assert [(w.as_of, w.maturity, w.realised_accuracy) for w in later] == [("2024-01-16", 1.0, 0.75), (AS_OF, 1.0, 1.0)]
    assert later[0].estimated_accuracy == window.estimated_accuracy
    assert later[0].error == pytest.approx(0.25)


def test_what_the_snapshot_knew_is_neither_estimated_nor_realised(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any, train: Any, world: Any
) -> None:
    train(world(1), wrong_below=0.6)
    publish(label("old", "2023-12-20", "mortgage"), label("new", "2024-01-20"))
    sure = answers(old="cards", new="cards").assign(confidence=[0.3, 0.95])
    publish_predictions(AS_OF, sure)
    found = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert found.estimated_accuracy == pytest.approx(1.0)
    assert [(w.rows, w.realised_accuracy) for w in found.windows] == [(1, 1.0)]


def test_answers_count_in_the_night_in_which_their_label_arrives(
    home: Home,
    champion: RegisteredVersion,
    train: Any,
    world: Any,
    publish: Any,
    publish_predictions: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train(world(1))
    arrived: list[pd.DataFrame] = []
    monkeypatch.setattr("assets.monitoring.performance.measure_answers", lambda *a: arrived.append(a[1]) or ())
    publish(label("a", "2024-01-15"), label("b", "2024-01-25"), label("late", "2024-02-02"), label("old", "2024-01-01"))
    publish_predictions("2024-01-10", answers(a="cards"))
    publish_predictions("2024-01-20", answers(a="other", b="other", old="cards"))
    publish_predictions("2024-01-30", answers(a="other", b="cards", late="cards"))
    measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    (rows,) = arrived
    assert rows.sort_values("night")[["night", "predicted", "label"]].astype(str).to_numpy().tolist() == [
        ["2024-01-15", "cards", "cards"],
        ["2024-01-25", "other", "cards"],
    ]
    assert rows["letter"].nunique() == 1


def test_measuring_again_changes_nothing(
    home: Home, champion: RegisteredVersion, publish: Any, publish_predictions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(label("a", "2024-01-15"))
    publish_predictions(AS_OF, answers(a="cards"))
    first = measure_performance(home, AS_OF, champion, POLICY, DRIFT)
    assert load_performance(home.lake, AS_OF) == first
    with monkeypatch.context() as patch:
        patch.setattr("assets.monitoring.performance._measure", lambda *_: pytest.fail("measured again"))
        assert measure_performance(home, AS_OF, champion, POLICY, DRIFT) == first
    publish(label("a", "2024-01-15"), label("b", "2024-01-16"), version="m2")
    assert measure_performance(home, AS_OF, champion, POLICY, DRIFT).new_labels == 2
