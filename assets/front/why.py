"""Why a version became champion or not: its verdict, rule by rule, and the nearest change that would have turned it.

What the rules found is in the ledger. What another threshold would have changed is asked of the same rules, about the
same evaluation, with one threshold set otherwise.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import ValidationError

from assets.evaluation.gate import conclude
from assets.evaluation.report import evaluation_hash, read_evaluation, table
from assets.evaluation.rules import Context, Finding, Measured, find
from assets.front.history import Event, History
from assets.lake import Home
from assets.registry.ledger import Entry
from assets.settings import GatePolicy

__all__ = ["Change", "Number", "Rule", "Why", "lines", "why"]

_STEPS = 22
_SHARPENINGS = 16
_OVERSHOT = 0.25
"""Of a change: so much further a rounder number may lie."""
_EDGE = 1e-9
"""How near a threshold comes to a bound that it must not reach."""
_UNRULED = "It was written before verdicts kept their rules: its reasons are all that is known of it."
_GONE = "What would have turned it cannot be said: its evaluation is no longer in the lake."
_ALTERED = "What would have turned it cannot be said: its evaluation is not the one that was judged."
_CHANGED = "What would have turned it cannot be said: today's rules find otherwise of it than the ledger says."
_TURNED = {
    "promote": ("awaiting-approval", "reject", "inconclusive"),
    "awaiting-approval": ("promote",),
    "reject": ("promote", "awaiting-approval"),
    "inconclusive": ("promote", "awaiting-approval", "reject"),
}
"""What a verdict turns into: of one that keeps a version from being champion, what is less against it."""
_WOULD = {
    "promote": "it would have been promoted",
    "awaiting-approval": "it would have awaited approval",
    "reject": "it would have been rejected",
    "inconclusive": "it could not have been judged",
}


@dataclass(frozen=True)
class Number:
    """What a rule compares with its threshold, in the unit of configs/gate.yaml."""

    what: str
    value: float
    must_be: str
    """`at least`, `at most`, `more than` or `less than` the bound."""
    bound: float
    settings: tuple[str, ...]
    """The fields of configs/gate.yaml that it depends on; none where the threshold is fixed."""
    margin: float
    """How far it is on the right side; negative on the wrong one."""

    @property
    def holds(self) -> bool:
        return self.margin > 0 if self.must_be.endswith("than") else self.margin >= 0


@dataclass(frozen=True)
class Change:
    """One threshold, set otherwise, and what would have been decided then."""

    setting: str
    was: float
    to: float
    decision: str

    @property
    def distance(self) -> float:
        """How far it is, whatever the unit: 0 for none, 1 from nothing or to nothing."""
        return abs(self.to - self.was) / max(abs(self.to), abs(self.was))

    @property
    def sentence(self) -> str:
        """For people."""
        return f"with {self.setting} at {self.to:g} in place of {self.was:g} {_WOULD[self.decision]}"


@dataclass(frozen=True)
class Rule:
    """What a rule of the gate found."""

    rule: str
    holds: bool
    sentence: str
    numbers: tuple[Number, ...]
    changes: tuple[Change, ...] = ()
    """Of each threshold of it, the nearest value with which it would have found the opposite; the nearest first."""


@dataclass(frozen=True)
class Why:
    """The last verdict on a version, as a story."""

    version: str
    training_id: str
    as_of: str
    decision: str
    title: str
    beside: str | None
    """The version that was champion then."""
    story: tuple[str, ...]
    reasons: tuple[str, ...]
    """As the verdict gives them."""
    rules: tuple[Rule, ...]
    """In the gate's order; empty for a verdict that was written before they were kept."""
    turns: tuple[Change, ...]
    """The nearest changes of one threshold that would have turned the verdict, the nearest first."""
    before: tuple[Event, ...]
    """Earlier verdicts on it."""
    afterwards: tuple[Event, ...]
    """What became of it."""


def why(home: Home, history: History, version: str) -> Why | None:
    """Of a version by its number; None when none of this number was judged."""
    verdicts = [entry for entry in history.entries if entry.kind == "verdict" and str(entry.body["version"]) == version]
    if not verdicts:
        return None
    verdict = verdicts[-1]
    told = [event for day in history.timeline.days for event in day.events if event.version == version]
    again = _replayed(home, verdict)
    rules = tuple(_rules(verdict.body.get("rules", ()), again))
    turns = tuple(_turns(rules, verdict.body["decision"]))
    return Why(
        version=version,
        training_id=verdict.body["training_id"],
        as_of=verdict.as_of,
        decision=verdict.body["decision"],
        title=next(event.title for event in told if event.seq == verdict.seq),
        beside=_version_of(verdict.body["champion"], history.entries),
        story=tuple(_story(verdict.body["decision"], rules, turns, again)),
        reasons=tuple(verdict.body["reasons"]),
        rules=rules,
        turns=turns,
        before=tuple(event for event in told if event.kind == "verdict" and event.seq < verdict.seq),
        afterwards=tuple(event for event in told if event.seq > verdict.seq),
    )


def lines(found: Why) -> list[str]:
    """The story as lines of text."""
    beside = f", beside version {found.beside}" if found.beside else ""
    told = [f"{found.title}, as of {found.as_of}{beside}", *found.story]
    for rule in found.rules:
        told.append(f"  {'holds' if rule.holds else 'FAILS'}  {rule.rule}: {rule.sentence}")
        told += [f"         {_or_else(rule, change)}" for change in rule.changes]
    told += [f"  {reason}" for reason in found.reasons if not found.rules]
    return [*told, *(f"{event.as_of}: {event.title}" for event in found.afterwards)]


def _or_else(rule: Rule, change: Change) -> str:
    opposite = "not hold" if rule.holds else "hold"
    return f"would {opposite} with {change.setting} at {change.to:g} in place of {change.was:g}"


@dataclass(frozen=True)
class _Replay:
    """The rules, to be asked again with other thresholds."""

    measured: Measured
    policy: GatePolicy
    context: Context

    def find(self, **changed: float) -> tuple[Finding, ...]:
        return find(self.measured, self.policy.model_copy(update=changed), self.context)

    def decision(self, **changed: float) -> str:
        policy = self.policy.model_copy(update=changed)
        return conclude(find(self.measured, policy, self.context), policy, self.context)[0]


def _replayed(home: Home, verdict: Entry) -> _Replay | str:
    """Or why the rules cannot be asked again."""
    body = verdict.body
    if not body.get("rules"):
        return _UNRULED
    found = evaluation_hash(home.lake, verdict.as_of, body["evaluation"])
    if found is None or found != body.get("evaluation_sha256", found):
        return _GONE if found is None else _ALTERED
    evaluation = read_evaluation(home.lake.path(table(verdict.as_of), body["evaluation"]))
    try:
        policy, context = GatePolicy.model_validate(body["policy"]), Context(**body["context"])
    except (ValidationError, TypeError):
        return _CHANGED
    again = _Replay(Measured.of(evaluation, home.domain, policy), policy, context)
    return again if _same(again.find(), body["rules"]) and again.decision() == body["decision"] else _CHANGED


def _same(found: Sequence[Finding], written: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rules find what they did; the words may be others."""
    again = json.loads(json.dumps([finding.body() for finding in found]))
    holding = [[(rule["holds"], len(rule["terms"])) for rule in rules] for rules in (again, written)]
    values = [[term["margin"] for rule in rules for term in rule["terms"]] for rules in (again, written)]
    return holding[0] == holding[1] and bool(np.allclose(values[0], values[1], rtol=1e-6, atol=1e-9))


def _rules(written: Sequence[Mapping[str, Any]], again: _Replay | str) -> Iterator[Rule]:
    for place, rule in enumerate(written):
        numbers = tuple(Number(**term | {"settings": tuple(term["settings"])}) for term in rule["terms"])
        settings = dict.fromkeys(name for number in numbers for name in number.settings)
        changes = [_change(again, place, name) for name in settings] if isinstance(again, _Replay) else []
        nearest = sorted((change for change in changes if change), key=lambda change: change.distance)
        yield Rule(rule["rule"], rule["holds"], rule["sentence"], numbers, tuple(nearest))


def _change(again: _Replay, place: int, setting: str) -> Change | None:
    """The nearest value of a threshold with which the rule at a place finds the opposite."""
    holds, was = again.find()[place].holds, getattr(again.policy, setting)

    def turned(value: float) -> bool:
        return again.find(**{setting: value})[place].holds != holds

    whole = GatePolicy.model_fields[setting].annotation is int
    ends = [_crossing(was, limit, whole, turned) for limit in _limits(setting)]
    to = min((end for end in ends if end is not None), key=lambda end: abs(end - was), default=None)
    return None if to is None else Change(setting, was, to, again.decision(**{setting: to}))


def _story(decision: str, rules: Sequence[Rule], turns: Sequence[Change], again: _Replay | str) -> Iterator[str]:
    failed = dict.fromkeys(rule.rule for rule in rules if not rule.holds)
    if rules:
        named = f"; these do not: {', '.join(failed)}" if failed else ""
        yield f"{sum(rule.holds for rule in rules)} of {len(rules)} rules hold{named}."
    if isinstance(again, str):
        yield again
        return
    if decision == "awaiting-approval" and not failed:
        yield f"A person decides: {again.context.held or 'configs/gate.yaml asks for approval of every version'}."
        return
    yield f"The nearest change: {turns[0].sentence}." if turns else "No single threshold would have turned it."


def _version_of(training: str | None, entries: Sequence[Entry]) -> str | None:
    found = (str(entry.body["version"]) for entry in entries if entry.body.get("training_id") == training)
    return next(found, None) if training else None


def _turns(rules: Sequence[Rule], decision: str) -> list[Change]:
    """Of each threshold the nearest; a verdict turns only where one of its rules does."""
    turning = [change for rule in rules for change in rule.changes if change.decision in _TURNED[decision]]
    nearest = sorted(turning, key=lambda change: change.distance)
    return list({change.setting: change for change in reversed(nearest)}.values())[::-1]


def _limits(setting: str) -> tuple[float, float]:
    """The least and the most that a threshold may be."""
    given = GatePolicy.model_fields[setting].metadata
    bounds = {name: getattr(one, name) for one in given for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    low = bounds.get("ge", bounds.get("gt", -math.inf) + _EDGE)
    return low, bounds.get("le", bounds.get("lt", math.inf) - _EDGE)


def _crossing(was: float, limit: float, whole: bool, turned: Callable[[float], bool]) -> float | None:
    """The first value on the way to a limit with which a rule turns, of few digits; None where none does.

    Each rule asks the less, or the more, the further a threshold lies: one that does not turn at the end never does.
    """
    steps = [was, *_steps(was, limit, whole)]
    if not turned(steps[-1]):
        return None
    near, far = next(pair for pair in pairwise(steps) if turned(pair[1]))
    found = _sharpened(near, far, whole, turned)
    return found if whole else _rounded(was, found, turned)


def _steps(was: float, limit: float, whole: bool) -> Iterator[float]:
    """From a thousandth away, each time twice as far."""
    scale, way = (abs(was) or 1.0) / 1000, 1 if limit > was else -1
    for step in range(_STEPS):
        away = scale * 2**step
        to = was + way * (math.ceil(away) if whole else away)
        if way * to >= way * limit:
            yield limit
            return
        yield to


def _sharpened(near: float, far: float, whole: bool, turned: Callable[[float], bool]) -> float:
    """The nearest value with which the rule turns as it does with the far one, to a small part of their distance."""
    for _ in range(_SHARPENINGS):
        middle = (near + far) // 2 if whole else (near + far) / 2
        near, far = (near, middle) if turned(middle) else (middle, far)
    return far


def _rounded(was: float, found: float, turned: Callable[[float], bool]) -> float:
    """A number of few digits that lies little further; the one found where there is none."""
    for digits in range(1, 8):
        unit = 10.0 ** (math.floor(math.log10(abs(found) or 1)) - digits + 1)
        to = round((math.ceil if found > was else math.floor)(found / unit) * unit, 12)
        if abs(to - found) <= _OVERSHOT * abs(found - was) and turned(to):
            return to
    return found
