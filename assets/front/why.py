"""Why a version became champion or not: its verdict, rule by rule, and the nearest change that would have turned it.

The findings of the rules are in the ledger. What another threshold would have changed comes from the same rules, run
again on the same evaluation with this one threshold changed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from assets.evaluation.gate import conclude
from assets.evaluation.report import evaluation_hash, read_evaluation, table
from assets.evaluation.rules import Context, Finding, Measured, find
from assets.front.history import Event, History
from assets.front.thresholds import nearest
from assets.home import Home
from assets.registry.ledger import Entry
from assets.settings import GatePolicy

__all__ = ["Change", "Number", "Rule", "Why", "lines", "why"]

_NO_RULES = "It is older than the rules in the ledger: its reasons are all that is known."
_GONE = "What would have turned it is unknown: its evaluation is no longer in the lake."
_ALTERED = "What would have turned it is unknown: its evaluation is not the one that was judged."
_CHANGED = "What would have turned it is unknown: today's gate judges this evaluation differently."
_TURNED = {
    "promote": ("awaiting-approval", "reject", "inconclusive"),
    "awaiting-approval": ("promote",),
    "reject": ("promote", "awaiting-approval"),
    "inconclusive": ("promote", "awaiting-approval", "reject"),
}
"""The decisions that a decision can turn into: one against a version only into a better one."""
_WOULD = {
    "promote": "it would have been promoted",
    "awaiting-approval": "it would have awaited approval",
    "reject": "it would have been rejected",
    "inconclusive": "it could not have been judged",
}


@dataclass(frozen=True)
class Number:
    """A number and the threshold that a rule compares it with, in the unit of configs/gate.yaml."""

    what: str
    value: float
    must_be: str
    """`at least`, `at most`, `more than` or `less than` the bound."""
    bound: float
    settings: tuple[str, ...]
    """The fields of configs/gate.yaml that it depends on; none if the threshold is fixed."""
    margin: float
    """The distance from the threshold; negative on the wrong side."""

    @property
    def holds(self) -> bool:
        return self.margin > 0 if self.must_be.endswith("than") else self.margin >= 0


@dataclass(frozen=True)
class Change:
    """Another value of one threshold, and the decision it would have led to."""

    setting: str
    was: float
    to: float
    decision: str

    @property
    def distance(self) -> float:
        """The size of the change in any unit, from 0; 1 for a change to or from 0."""
        return abs(self.to - self.was) / max(abs(self.to), abs(self.was))

    @property
    def sentence(self) -> str:
        """A clause for people."""
        return f"with {self.setting} at {self.to:g} instead of {self.was:g} {_WOULD[self.decision]}"


@dataclass(frozen=True)
class Rule:
    """The finding of a rule."""

    rule: str
    holds: bool
    sentence: str
    numbers: tuple[Number, ...]
    changes: tuple[Change, ...] = ()
    """For each of its thresholds, the nearest value that would have turned the finding; the nearest first."""


@dataclass(frozen=True)
class Why:
    """The last verdict on a version as a story."""

    version: str
    training_id: str
    as_of: str
    decision: str
    title: str
    champion: str | None
    """The version that was champion then."""
    story: tuple[str, ...]
    reasons: tuple[str, ...]
    """The reasons in the verdict."""
    rules: tuple[Rule, ...]
    """In the gate's order; empty for a verdict that is older than the rules in the ledger."""
    turns: tuple[Change, ...]
    """For each threshold, the nearest value that alone would have turned the verdict; the nearest first."""
    before: tuple[Event, ...]
    """Earlier verdicts on the version."""
    afterwards: tuple[Event, ...]
    """What happened to the version since."""


def why(home: Home, history: History, version: str) -> Why | None:
    """The story of a version, by its number; None if no such version was judged."""
    verdicts = [entry for entry in history.entries if entry.kind == "verdict" and str(entry.body["version"]) == version]
    if not verdicts:
        return None
    verdict = verdicts[-1]
    events = [event for day in history.timeline.days for event in day.events if event.version == version]
    gate = _gate_of(home, verdict)
    rules = tuple(_rules(verdict.body.get("rules", ()), gate))
    turns = tuple(_turns(rules, verdict.body["decision"]))
    return Why(
        version=version,
        training_id=verdict.body["training_id"],
        as_of=verdict.as_of,
        decision=verdict.body["decision"],
        title=next(event.title for event in events if event.seq == verdict.seq),
        champion=_version_of(verdict.body["champion"], history.entries),
        story=tuple(_story(history, verdict.body["decision"], rules, turns, gate)),
        reasons=tuple(verdict.body["reasons"]),
        rules=rules,
        turns=turns,
        before=tuple(event for event in events if event.kind == "verdict" and event.seq < verdict.seq),
        afterwards=tuple(event for event in events if event.seq > verdict.seq),
    )


def lines(story: Why) -> list[str]:
    """The story as lines of text."""
    against = f", against version {story.champion}" if story.champion else ""
    text = [f"{story.title}, as of {story.as_of}{against}", *story.story]
    for rule in story.rules:
        text.append(f"  {'holds' if rule.holds else 'FAILS'}  {rule.rule}: {rule.sentence}")
        text += [f"         {_alternative(rule, change)}" for change in rule.changes]
    text += [f"  {reason}" for reason in story.reasons if not story.rules]
    return [*text, *(f"{event.as_of}: {event.title}" for event in story.afterwards)]


def _alternative(rule: Rule, change: Change) -> str:
    opposite = "not hold" if rule.holds else "hold"
    return f"would {opposite} with {change.setting} at {change.to:g} instead of {change.was:g}"


@dataclass(frozen=True)
class _Gate:
    """The gate's rules on one evaluation, with the thresholds of its verdict or with others."""

    measured: Measured
    policy: GatePolicy
    context: Context

    def find(self, **changed: float) -> tuple[Finding, ...]:
        return find(self.measured, self.policy.model_copy(update=changed), self.context)

    def decision(self, **changed: float) -> str:
        policy = self.policy.model_copy(update=changed)
        return conclude(find(self.measured, policy, self.context), policy, self.context)[0]


def _gate_of(home: Home, verdict: Entry) -> _Gate | str:
    """The gate of a verdict, or why it cannot be run again."""
    body = verdict.body
    if not body.get("rules"):
        return _NO_RULES
    digest = evaluation_hash(home.lake, verdict.as_of, body["evaluation"])
    if digest is None or digest != body.get("evaluation_sha256", digest):
        return _GONE if digest is None else _ALTERED
    evaluation = read_evaluation(home.lake.path(table(verdict.as_of), body["evaluation"]))
    try:
        policy, context = GatePolicy.model_validate(body["policy"]), Context(**body["context"])
    except (ValidationError, TypeError):
        return _CHANGED
    gate = _Gate(Measured.of(evaluation, home.domain, policy), policy, context)
    return gate if _agree(gate.find(), body["rules"]) and gate.decision() == body["decision"] else _CHANGED


def _agree(findings: Sequence[Finding], written: Sequence[Mapping[str, Any]]) -> bool:
    """Whether findings are those in the ledger, whatever their words."""
    again = json.loads(json.dumps([finding.body() for finding in findings]))
    results = [[(rule["holds"], len(rule["terms"])) for rule in rules] for rules in (again, written)]
    margins = [[term["margin"] for rule in rules for term in rule["terms"]] for rules in (again, written)]
    return results[0] == results[1] and bool(np.allclose(margins[0], margins[1], rtol=1e-6, atol=1e-9))


def _rules(written: Sequence[Mapping[str, Any]], gate: _Gate | str) -> Iterator[Rule]:
    for place, rule in enumerate(written):
        numbers = tuple(Number(**term | {"settings": tuple(term["settings"])}) for term in rule["terms"])
        settings = dict.fromkeys(name for number in numbers for name in number.settings)
        changes = [_change(gate, place, name) for name in settings] if isinstance(gate, _Gate) else []
        sorted_ = sorted((change for change in changes if change), key=lambda change: change.distance)
        yield Rule(rule["rule"], rule["holds"], rule["sentence"], numbers, tuple(sorted_))


def _change(gate: _Gate, place: int, setting: str) -> Change | None:
    """The nearest value of a threshold that turns the finding at a place."""
    holds = gate.find()[place].holds
    to = nearest(gate.policy, setting, lambda value: gate.find(**{setting: value})[place].holds != holds)
    return None if to is None else Change(setting, getattr(gate.policy, setting), to, gate.decision(**{setting: to}))


def _turns(rules: Sequence[Rule], decision: str) -> list[Change]:
    """A verdict turns only where one of its rules does."""
    changes = [change for rule in rules for change in rule.changes if change.decision in _TURNED[decision]]
    farthest_first = sorted(changes, key=lambda change: -change.distance)
    return sorted({change.setting: change for change in farthest_first}.values(), key=lambda change: change.distance)


def _story(
    history: History, decision: str, rules: Sequence[Rule], turns: Sequence[Change], gate: _Gate | str
) -> Iterator[str]:
    if history.problem:
        yield f"The ledger is not as it was written: {history.problem}."
    failed = dict.fromkeys(rule.rule for rule in rules if not rule.holds)
    if rules:
        names = f"; these do not: {', '.join(failed)}" if failed else ""
        yield f"{sum(rule.holds for rule in rules)} of {len(rules)} rules hold{names}."
    if isinstance(gate, str):
        yield gate
    elif decision == "awaiting-approval" and not failed:
        yield f"A person decides: {gate.context.held or 'configs/gate.yaml asks for approval of every version'}."
    else:
        yield f"The nearest change: {turns[0].sentence}." if turns else "No single threshold would have turned it."


def _version_of(training: str | None, entries: Sequence[Entry]) -> str | None:
    versions = (str(entry.body["version"]) for entry in entries if entry.body.get("training_id") == training)
    return next(versions, None) if training else None
