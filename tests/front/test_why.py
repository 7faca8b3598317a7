"""A verdict as a story: whatever it claims about a threshold, the gate decides so with it."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from assets.evaluation.gate import decide
from assets.evaluation.report import read_evaluation, write_evaluation
from assets.front.history import History
from assets.front.pages import Links, why_page
from assets.front.why import Why, lines, why
from assets.settings import GatePolicy, load_domain
from pipelines.cli import app

DOMAIN = load_domain()
LINKS = Links("/", "http://127.0.0.1:3000/", "http://127.0.0.1:5000/")


def told(story: Any, version: str) -> Why:
    found = why(story.home, History.of(story.home), version)
    assert found is not None
    return found


@pytest.fixture
def decided(harmed: Any) -> Callable[..., str]:
    """What the gate decides on version 2 with other thresholds."""
    entry = [entry for entry in History.of(harmed.home).entries if entry.kind == "verdict"][-1]
    evaluation = read_evaluation(harmed.home.lake.path(f"evaluation/{entry.as_of}", entry.body["evaluation"]))

    def again(**changed: float) -> str:
        policy = GatePolicy.model_validate(entry.body["policy"] | changed)
        return decide(evaluation, policy, DOMAIN, entry.body["champion"]).decision

    return again


def test_a_version_that_harms_a_part_could_have_been_promoted(harmed: Any) -> None:
    story = told(harmed, "2")
    assert (story.decision, story.champion, story.title) == ("awaiting-approval", "1", "Version 2 awaits approval")
    (failed,) = [rule for rule in story.rules if not rule.holds]
    assert (failed.rule, failed.numbers[0].margin < 0) == ("harms no part", True)
    assert "channel Phone (0.4000 below" in failed.sentence
    assert {change.setting for change in story.turns} == {"max_part_loss", "harm_confidence"}
    assert story.story == (
        f"{len(story.rules) - 1} of {len(story.rules)} rules hold; these do not: harms no part.",
        f"The nearest change: {story.turns[0].sentence}.",
    )


def test_a_threshold_turns_the_verdict_where_it_is_said_to_and_not_before(
    harmed: Any, decided: Callable[..., str]
) -> None:
    story = told(harmed, "2")
    changes = [change for rule in story.rules for change in rule.changes]
    assert len({change.setting for change in changes}) > 5
    for change in changes:
        assert decided(**{change.setting: change.to}) == change.decision, change
    for change in story.turns:
        assert decided(**{change.setting: change.was + 0.7 * (change.to - change.was)}) == story.decision, change


def test_the_order_is_the_gate_s_and_the_nearest_change_comes_first(harmed: Any) -> None:
    story = told(harmed, "2")
    names = [rule.rule for rule in story.rules]
    assert names[0] == "enough test rows"
    assert names.index("calibrated") < names.index("better than the champion") < names.index("harms no part")
    for changes in (story.turns, *(rule.changes for rule in story.rules)):
        assert [change.distance for change in changes] == sorted(change.distance for change in changes)


def test_where_two_rules_fail_no_threshold_alone_turns_it(story: Any, gate: GatePolicy) -> None:
    story.gate("1", story.evaluate("training-1"))
    story.crown("1")
    strict = gate.model_copy(update={"max_calibration_error": 0.01, "max_milliseconds": 1})
    evaluation = story.night(1).evaluate("training-2", champion_wrong=range(60))
    worse = evaluation.model_copy(update={"challenger": replace(evaluation.challenger, ece=0.06)})
    write_evaluation(worse, evaluation.folder(story.home.lake))
    story.gate("2", worse, strict)
    found = told(story, "2")
    assert (found.decision, found.turns) == ("reject", ())
    assert found.story[-1] == "No single threshold would have turned it."
    failed = {rule.rule: rule.changes for rule in found.rules if not rule.holds}
    assert {rule: [(one.setting, one.to, one.decision) for one in changes] for rule, changes in failed.items()} == {
        "calibrated": [("max_calibration_error", 0.06, "reject")],
        "fast enough": [("max_milliseconds", 5.0, "reject")],
    }


def test_what_waits_for_approval_although_every_rule_holds_says_why(story: Any, gate: GatePolicy) -> None:
    evaluation = story.evaluate("training-1")
    story.gate("1", evaluation, gate.model_copy(update={"approval": "required"}))
    assert told(story, "1").story[1:] == ("A person decides: configs/gate.yaml asks for approval of every version.",)
    story.night(1).gate("1", story.evaluate("training-1"), held="the rollback of 2024-01-01 holds until 2024-01-15")
    assert told(story, "1").story[1:] == ("A person decides: the rollback of 2024-01-01 holds until 2024-01-15.",)
    assert [event.title for event in told(story, "1").before] == ["Version 1 awaits approval"]


def test_what_could_not_be_measured_could_have_been(story: Any, gate: GatePolicy) -> None:
    story.gate("1", story.evaluate("training-1"), gate.model_copy(update={"min_test_rows": 300}))
    found = told(story, "1")
    assert (found.decision, [rule.rule for rule in found.rules if not rule.holds]) == (
        "inconclusive",
        ["enough test rows"],
    )
    assert found.turns[0].sentence == "with min_test_rows at 240 instead of 300 it would have been promoted"


def test_what_became_of_a_version_is_told(harmed: Any) -> None:
    harmed.night(2).approve("2")
    harmed.night(3).crown("1", "rollback", "2 misroutes")
    assert [event.title for event in told(harmed, "2").afterwards] == [
        "Version 2 was approved by Ada",
        "Version 2 became champion by approval",
    ]


def test_a_verdict_without_rules_has_its_reasons(story: Any) -> None:
    story.judge("1", "reject", reasons=("accuracy is no better",))
    found = told(story, "1")
    assert (found.rules, found.turns, found.reasons) == ((), (), ("accuracy is no better",))
    assert "older than the rules in the ledger" in found.story[0]
    assert lines(found)[-1] == "  accuracy is no better"
    assert why(story.home, History.of(story.home), "7") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "no longer in the lake"),
        (lambda path: path.write_text(path.read_text().replace('"ece": 0.05', '"ece": 0.04')), "not the one"),
    ],
)
def test_what_would_have_turned_it_is_not_guessed_from_another_evaluation(
    harmed: Any, change: Callable[[Path], object], words: str
) -> None:
    change(harmed.home.lake.current("evaluation/2024-01-02") / "evaluation.json")
    found = told(harmed, "2")
    assert words in found.story[-1]
    assert (len(found.rules) > 5, [rule.changes for rule in found.rules if rule.changes], found.turns) == (True, [], ())


def test_a_gate_that_judges_differently_today_does_not_guess(harmed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.evaluation.rules.GOLDEN_TOLERANCE", 1.0)
    found = told(harmed, "2")
    assert "today's gate judges this evaluation differently" in found.story[-1]
    assert not found.turns


def test_an_altered_ledger_is_said_first(harmed: Any) -> None:
    history = History(History.of(harmed.home).entries, "entry 3 was removed")
    found = why(harmed.home, history, "2")
    assert found is not None
    assert found.story[0] == "The ledger is not as it was written: entry 3 was removed."


def test_the_page_tells_the_story(harmed: Any, read: Any) -> None:
    page = read(why_page(DOMAIN, LINKS, told(harmed, "2")))
    assert "Version 2 awaits approval As of 2024-01-02 , against the champion, version 1 ." in page.text
    assert "Harms no part does not hold" in page.text
    assert {"/why/1", "/nights?as_of=2024-01-02", "/rows?version=2"} <= set(page.links)
    opened = [given for tag, given in page.tags if tag == "details" and "open" in given]
    assert len(opened) == 1


def test_names_in_a_story_are_text(harmed: Any, read: Any, hostile: str) -> None:
    story = told(harmed, "2")
    bad = replace(
        story.rules[0], rule=hostile, sentence=hostile, numbers=(replace(story.rules[0].numbers[0], what=hostile),)
    )
    page = read(why_page(DOMAIN, LINKS, replace(story, rules=(bad,), story=(hostile,), title=hostile, version=hostile)))
    assert page.text.count("<script>alert(1)</script> $x$ {{ 7 * 7 }}") > 4
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert "SECRET" not in page.text


def test_the_command_tells_it_too(harmed: Any) -> None:
    text = CliRunner().invoke(app, ["why", "2"]).stdout
    assert "FAILS  harms no part" in text
    assert "The nearest change: with" in text
    found = json.loads(CliRunner().invoke(app, ["why", "2", "--json"]).stdout)
    assert found == json.loads(json.dumps(asdict(told(harmed, "2"))))
    assert CliRunner().invoke(app, ["why", "7"]).exit_code == 1
