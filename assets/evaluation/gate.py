"""The gate: whether a challenger becomes the champion, by rules alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from assets.evaluation.report import Evaluation, Rival, SliceScores
from assets.settings import GatePolicy

__all__ = ["Decision", "Verdict", "decide"]

Decision = Literal["promote", "reject", "unchanged"]


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, why, and every number that it rests on."""

    decision: Decision
    reasons: tuple[str, ...]
    numbers: dict[str, float] = field(repr=False)
    as_of: str
    evaluation: str
    training_id: str
    champion: str | None
    """The training id of the champion that the challenger was judged against."""

    def body(self) -> dict[str, Any]:
        """As JSON: a number that is not finite becomes null."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {
            "decision": self.decision,
            "reasons": list(self.reasons),
            "training_id": self.training_id,
            "evaluation": self.evaluation,
            "champion": self.champion,
            "numbers": numbers,
        }


@dataclass(frozen=True)
class _Finding:
    holds: bool
    sentence: str


def decide(
    evaluation: Evaluation,
    policy: GatePolicy,
    champion: str | None = None,
    former: frozenset[str] = frozenset(),
) -> Verdict:
    """The verdict on an evaluated challenger.

    `champion` is the training id of the version that holds the alias now, None when none does; `former` are the
    training ids that held it before. What cannot be measured is rejected, never promoted.
    """
    decision, reasons = _decide(evaluation, policy, champion, former)
    return Verdict(
        decision=decision,
        reasons=reasons,
        numbers=_numbers(evaluation, policy),
        as_of=evaluation.as_of,
        evaluation=evaluation.id,
        training_id=evaluation.training_id,
        champion=champion,
    )


def _decide(
    evaluation: Evaluation, policy: GatePolicy, champion: str | None, former: frozenset[str]
) -> tuple[Decision, tuple[str, ...]]:
    if champion == evaluation.training_id:
        return "unchanged", ("the challenger is the champion already: nothing it is made of has changed",)
    findings = [_Finding(False, f"cannot measure: {why}") for why in _unmeasurable(evaluation, policy, champion)]
    findings = findings or list(_findings(evaluation, policy, former))
    if failed := tuple(finding.sentence for finding in findings if not finding.holds):
        return "reject", failed
    return "promote", tuple(finding.sentence for finding in findings)


def _unmeasurable(evaluation: Evaluation, policy: GatePolicy, champion: str | None) -> Iterator[str]:
    rows = evaluation.challenger.rows
    if rows < policy.min_test_rows:
        yield f"{rows} test rows, and at least {policy.min_test_rows} are needed"
    if strange := [name for name, value in _measured(evaluation).items() if not math.isfinite(value)]:
        yield f"not a finite number: {', '.join(strange)}"
    if not evaluation.golden.equal:
        yield f"served and evaluated outputs differ by {evaluation.golden.max_difference:.2g} on the golden rows"
    rival = evaluation.champion.training_id if evaluation.champion else None
    if rival != champion:
        yield f"it was evaluated beside {rival or 'no champion'}, and the champion is {champion or 'none'}"


def _findings(evaluation: Evaluation, policy: GatePolicy, former: frozenset[str]) -> Iterator[_Finding]:
    if evaluation.training_id in former:
        yield _Finding(False, "it was the champion before and was replaced; `evergreen rollback` can bring it back")
    yield from _beats_baseline(evaluation, policy)
    yield _is_calibrated(evaluation, policy)
    if evaluation.champion is None:
        yield _Finding(True, "there is no champion yet")
        return
    yield from _holds_against(evaluation.champion, evaluation, policy)
    yield _holds_on_slices(evaluation, policy)


def _beats_baseline(evaluation: Evaluation, policy: GatePolicy) -> Iterator[_Finding]:
    pairs = {"accuracy": "accuracy", "macro-F1": "macro_f1"}
    for name, attribute in pairs.items():
        ours, theirs = getattr(evaluation.challenger, attribute), getattr(evaluation.baseline, attribute)
        needed = f", and must be more than {policy.min_gain_over_baseline:g} above it"
        yield _Finding(
            ours - theirs > policy.min_gain_over_baseline,
            f"{name} {ours:.4f} is {_above(ours - theirs)} the baseline's {theirs:.4f}{needed}",
        )


def _is_calibrated(evaluation: Evaluation, policy: GatePolicy) -> _Finding:
    error, bound = evaluation.challenger.ece, policy.max_calibration_error
    holds = error <= bound
    return _Finding(holds, f"calibration error {error:.4f} is {'within' if holds else 'above'} the bound of {bound:g}")


def _holds_against(rival: Rival, evaluation: Evaluation, policy: GatePolicy) -> Iterator[_Finding]:
    pairs = {"accuracy": "accuracy", "macro-F1": "macro_f1"}
    for name, attribute in pairs.items():
        ours, theirs = getattr(evaluation.challenger, attribute), getattr(rival.metrics, attribute)
        allowed = f"; {policy.max_loss_to_champion:g} below is allowed"
        yield _Finding(
            theirs - ours <= policy.max_loss_to_champion,
            f"{name} {ours:.4f} is {_above(ours - theirs)} the {theirs:.4f} of champion {rival.version}{allowed}",
        )


def _holds_on_slices(evaluation: Evaluation, policy: GatePolicy) -> _Finding:
    losses = {part: loss for part in evaluation.slices if (loss := _loss(part)) is not None}
    beyond = {part: loss for part, loss in losses.items() if loss > policy.max_slice_loss}
    if beyond:
        listed = ", ".join(f"{part.name} by {loss:.4f} ({part.rows} rows)" for part, loss in beyond.items())
        return _Finding(False, f"loses more than {policy.max_slice_loss:g} of accuracy to the champion on {listed}")
    if not losses:
        return _Finding(True, "no slice is large enough to decide")
    worst, loss = max(losses.items(), key=lambda item: item[1])
    seen = f"worst: {worst.name}, {_above(-loss)} it"
    return _Finding(True, f"on none of {len(losses)} slices does it lose more than {policy.max_slice_loss:g} ({seen})")


def _loss(part: SliceScores) -> float | None:
    """Accuracy lost to the champion on a slice that decides, else None."""
    return part.champion - part.challenger if part.decides and part.champion is not None else None


def _above(difference: float) -> str:
    return f"{abs(difference):.4f} {'above' if difference >= 0 else 'below'}"


def _measured(evaluation: Evaluation) -> dict[str, float]:
    """Every measured number that a rule reads."""
    found: dict[str, float] = {"golden_difference": evaluation.golden.max_difference}
    for who, metrics in evaluation.contenders().items():
        found |= {f"{who}_{name}": getattr(metrics, name) for name in ("accuracy", "macro_f1", "log_loss", "ece")}
    for part in evaluation.slices:
        if (loss := _loss(part)) is not None:
            found[f"slice_loss/{part.by}/{part.value}"] = loss
    return found


def _numbers(evaluation: Evaluation, policy: GatePolicy) -> dict[str, float]:
    limits = {f"policy_{name}": float(value) for name, value in policy.model_dump().items()}
    return {"test_rows": float(evaluation.challenger.rows)} | _measured(evaluation) | limits
