"""Is retraining worth it? A pure rule over measurements, spending and a policy.

Something must call for a retraining: no champion, a gain worth more than it costs, drift, or age. Then something may
prevent it: a recent retraining, a failed one that waits to be retried, an exhausted budget, labels that have not
arrived.
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
"""Standard normal quantile: a loss within this many standard errors may be chance."""


@dataclass(frozen=True)
class DecisionInputs:
    """Every number the decision is based on; None if it could not be measured."""

    champion: str | None
    """The champion's training id."""
    age_days: int | None
    """Days from the champion's snapshot to as-of."""
    new_labels: int
    """Usable labels that became known since the champion's snapshot."""
    drifted: tuple[bool | None, ...]
    """Whether there was drift from the champion's training in the last windows, newest first."""
    mature_rows: int
    """Blind predictions of the champion whose label is now known."""
    accuracy: float | None
    """The share of them that were right."""
    evaluated_rows: int
    evaluated_accuracy: float | None
    """The champion's accuracy on the test rows of its own snapshot."""
    estimated_accuracy: float | None
    """The champion's accuracy in the newest window, estimated from its confidence."""
    answers_per_day: float | None
    """Records that the champion scores per day."""
    gain_per_day: float
    """The accuracy that a new champion typically gains per day of the old one's age, by past evaluations."""
    training_cost: float
    """The cost of the device for one training."""
    cost: float
    """The cost of a retraining that ends in a promotion: training, refit if any, review and roll-out."""
    spent: float
    """The cost of earlier trainings, promotions and refits in as-of's month."""
    days_since_retraining: int | None
    """Days since the decision on the last retraining that ended with a verdict; None for never."""
    failed: int
    """Attempts at a retraining since then that ended without a verdict, or are running."""
    days_since_failed: int | None
    """Days since the decision on the last of them; None for none."""
    tried: int
    """Retrainings since the start of the current drift whose verdict kept the champion."""
    probe: Probe | None = None
    """The twins' estimate for a new champion; None if it is not wanted or not possible."""
    tried_labels: int = 0
    """New labels at the decision on the last of them."""

    @property
    def accuracy_loss(self) -> float | None:
        """Evaluated minus realised accuracy."""
        if self.accuracy is None or self.evaluated_accuracy is None:
            return None
        return self.evaluated_accuracy - self.accuracy

    @property
    def promotion_cost(self) -> float:
        """The cost only a promotion adds: the refit, review and roll-out."""
        return self.cost - self.training_cost

    @property
    def chance(self) -> float:
        """The part of the loss that may be chance: 1.645 standard errors of a difference of two shares."""
        sides = [(self.accuracy, self.mature_rows), (self.evaluated_accuracy, self.evaluated_rows)]
        variance = sum(share * (1 - share) / rows for share, rows in sides if share is not None and rows)
        return _ONE_SIDED_5_PERCENT * math.sqrt(variance)


@dataclass(frozen=True)
class RetrainingDecision:
    """Whether to retrain, and why in one sentence."""

    decision: Decision
    reason: str
    ground: Ground | None
    """What calls for it; None when nothing does."""
    inputs: DecisionInputs
    policy: RetrainingPolicy

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> "RetrainingDecision":
        """The decision from its `body`."""
        names = {field.name for field in fields(DecisionInputs)}
        numbers = {name: value for name, value in body["numbers"].items() if name in names}
        probe = Probe(**numbers["probe"]) if numbers.get("probe") else None
        inputs = DecisionInputs(**numbers | {"drifted": tuple(numbers["drifted"]), "probe": probe})
        policy = RetrainingPolicy.model_validate(body["policy"])
        return cls(body["decision"], body["reason"], body["ground"], inputs, policy)

    def body(self) -> dict[str, Any]:
        """The decision as JSON, with every number and every threshold."""
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
    """A reason for a retraining, and whether it is based on drift."""

    ground: Ground
    sentence: str
    by_drift: bool = False


@dataclass(frozen=True)
class _Gain:
    """The accuracy that a new champion is expected to gain, and why."""

    accuracy: float
    sentence: str
    by_drift: bool = False
    chance: float = 1.0
    """The chance of a new champion; the training is paid for either way."""


def decide(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> RetrainingDecision:
    """The verdict: `retrain`; `retrain-when-labels-mature`; `skip`; `alert-a-human` for what retraining cannot fix.

    Drift or performance that could not be measured never counts as calm: the reason for a skip names it, and if it
    persists, a person is alerted. The domain gives the words for the reason.
    """
    calls = list(_calls(numbers, policy, domain))
    if not calls:
        decision, reason = _without_a_call(numbers, policy, domain)
        return RetrainingDecision(decision, reason, None, numbers, policy)
    # What prevents one call, such as a drift that has had its retraining, need not prevent another.
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
        yield "skip", f"attempt {numbers.failed} has no verdict after {ago} days (the next starts {wait} days after it)"
    since = numbers.days_since_retraining
    if call.ground != "no champion" and since is not None and since < policy.cooldown_days:
        yield "skip", f"a retraining was decided on {since} days ago (cooldown {policy.cooldown_days} days)"
    if call.by_drift and (waits := _waits_for_labels(numbers, policy, domain)):
        yield "alert-a-human", f"retraining {numbers.tried} of this drift did not end it ({waits})"
    if call.ground != "no champion" and numbers.new_labels < policy.min_new_labels:
        yield "retrain-when-labels-mature", f"there are only {_labels(numbers, policy, domain)}"
    if numbers.spent + numbers.cost > policy.budget_per_month:
        budget = f"{numbers.spent:.2f} of the month's {policy.budget_per_month:.2f} are spent"
        yield "alert-a-human", f"{budget} and another costs {numbers.cost:.2f}"


def _waits_for_labels(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> str | None:
    """What the next retraining for a drift waits for, after those that the gate refused; None if it may start.

    Twice as many labels each time: a challenger with nothing new to learn from would be refused again.
    """
    if not numbers.tried:
        return None
    fresh, enough = numbers.new_labels - numbers.tried_labels, policy.min_new_labels * 2 ** (numbers.tried - 1)
    if fresh >= enough:
        return None
    known = f"{enough} more {domain.record.many} with a known {domain.label.one}"
    return f"the next waits for {known}, of which {fresh} have arrived"


def _again(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    return f" (attempt {numbers.failed + 1} of {policy.attempts})" if numbers.failed else ""


def _without_a_call(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> tuple[Decision, str]:
    findings = [_drift(numbers, policy), _performance(numbers, policy), _labels(numbers, policy, domain)]
    if policy.probe and numbers.probe is None:
        findings.insert(0, "there are no rows that are blind for both twins")
    gain = max(_gains(numbers, policy), key=lambda gain: gain.accuracy, default=None)
    worth = _worth(gain, numbers, policy) if gain else None
    if gain and worth is not None:
        findings.insert(0, f"{gain.sentence}: {_balance(worth, numbers, policy, domain)}")
    blind = numbers.mature_rows < policy.min_mature_rows and len(numbers.drifted) == policy.windows
    if blind and all(drifted is None for drifted in numbers.drifted):
        return "alert-a-human", f"nothing could be measured in {policy.windows} windows: {'; '.join(findings[-3:])}"
    return "skip", "; ".join(findings)


def _gains(numbers: DecisionInputs, policy: RetrainingPolicy) -> Iterator[_Gain]:
    """The gains of a new champion estimated by twins, or else by matured labels, age and, under drift, confidence.

    Age cannot have cost more than the matured labels allow. The gain based on drift comes last: it counts once.
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
    expected = f"twins differ by {measured} on {probe.rows} blind rows, with age {100 * probe.gain:+.1f} are expected"
    promoted = f"{100 * probe.promoted_gain:.1f} if the gate promotes (chance {probe.chance:.2f})"
    return _Gain(probe.promoted_gain, f"{expected}, {promoted}", chance=probe.chance)


def _measured_loss(numbers: DecisionInputs, policy: RetrainingPolicy) -> float | None:
    """The accuracy lost since the evaluation, if enough labels have matured to say so."""
    return numbers.accuracy_loss if numbers.mature_rows >= policy.min_mature_rows else None


def _worth(gain: _Gain, numbers: DecisionInputs, policy: RetrainingPolicy) -> float | None:
    """The value of a gain over the policy's horizon; None when it is not weighed or nothing is scored."""
    if policy.value_per_answer is None or numbers.answers_per_day is None:
        return None
    return gain.accuracy * numbers.answers_per_day * policy.horizon_days * policy.value_per_answer


def _balance(worth: float, numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> str:
    assert numbers.answers_per_day is not None
    volume = f"{numbers.answers_per_day:.0f} {domain.record.many} a day over {policy.horizon_days} days"
    return f"worth {worth:.2f} on {volume}, and a retraining costs {numbers.cost:.2f}"


def _is_drifting(numbers: DecisionInputs, policy: RetrainingPolicy) -> bool:
    return sum(drifted is True for drifted in numbers.drifted[: policy.windows]) >= policy.drifted_windows


def _drift(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    if not numbers.drifted or numbers.drifted[0] is None:
        return "drift could not be measured, which is no sign of calm"
    last = numbers.drifted[: policy.windows]
    windows = f"drift in {sum(drifted is True for drifted in last)} of the last {len(last)} windows"
    return f"{windows} (it counts from {policy.drifted_windows})"


def _performance(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    if numbers.mature_rows < policy.min_mature_rows:
        rows = f"{numbers.mature_rows} matured rows, {policy.min_mature_rows} are needed"
        return f"performance could not be measured ({rows}), which is no sign of health"
    loss = numbers.accuracy_loss
    if loss is None:
        return "performance cannot be compared: the champion's evaluation is missing"
    below = f"{abs(loss):.3f} {'below' if loss > 0 else 'above'} the evaluated"
    chance = f"{numbers.chance:.3f} may be chance"
    return f"accuracy {numbers.accuracy:.3f} on {numbers.mature_rows} matured rows, {below} ({chance})"


def _age(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    return f"the champion's snapshot is {numbers.age_days} days old (at most {policy.max_age_days})"


def _labels(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> str:
    known = f"{numbers.new_labels} {domain.record.many} with a newly known {domain.label.one}"
    return f"{known} (at least {policy.min_new_labels})"
