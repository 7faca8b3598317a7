"""What the ledger tells of each day, and of now."""

import sqlite3
from typing import Any

import pytest

from assets.front.history import History, Share
from assets.home import Home


def days(home: Home) -> dict[str, Any]:
    return {day.as_of[-2:]: day for day in History.of(home).timeline.days}


def test_each_day_knows_its_champion_and_what_was_decided(told: Any) -> None:
    found = days(told.home)
    champions = {day: known.champion.version for day, known in found.items()}
    assert champions == {**dict.fromkeys(found, "1"), "13": "3", "14": "3"}
    assert [event.title for event in found["10"].events] == [
        "A retraining was decided on",
        "Version 2 was rejected by the gate",
    ]
    assert found["10"].events[1].reasons == ("accuracy is no better", "macro-F1 is no better")
    assert [event.title for event in found["13"].events] == [
        "Version 3 was approved by Ada",
        "Version 3 became champion by approval",
    ]


def test_what_is_drawn_of_a_day(told: Any) -> None:
    found = {day: known.marks for day, known in days(told.home).items() if known.marks}
    assert found == {
        "10": ("drift", "retraining", "rejection"),
        "15": ("rollback", "withdrawal", "alert"),
    }


def test_a_champion_reigns_until_another_does(told: Any) -> None:
    first, second, third = History.of(told.home).timeline.reigns
    assert [
        (reign.version, reign.since[-2:], reign.until and reign.until[-2:]) for reign in (first, second, third)
    ] == [
        ("1", "01", "13"),
        ("3", "13", "15"),
        ("1", "15", None),
    ]
    assert first.judged is not None
    assert (first.judged.value, first.judged.rows, first.beaten, first.reasons) == (0.9, 500, None, ("so it is",))
    assert second.beaten == pytest.approx(0.86)
    assert second.reasons == ("approved by Ada: looks right", "so it is")
    assert (third.judged, third.reasons) == (None, ("version 3 misroutes",))


def test_quality_is_realised_from_enough_rows_on_and_estimated_before(told: Any) -> None:
    found = {day: known.quality for day, known in days(told.home).items() if known.quality}
    assert [day for day, quality in found.items() if quality.realised is None] == ["01", "02", "03", "04", "14"]
    assert found["05"].realised.value == 0.9
    assert found["04"].estimated == 0.89
    assert found["14"].version == "3"
    assert found["01"].evaluated == Share.of(0.9, 500)


def test_drift_begins_once_and_anew_for_another_champion(story: Any) -> None:
    story.promote("1")
    for nth, drifted in enumerate([False, True, True, None, True]):
        story.night(nth).decide(drifted=drifted)
    story.promote("2")
    story.night(5).decide(drifted=True)
    began = [day.as_of[-2:] for day in History.of(story.home).timeline.days if day.began_to_drift]
    assert began == ["02", "05", "06"]


def test_now_is_the_end_of_the_ledger(told: Any) -> None:
    now = History.of(told.home).now
    assert now is not None
    assert now.champion is not None
    assert (now.as_of, now.champion.version, now.former) == ("2024-01-16", "1", ("3",))
    assert [(w.version, w.until, w.reasons) for w in now.waiting] == [
        ("4", "2024-02-15", ("it gains", "it harms a part"))
    ]
    assert now.alert is None
    assert now.quality is not None
    assert now.quality.as_of == "2024-01-16"


def test_a_person_is_asked_while_the_last_decision_does(story: Any) -> None:
    story.promote("1")
    story.decide("alert-a-human", reason="the budget is spent")
    now = History.of(story.home).now
    assert now is not None
    assert now.alert is not None
    assert now.alert.reasons == ("the budget is spent",)
    story.night(1).decide()
    later = History.of(story.home).now
    assert later is not None
    assert later.alert is None


def test_what_cannot_be_approved_any_more_does_not_wait(story: Any) -> None:
    story.promote("1")
    for version in ("2", "3", "4"):
        story.judge(version, "awaiting-approval")
    story.reject("2")
    assert [w.version for w in History.of(story.home).now.waiting] == ["3", "4"]
    story.night(31).decide()
    assert History.of(story.home).now.waiting == ()
    story.judge("5", "awaiting-approval")
    story.promote("6")
    assert History.of(story.home).now.waiting == ()


def test_an_as_of_may_be_an_hour(story: Any) -> None:
    story.promote("1")
    for hour in ("2024-01-02T09", "2024-01-02T13"):
        story.day = hour
        story.decide()
    assert [day.as_of for day in History.of(story.home).timeline.days] == [
        "2024-01-01",
        "2024-01-02T09",
        "2024-01-02T13",
    ]


def test_before_the_first_entry_there_is_nothing(home: Home) -> None:
    history = History.of(home)
    assert (history.timeline.days, history.now, history.problem) == ((), None, None)


def test_a_ledger_that_was_edited_or_made_up_is_not_believed(told: Any) -> None:
    assert History.of(told.home).problem is None
    with sqlite3.connect(told.home.ledger) as connection:
        connection.execute("drop trigger entries_are_not_updated")
        connection.execute("update entries set as_of = '2024-01-02' where seq = 3")
    problem = History.of(told.home).problem
    assert problem is not None
    assert "entry 3" in problem


def test_an_alias_that_no_verdict_moved_is_not_believed(story: Any) -> None:
    story.promote("1")
    story.judge("2", "reject")
    story.crown("2")
    problem = History.of(story.home).problem
    assert problem is not None
    assert "its verdict is reject" in problem


def test_a_ledger_that_cannot_be_read_says_so(home: Home) -> None:
    home.claim()
    home.ledger.write_text("not a database at all, but longer than nothing")
    history = History.of(home)
    assert history.entries == ()
    assert history.problem is not None
    assert "ledger" in history.problem


def test_what_chance_leaves_of_a_share() -> None:
    """Against the interval that Wilson's formula gives in statsmodels for 90 of 100."""
    found = Share.of(0.9, 100)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (0.8256, 0.9448)
    assert Share.of(None, 100) is None
    assert Share.of(0.0, 0) is None
    everything = Share.of(1.0, 50)
    assert everything is not None
    assert everything.high == pytest.approx(1.0)
    assert everything.low < 0.95
