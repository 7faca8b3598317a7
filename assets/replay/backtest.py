"""Tests one retraining policy on history: every step decides by what was known then, and keeps its champion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from assets.as_of import days_between, instant
from assets.evaluation.criteria import criteria
from assets.evaluation.gate import Verdict, count_reign, decide_refit
from assets.evaluation.gate import decide as judge
from assets.monitoring.decision import DecisionInputs, RetrainingDecision, decide
from assets.monitoring.performance import recent
from assets.monitoring.retraining import drifting_since, expected_cost, probe, recall, retraining_cost
from assets.registry.ledger import Entry
from assets.replay.workshop import Trained, Workshop
from assets.settings import GatePolicy, RetrainingPolicy, Settings, load_domain
from assets.training.program.usage import cost
from assets.training.tasks.classification.labels import places

__all__ = ["Backtest", "Step", "backtest"]

_BEGINNING = "1970-01-01"
_ANSWER = ["label", "predicted", "probabilities"]


@dataclass(frozen=True)
class Step:
    """The decision of a day, and the results on the records that arrived until the next."""

    as_of: str
    decision: str
    reason: str
    drift: bool | None
    verdict: str | None
    """The gate's verdict, if there was a retraining."""
    champion: str | None
    """The as-of day of the champion's snapshot, after the verdict."""
    cost: float
    rows: int
    """Records that arrived until the next step and whose label is known by now."""
    right: int


@dataclass(frozen=True)
class Backtest:
    """A policy's steps, and their summary."""

    policy: str
    steps: tuple[Step, ...]
    accuracy: float | None
    """Over all records that arrived after the first champion and whose label is known by now; None without any."""
    metrics: dict[str, float | None]
    """Of the same records, those that decide, by their names in `GatePolicy.decided_by`; None where that is unknown."""
    trainings: int
    promotions: int
    cost: float
    worth: float | None
    """The value of the right answers at configs/retraining.yaml's `value_per_answer`, less the cost, if it is set."""
    false_alarms: int
    """Retrainings after the first whose challenger the gate did not promote."""
    days_to_champion: float | None
    """Mean days from the first window of a drift to the next promotion; None when there was none."""


@dataclass
class _World:
    """The state of a policy on its way through history."""

    workshop: Workshop
    policy: RetrainingPolicy
    entries: list[Entry] = field(default_factory=list)
    champion: Trained | None = None
    reigned: int = 0
    """The step at which the champion was promoted."""
    windows: list[tuple[str, bool | None]] = field(default_factory=list)
    """The champion's windows, newest first: as-of day and whether it drifted."""
    former: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)


def backtest(name: str, policy: RetrainingPolicy, workshop: Workshop) -> Backtest:
    """Take a policy through all steps except the last day, which only ends the last step's records."""
    world, steps, answered = _World(workshop, policy), [], []
    for step, as_of in enumerate(workshop.history.days[:-1]):
        numbers = _measure(world, step, as_of)
        decision = decide(numbers, policy, load_domain())
        _note(world, "retraining", as_of, decision.body())
        verdict, cost = _retrain(world, step, as_of) if decision.decision == "retrain" else (None, 0.0)
        rows = _labelled(world, step + 1)
        answered.append(rows)
        steps.append(_step(world, as_of, decision, verdict, cost, rows))
    return _summary(name, steps, pd.concat(answered), workshop.history.settings)


def _measure(world: _World, step: int, as_of: str) -> DecisionInputs:
    """What the graph's monitoring would have reported on that day."""
    workshop, champion, policy = world.workshop, world.champion, world.policy
    window, matured, tested = pd.DataFrame(), pd.DataFrame(), None
    if champion:
        window = _window(world, champion, step)
        matured = _matured(world, champion, step, as_of)
        tested = workshop.tested(champion)
        looks = policy.on_drift or policy.value_per_answer is not None
        world.windows.insert(0, (as_of, workshop.drift(champion, step, window, matured) if looks else None))
    training_cost = expected_cost(world.seconds, _price_per_hour(world))
    newest = recent(matured, as_of, policy) if champion else matured
    past = recall(world.entries, as_of, champion.id if champion else None, drifting_since(world.windows), policy)
    numbers = DecisionInputs(
        champion=champion.id if champion else None,
        age_days=days_between(champion.as_of, as_of) if champion else None,
        new_labels=workshop.history.new_labels(champion.as_of if champion else _BEGINNING, as_of),
        drifted=tuple(drifted for _, drifted in world.windows[: policy.windows]),
        mature_rows=len(newest),
        accuracy=_accuracy(newest),
        evaluated_rows=0 if tested is None else len(tested),
        evaluated_accuracy=None if tested is None else _accuracy(tested),
        estimated_accuracy=workshop.estimate(champion, window) if champion else None,
        answers_per_day=len(window) / workshop.history.settings.drift.window_days if len(window) else None,
        training_cost=training_cost,
        cost=retraining_cost(training_cost, workshop.history.settings.training.cost.refit, policy),
        gain_per_day=past.gain_per_day,
        spent=past.spent,
        days_since_retraining=past.days_since_retraining,
        failed=past.failed,
        days_since_failed=past.days_since_failed,
        tried=past.tried,
        tried_labels=past.tried_labels,
    )
    if champion is None or not policy.probe:
        return numbers
    twins = workshop.twins(champion, as_of, policy)
    return replace(numbers, probe=probe(twins, world.entries, champion.id, numbers, workshop.history.settings))


def _retrain(world: _World, step: int, as_of: str) -> tuple[Verdict, float]:
    """The verdict on a challenger as of a day, and its cost, including its refit's."""
    challenger = world.workshop.trained(as_of)
    world.seconds.append(challenger.seconds)
    verdict = _judge(world, challenger)
    _note(world, "verdict", as_of, verdict.body())
    if verdict.decision != "promote":
        return verdict, _price(world, challenger.seconds)
    world.reigned, world.windows = step, []
    _crown(world, as_of, challenger, "promote")
    refit = _refit(world, as_of, challenger) if world.workshop.history.settings.training.cost.refit else 0.0
    return verdict, _price(world, challenger.seconds + refit) + world.policy.price_per_retraining


def _judge(world: _World, challenger: Trained) -> Verdict:
    champion = world.champion
    known, now = (champion.judged, champion.id) if champion else (None, None)
    evaluation = world.workshop.evaluation(challenger, known)
    nth = count_reign((entry.body for entry in world.entries if entry.kind == "verdict"), evaluation, now)
    refit_of = known.id if known else None
    return judge(evaluation, _gate(world), load_domain(), now, frozenset(world.former), nth=nth, refit_of=refit_of)


def _refit(world: _World, as_of: str, evaluated: Trained) -> float:
    """Let a new champion's refit serve in its place if it is no worse; returns its device seconds."""
    refit = world.workshop.refit(evaluated)
    if refit is None:
        return 0.0
    trained_to = evaluated.snapshot.manifest["period"]["train"][1]
    verdict = decide_refit(world.workshop.evaluation(refit, evaluated), _gate(world), load_domain(), trained_to)
    _note(world, "verdict", as_of, verdict.body())
    if verdict.decision == "promote":
        _crown(world, as_of, refit, "refit")
    return refit.seconds


def _crown(world: _World, as_of: str, champion: Trained, action: str) -> None:
    _note(world, "alias", as_of, {"action": action})
    world.champion = champion
    world.former.add(champion.id)


def _gate(world: _World) -> GatePolicy:
    """The settings', without a person to ask."""
    return world.workshop.history.settings.gate.model_copy(update={"approval": "automatic"})


def _price(world: _World, seconds: float) -> float:
    return cost(seconds, 1, _price_per_hour(world))


def _price_per_hour(world: _World) -> float:
    return world.workshop.history.settings.training.cost.price_per_hour


def _window(world: _World, champion: Trained, step: int) -> pd.DataFrame:
    """The records that arrived in the days of a window up to a step, with the champion's answers."""
    history = world.workshop.history
    start = instant(history.days[step]) - timedelta(days=history.settings.drift.window_days)
    first = next(place for place in range(step + 1) if instant(history.days[place]) > start)
    rows = pd.concat([world.workshop.answers(champion, place) for place in range(first, step + 1)])
    return rows[rows["known_at"] > start]


def _matured(world: _World, champion: Trained, step: int, as_of: str) -> pd.DataFrame:
    """The records that arrived since the champion's promotion and whose label was known on that day."""
    since = range(world.reigned + 1, step + 1)
    rows = pd.concat([world.workshop.answers(champion, place) for place in since])
    known = rows[rows["label"].notna() & (rows["label_known_at"] <= instant(as_of))]
    return known.assign(night=known["label_known_at"].dt.floor("D"), rows=1)


def _labelled(world: _World, step: int) -> pd.DataFrame:
    """The records that arrived until a step and whose label is known by now; none without a champion."""
    if world.champion is None:
        return pd.DataFrame(columns=_ANSWER)
    rows = world.workshop.answers(world.champion, step)
    return rows[rows["label"].notna()][_ANSWER]


def _note(world: _World, kind: str, as_of: str, body: dict[str, Any]) -> None:
    world.entries.append(Entry(len(world.entries) + 1, kind, as_of, as_of, body, hash=""))


def _decisive(rows: pd.DataFrame, gate: GatePolicy, labels: Sequence[str]) -> dict[str, float | None]:
    wanted = criteria(gate.decided_by, labels, gate.costs)
    if rows.empty:
        return dict.fromkeys(wanted)
    truth, probabilities = places(rows["label"], labels), np.stack(rows["probabilities"].tolist())
    values = {name: metric.value(truth, probabilities) for name, metric in wanted.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _accuracy(rows: pd.DataFrame) -> float | None:
    return float((rows["label"] == rows["predicted"]).mean()) if len(rows) else None


def _step(
    world: _World,
    as_of: str,
    decision: RetrainingDecision,
    verdict: Verdict | None,
    cost: float,
    rows: pd.DataFrame,
) -> Step:
    drifted = decision.inputs.drifted
    return Step(
        as_of=as_of,
        decision=decision.decision,
        reason=decision.reason,
        drift=drifted[0] if drifted else None,
        verdict=verdict.decision if verdict else None,
        champion=world.champion.as_of if world.champion else None,
        cost=cost,
        rows=len(rows),
        right=int((rows["label"] == rows["predicted"]).sum()),
    )


def _summary(name: str, steps: Sequence[Step], answered: pd.DataFrame, settings: Settings) -> Backtest:
    value = settings.retraining.value_per_answer
    retrained, cost = [step for step in steps if step.verdict], sum(step.cost for step in steps)
    return Backtest(
        policy=name,
        steps=tuple(steps),
        accuracy=_accuracy(answered),
        metrics=_decisive(answered, settings.gate, tuple(load_domain().labels)),
        trainings=len(retrained),
        promotions=sum(step.verdict == "promote" for step in retrained),
        cost=cost,
        worth=None if value is None else value * sum(step.right for step in steps) - cost,
        false_alarms=sum(step.verdict != "promote" for step in retrained[1:]),
        days_to_champion=_days_to_champion(steps),
    )


def _days_to_champion(steps: Sequence[Step]) -> float | None:
    delays, since = [], None
    for step in steps:
        if step.drift and since is None:
            since = step.as_of
        if step.verdict == "promote" and since is not None:
            delays.append(days_between(since, step.as_of))
            since = None
        elif step.drift is False:
            since = None
    return float(np.mean(delays)) if delays else None
