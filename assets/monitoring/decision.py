"""Is retraining worth it? A pure rule over the numbers of the drift report and of the realised performance."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from assets.settings import RetrainingPolicy

__all__ = ["DecisionInputs", "RetrainingDecision", "decide"]

_ONE_SIDED_5_PERCENT = 1.645
"""Standard normal quantile: a loss within it of the bound may be chance."""


@dataclass(frozen=True)
class DecisionInputs:
    """Every number that the decision rests on; None is what could not be measured."""

    champion: str | None
    """The champion's version."""
    age_days: int | None
    """Days from the champion's snapshot to as-of."""
    new_labels: int
    """Labels that training could use and that became known since the champion's snapshot."""
    drift_detected: bool | None
    drift_share: float | None
    mature_rows: int
    """Blind predictions of the champion whose label is now known."""
    accuracy: float | None
    """The share of them that was right."""
    evaluated_rows: int
    evaluated_accuracy: float | None
    """The champion's accuracy on the test rows of its own snapshot."""

    @property
    def accuracy_loss(self) -> float | None:
        """Evaluated minus realised accuracy."""
        if self.accuracy is None or self.evaluated_accuracy is None:
            return None
        return self.evaluated_accuracy - self.accuracy

    @property
    def chance(self) -> float:
        """How much of the loss may be chance: 1.645 standard errors of a difference of two shares."""
        sides = [(self.accuracy, self.mature_rows), (self.evaluated_accuracy, self.evaluated_rows)]
        variance = sum(share * (1 - share) / rows for share, rows in sides if share is not None and rows)
        return _ONE_SIDED_5_PERCENT * math.sqrt(variance)


@dataclass(frozen=True)
class RetrainingDecision:
    """Whether to retrain, and why, in one sentence."""

    decision: Literal["retrain", "skip"]
    reason: str
    inputs: DecisionInputs
    policy: RetrainingPolicy

    def body(self) -> dict[str, Any]:
        """As JSON, with every number and every threshold."""
        numbers = {**asdict(self.inputs), "accuracy_loss": self.inputs.accuracy_loss}
        return {
            "decision": self.decision,
            "reason": self.reason,
            "numbers": numbers,
            "policy": self.policy.model_dump(),
        }


def decide(numbers: DecisionInputs, policy: RetrainingPolicy) -> RetrainingDecision:
    """Retrain without a champion; when it does worse than evaluated; when there is drift, or it is old, and new labels.

    Worse: on enough matured rows, accuracy lost beyond the bound by more than chance. A drift or a performance that
    could not be measured is never taken for calm: the reason of a skip names it.
    """
    for holds, why in (
        (numbers.champion is None, "there is no champion"),
        (_is_worse(numbers, policy), _performance(numbers, policy)),
        (_enough(numbers, policy) and numbers.drift_detected is True, f"{_drift(numbers)}, {_labels(numbers, policy)}"),
        (_enough(numbers, policy) and _is_old(numbers, policy), f"{_age(numbers, policy)}, {_labels(numbers, policy)}"),
    ):
        if holds:
            return RetrainingDecision("retrain", why, numbers, policy)
    findings = (_drift(numbers), _performance(numbers, policy), _age(numbers, policy), _labels(numbers, policy))
    return RetrainingDecision("skip", "; ".join(findings), numbers, policy)


def _enough(numbers: DecisionInputs, policy: RetrainingPolicy) -> bool:
    return numbers.new_labels >= policy.min_new_labels


def _is_old(numbers: DecisionInputs, policy: RetrainingPolicy) -> bool:
    return numbers.age_days is not None and numbers.age_days > policy.max_age_days


def _is_worse(numbers: DecisionInputs, policy: RetrainingPolicy) -> bool:
    loss = numbers.accuracy_loss
    return (
        loss is not None
        and numbers.mature_rows >= policy.min_mature_rows
        and loss - numbers.chance > policy.max_accuracy_loss
    )


def _drift(numbers: DecisionInputs) -> str:
    if numbers.drift_detected is None or numbers.drift_share is None:
        return "drift could not be measured, which is no sign of calm"
    return f"{'drift' if numbers.drift_detected else 'no drift'} ({numbers.drift_share:.0%} of a group's columns)"


def _performance(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    if numbers.mature_rows < policy.min_mature_rows:
        rows = f"{numbers.mature_rows} matured rows, {policy.min_mature_rows} are needed"
        return f"performance could not be measured ({rows}), which is no sign of health"
    loss = numbers.accuracy_loss
    if loss is None:
        return "performance has nothing to be compared with: the champion's evaluation is not there"
    bound = f"the bound is {policy.max_accuracy_loss:.3f} and {numbers.chance:.3f} may be chance"
    return f"accuracy {numbers.accuracy:.3f} on {numbers.mature_rows} matured rows, {_change(loss)} evaluated ({bound})"


def _change(loss: float) -> str:
    return f"{abs(loss):.3f} {'below' if loss > 0 else 'above'} the"


def _age(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    return f"the champion's snapshot is {numbers.age_days} days old (at most {policy.max_age_days})"


def _labels(numbers: DecisionInputs, policy: RetrainingPolicy) -> str:
    return f"{numbers.new_labels} new labels (at least {policy.min_new_labels})"
