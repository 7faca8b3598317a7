"""Is retraining worth it? A pure rule over what was measured, what was spent and a policy.

Something must call for a retraining: no champion, a gain that is worth more than it costs, drift, or age. Then
something may stand against it: a retraining lately, or one that failed and waits to be tried again, an empty budget,
labels that have not arrived.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from assets.monitoring.probe import Probe
from assets.settings import Domain, RetrainingPolicy

__all__ = ["DecisionInputs", "RetrainingDecision", "decide"]

Decision = Literal["retrain", "retrain-when-labels-mature", "skip", "alert-a-human"]
Ground = Literal["no champion", "worth", "drift", "age"]

_ONE_SIDED_5_PERCENT = 1.645
"""Standard normal quantile: a loss within it of nothing may be chance."""


@dataclass(frozen=True)
class DecisionInputs:
    """Every number that the decision rests on; None is what could not be measured."""

    champion: str | None
    """The champion's training id."""
    age_days: int | None
    """Days from the champion's snapshot to as-of."""
    new_labels: int
    """Labels that training could use and that became known since the champion's snapshot."""
    drifted: tuple[bool | None, ...]
    """Whether there was drift from the champion's training in the last windows, the newest first."""
    mature_rows: int
    """Blind predictions of the champion whose label is now known."""
    accuracy: float | None
    """The share of them that was right."""
    evaluated_rows: int
    evaluated_accuracy: float | None
    """The champion's accuracy on the test rows of its own snapshot."""
    estimated_accuracy: float | None
    """The champion's accuracy in the newest window, estimated from its confidence."""
    answers_per_day: float | None
    """Records that the champion routes a day."""
    gain_per_day: float
    """Accuracy that a new champion typically gains for each day of the old one's age, by past evaluations."""
    training_cost: float
    """Of the device, for one training."""
    cost: float
    """Of a retraining that ends in a promotion: its training, its refit where one follows, review and roll-out."""
    spent: float
    """What the trainings decided on, the promotions and their refits have cost earlier in as-of's month."""
    days_since_retraining: int | None
    """Days since the last retraining that ended with a verdict was decided on; None for never."""
    failed: int
    """Attempts at a retraining since then: they have ended without a verdict, or are under way."""
    days_since_failed: int | None
    """Days since the last of them was decided on; None for none."""
    tried: int
    """Retrainings that have ended with a verdict since the drift of the newest window began, and left the champion."""
    probe: Probe | None = None
    """What twins say of a new champion; None where that is not asked or cannot be."""
    tried_labels: int = 0
    """New labels when the last of them was decided on."""

    @property
    def accuracy_loss(self) -> float | None:
        """Evaluated minus realised accuracy."""
        if self.accuracy is None or self.evaluated_accuracy is None:
            return None
        return self.evaluated_accuracy - self.accuracy

    @property
    def promotion_cost(self) -> float:
        """Of what a promotion alone calls for: the refit, review and roll-out."""
        return self.cost - self.training_cost

    @property
    def chance(self) -> float:
        """How much of the loss may be chance: 1.645 standard errors of a difference of two shares."""
        sides = [(self.accuracy, self.mature_rows), (self.evaluated_accuracy, self.evaluated_rows)]
        variance = sum(share * (1 - share) / rows for share, rows in sides if share is not None and rows)
        return _ONE_SIDED_5_PERCENT * math.sqrt(variance)


@dataclass(frozen=True)
class RetrainingDecision:
    """Whether to retrain, and why, in one sentence."""

    decision: Decision
    reason: str
    ground: Ground | None
    """What calls for it; None when nothing does."""
    inputs: DecisionInputs
    policy: RetrainingPolicy

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> "RetrainingDecision":
        """From what `body` gave."""
        names = {field.name for field in fields(DecisionInputs)}
        numbers = {name: value for name, value in body["numbers"].items() if name in names}
        probe = Probe(**numbers["probe"]) if numbers.get("probe") else None
        inputs = DecisionInputs(**numbers | {"drifted": tuple(numbers["drifted"]), "probe": probe})
        policy = RetrainingPolicy.model_validate(body["policy"])
        return cls(body["decision"], body["reason"], body["ground"], inputs, policy)

    def body(self) -> dict[str, Any]:
        """As JSON, with every number and every threshold."""
        derived = {"accuracy_loss": self.inputs.accuracy_loss, "drifted": list(self.inputs.drifted)}
        return {
            "decision": self.decision,
            "reason": self.reason,
            "ground": self.ground,
            "numbers": asdict(self.inputs) | derived,
            "policy": self.policy.model_dump(),
        }


@dataclass(frozen=True)
class _Call:
    """What calls for a retraining, and whether it rests on drift."""

    ground: Ground
    sentence: str
    by_drift: bool = False


@dataclass(frozen=True)
class _Gain:
    """Accuracy that a new champion is expected to gain, and why."""

    accuracy: float
    sentence: str
    by_drift: bool = False
    chance: float = 1.0
    """That there will be a new champion: a training is paid for anyway."""


def decide(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> RetrainingDecision:
    """The verdict: `retrain`; `retrain-when-labels-mature`; `skip`; `alert-a-human` for what retraining cannot mend.

    A drift or a performance that could not be measured is never taken for calm: the reason of a skip names it, and
    when that lasts, a person is asked. The domain gives the words of the reason.
    """
    calls = list(_calls(numbers, policy, domain))
    if not calls:
        decision, reason = _without_a_call(numbers, policy, domain)
        return RetrainingDecision(decision, reason, None, numbers, policy)
    # What stands against one call, as that its drift has had its retraining, need not stand against another.
    call = next((call for call in calls if not any(_against(call, numbers, policy, domain))), calls[0])
    decision, against = next(_against(call, numbers, policy, domain), ("retrain", None))
    reason = f"{call.sentence}, but {against}" if against else f"{call.sentence}{_again(numbers, policy)}"
    return RetrainingDecision(decision, reason, call.ground, numbers, policy)


def _calls(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> Iterator[_Call]:
    if numbers.champion is None:
        yield _Call("no champion", "there is no champion")
        return
    for gain in _gains(numbers, policy):
        worth = _worth(gain, numbers, policy)
        if worth is not None and gain.chance * (worth - numbers.promotion_cost) > numbers.training_cost:
            yield _Call("worth", f"{gain.sentence}: {_balance(worth, numbers, policy, domain)}", gain.by_drift)
    if policy.on_drift and _is_drifting(numbers, policy):
        yield _Call("drift", _drift(numbers, policy), by_drift=True)
    if policy.max_age_days is not None and (numbers.age_days or 0) >= policy.max_age_days:
        yield _Call("age", _age(numbers, policy))


def _against(
    call: _Call, numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain
) -> Iterator[tuple[Decision, str]]:
    if numbers.failed >= policy.attempts:
        yield "alert-a-human", f"{numbers.failed} attempts at it have ended without a verdict; the ledger says why"
    ago, wait = numbers.days_since_failed, 2 ** (numbers.failed - 1)
    if ago is not None and ago < wait:
        yield "skip", f"attempt {numbers.failed} has no verdict after {ago} days (the next comes {wait} days after it)"
    since = numbers.days_since_retraining
    if call.ground != "no champion" and since is not None and since < policy.cooldown_days:
        yield "skip", f"a retraining was decided on {since} days ago (cooldown {policy.cooldown_days} days)"
    if call.by_drift and (waits := _waits_for_labels(numbers, policy, domain)):
        yield "alert-a-human", f"retraining {numbers.tried} of this drift did not end it ({waits})"
    if call.ground != "no champion" and numbers.new_labels < policy.min_new_labels:
        yield "retrain-when-labels-mature", f"there are only {_labels(numbers, policy, domain)}"
    if numbers.spent + numbers.cost > policy.budget_per_month:
        left = f"{numbers.spent:.2f} of the month's {policy.budget_per_month:.2f} are spent"
        yield "alert-a-human", f"{left} and another costs {numbers.cost:.2f}"


def _waits_for_labels(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> str | None:
    """What the next retraining of a drift waits for, after those that the gate has refused; None when it may come.

    Twice as many labels each time: a challenger with nothing new to learn from is refused again.
    """
    if not numbers.tried:
        return None
    fresh, enough = numbers.new_labels - numbers.tried_labels, policy.min_new_labels * 2 ** (numbers.tried - 1)
    if fresh >= enough:
        return None
    known = f"{enough} more {domain.record.many} with a known {domain.label.one}"
    return f"the next waits for {known}, and {fresh} have come"


def _again(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    return f" (attempt {numbers.failed + 1} of {policy.attempts})" if numbers.failed else ""


def _without_a_call(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> tuple[Decision, str]:
    findings = [_drift(numbers, policy), _performance(numbers, policy), _labels(numbers, policy, domain)]
    if policy.probe and numbers.probe is None:
        findings.insert(0, "twins had no rows to answer that are blind for both")
    gain = max(_gains(numbers, policy), key=lambda gain: gain.accuracy, default=None)
    worth = _worth(gain, numbers, policy) if gain else None
    if gain and worth is not None:
        findings.insert(0, f"{gain.sentence}: {_balance(worth, numbers, policy, domain)}")
    blind = numbers.mature_rows < policy.min_mature_rows and len(numbers.drifted) == policy.windows
    if blind and all(found is None for found in numbers.drifted):
        return "alert-a-human", f"nothing could be measured in {policy.windows} windows: {'; '.join(findings[-3:])}"
    return "skip", "; ".join(findings)


def _gains(numbers: DecisionInputs, policy: RetrainingPolicy) -> Iterator[_Gain]:
    """What twins, or matured labels, age and, under drift, the champion's own confidence say that a new one would gain.

    Age can have cost no more than the matured labels leave possible. What rests on drift comes last: it counts once.
    """
    if policy.probe:
        yield from [_probed(numbers.probe)] if numbers.probe else []
        return
    age, loss = numbers.age_days or 0, _measured_loss(numbers, policy)
    by_age = age * numbers.gain_per_day
    if loss is not None:
        proven, by_age = loss - numbers.chance, min(by_age, max(loss + numbers.chance, 0.0))
        yield _Gain(proven, f"{100 * proven:.1f} points proven on {numbers.mature_rows} matured rows")
    yield _Gain(by_age, f"{100 * by_age:.1f} points by age ({100 * numbers.gain_per_day:.3f} a day for {age} days)")
    if numbers.estimated_accuracy is not None and numbers.evaluated_accuracy is not None:
        lost = numbers.evaluated_accuracy - numbers.estimated_accuracy
        if _is_drifting(numbers, policy):
            yield _Gain(lost, f"{100 * lost:.1f} points by the champion's confidence under drift", True)


def _probed(probe: Probe) -> _Gain:
    measured = f"{100 * probe.difference:+.1f} points (error {100 * probe.error:.1f})"
    seen = f"twins differ by {measured} on {probe.rows} blind rows, with age {100 * probe.gain:+.1f} are expected"
    promoted = f"{100 * probe.promoted_gain:.1f} if the gate promotes (chance {probe.chance:.2f})"
    return _Gain(probe.promoted_gain, f"{seen}, {promoted}", chance=probe.chance)


def _measured_loss(numbers: DecisionInputs, policy: RetrainingPolicy) -> float | None:
    """Accuracy lost since the evaluation, where enough labels have matured to say so."""
    return numbers.accuracy_loss if numbers.mature_rows >= policy.min_mature_rows else None


def _worth(gain: _Gain, numbers: DecisionInputs, policy: RetrainingPolicy) -> float | None:
    """What a gain is worth over the policy's horizon; None when that is not weighed or nothing is routed."""
    if policy.value_per_answer is None or numbers.answers_per_day is None:
        return None
    return gain.accuracy * numbers.answers_per_day * policy.horizon_days * policy.value_per_answer


def _balance(worth: float, numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> str:
    assert numbers.answers_per_day is not None
    volume = f"{numbers.answers_per_day:.0f} {domain.record.many} a day over {policy.horizon_days} days"
    return f"worth {worth:.2f} on {volume}, and a retraining costs {numbers.cost:.2f}"


def _is_drifting(numbers: DecisionInputs, policy: RetrainingPolicy) -> bool:
    return sum(found is True for found in numbers.drifted[: policy.windows]) >= policy.drifted_windows


def _drift(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    if not numbers.drifted or numbers.drifted[0] is None:
        return "drift could not be measured, which is no sign of calm"
    last = numbers.drifted[: policy.windows]
    seen = f"drift in {sum(found is True for found in last)} of the last {len(last)} windows"
    return f"{seen} (it counts from {policy.drifted_windows})"


def _performance(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    if numbers.mature_rows < policy.min_mature_rows:
        rows = f"{numbers.mature_rows} matured rows, {policy.min_mature_rows} are needed"
        return f"performance could not be measured ({rows}), which is no sign of health"
    loss = numbers.accuracy_loss
    if loss is None:
        return "performance has nothing to be compared with: the champion's evaluation is not there"
    below = f"{abs(loss):.3f} {'below' if loss > 0 else 'above'} the evaluated"
    chance = f"{numbers.chance:.3f} may be chance"
    return f"accuracy {numbers.accuracy:.3f} on {numbers.mature_rows} matured rows, {below} ({chance})"


def _age(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    return f"the champion's snapshot is {numbers.age_days} days old (at most {policy.max_age_days})"


def _labels(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> str:
    known = f"{numbers.new_labels} {domain.record.many} with a newly known {domain.label.one}"
    return f"{known} (at least {policy.min_new_labels})"
