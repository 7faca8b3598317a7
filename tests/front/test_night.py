"""What came of a night, by the small files that it has left."""

from typing import Any

from assets.front.history import History
from assets.front.night import Finding, Landed, Run, measured, night
from assets.home import Home

SECRET = "what a person has written"


def last(home: Home, *, runs: tuple[Run, ...] = (), checks: tuple[Finding, ...] = ()) -> Any:
    known = History.of(home).timeline
    return night(home, known.days[-1].as_of, known, runs, checks)


def land(story: Any) -> None:
    story.land(
        [
            {"object_id": "a", "key": "old.csv", "landed": 9, "rejects": 0, "seq": 0, "landed_on": "2024-01-01"},
            {"object_id": "b", "key": "a.csv", "landed": 100, "rejects": 3, "seq": 2, "landed_on": "2024-01-02"},
            {"object_id": "c", "key": "b.gz", "landed": 5, "rejects": 1, "seq": 1, "landed_on": "2024-01-02"}
            | {"error": "truncated-gzip"},
        ],
        [
            *[{"object_key": "a.csv", "reason": "broken-quote", "raw_text": SECRET}] * 2,
            {"object_key": "a.csv", "reason": "not-utf-8", "raw_text": SECRET},
            {"object_key": "b.gz", "reason": "broken-quote", "raw_text": SECRET},
            {"object_key": "old.csv", "reason": "too-long", "raw_text": SECRET},
        ],
    )


def test_what_landed_is_told_with_why_it_was_quarantined(story: Any) -> None:
    story.promote("1")
    land(story)
    story.night(1).decide()
    found = last(story.home)
    assert found.landed == (
        Landed("b.gz", 5, 4, 1, 0, "truncated-gzip", None),
        Landed("a.csv", 100, 97, 3, 0, None, None),
    )
    assert found.reasons == {"broken-quote": 3, "not-utf-8": 1}
    story.night(2).decide()
    assert (last(story.home).landed, last(story.home).reasons) == ((), {})


def test_without_a_publication_nothing_has_landed(story: Any) -> None:
    story.promote("1")
    found = last(story.home)
    assert (found.landed, found.reasons, found.measured, found.drift, found.cost, found.pages) == (
        *((), {}, None, None, None),
        {},
    )


def test_checks_are_those_of_the_runs_and_else_those_of_the_audit(story: Any) -> None:
    story.promote("1")
    failures = [
        {"suite": "labels", "expectation": "no label is rare", "severity": "warning"},
        {"suite": "marts", "expectation": "nothing is lost", "severity": "critical"},
    ]
    story.publish("mart_audit", "audit.json", {"failures": failures})
    assert [(found.severity, found.about, found.words) for found in last(story.home).findings] == [
        ("warning", "labels", "no label is rare"),
        ("error", "marts", "nothing is lost"),
    ]
    check = Finding("each_record_once", "error", "2 records twice", "predictions")
    assert last(story.home, checks=(check,)).findings == (check,)


def test_verdict_decision_and_cost_are_those_of_the_day(told: Any) -> None:
    trained = told.home.lake.root / "challenger" / told.day / "training-4"
    trained.mkdir(parents=True)
    (trained / "training.json").write_text('{"cost": 0.25}')
    found = last(told.home)
    assert [verdict.title for verdict in found.verdicts] == ["Version 4 awaits approval"]
    assert found.decision.title == "No retraining"
    assert found.cost == 0.25
    known = History.of(told.home).timeline
    assert night(told.home, "2024-01-05", known, (), ()).cost is None


def test_pages_that_are_there_are_named(told: Any) -> None:
    assert last(told.home).pages == {}
    told.publish("drift", "drift.json", {"reason": "calm"})
    (told.home.reports / "data-docs").mkdir(parents=True)
    (told.home.reports / "data-docs" / "index.html").touch()
    assert last(told.home).pages == {"Drift report": f"drift/{told.day}.html", "Data Docs": "data-docs/index.html"}
    assert night(told.home, "2024-01-05", History.of(told.home).timeline, (), ()).pages == {}


def test_an_estimate_lies_between_two(story: Any) -> None:
    story.measure(estimated=0.8, by_threshold=0.9)
    found = measured(story.home.lake, story.day)
    assert found is not None
    assert (found.estimated, found.between, found.macro_f1) == (0.8, (0.8, 0.9), 0.8)
    story.night(1).measure(estimated=None, by_threshold=None)
    later = measured(story.home.lake, story.day)
    assert later is not None
    assert later.between is None
    assert measured(story.home.lake, "2024-03-01") is None
