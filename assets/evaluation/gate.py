"""The gate: whether a challenger becomes the champion, by rules alone.

Against the champion it asks for proof, on the rows that both have answered: that accuracy or macro-F1 is better beyond
chance, that neither is worse by more than is allowed, and that no slice is worse beyond both.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from assets.evaluation.paired import Gain, compare, holm, mcnemar
from assets.evaluation.report import Evaluation, Reference, Rival, SliceScores
from assets.settings import GatePolicy

__all__ = ["Decision", "Verdict", "decide"]

Decision = Literal["promote", "awaiting-approval", "reject", "inconclusive", "unchanged"]
"""`inconclusive` is the answer of a gate that cannot measure; only `promote` moves the alias by itself."""

_METRICS = {"accuracy": "accuracy", "macro-F1": "macro_f1"}


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
    trained_to: str
    """The last day of the rows that the challenger was trained on."""

    def body(self) -> dict[str, Any]:
        """As JSON: a number that is not finite becomes null."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {
            "decision": self.decision,
            "reasons": list(self.reasons),
            "training_id": self.training_id,
            "evaluation": self.evaluation,
            "champion": self.champion,
            "trained_to": self.trained_to,
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
    withdrawn_to: str = "",
) -> Verdict:
    """The verdict on an evaluated challenger.

    `champion` is the training id of the version that holds the alias now, None when none does; `former` are the
    training ids that held it before; `withdrawn_to` is the last day that any version which a rollback has replaced was
    trained on. What cannot be measured is never promoted.
    """
    decision, reasons = _decide(evaluation, policy, champion, former, withdrawn_to)
    return Verdict(
        decision=decision,
        reasons=reasons,
        numbers=_numbers(evaluation, policy),
        as_of=evaluation.as_of,
        evaluation=evaluation.id,
        training_id=evaluation.training_id,
        champion=champion,
        trained_to=evaluation.snapshot.period["train"][1],
    )


def _decide(
    evaluation: Evaluation, policy: GatePolicy, champion: str | None, former: frozenset[str], withdrawn_to: str
) -> tuple[Decision, tuple[str, ...]]:
    if champion == evaluation.training_id:
        return "unchanged", ("the challenger is the champion already: nothing it is made of has changed",)
    if unknown := tuple(f"cannot measure: {why}" for why in _unmeasurable(evaluation, policy, champion)):
        return "inconclusive", unknown
    findings = [*_may_return(evaluation, former, withdrawn_to), *_findings(evaluation, policy)]
    if failed := tuple(finding.sentence for finding in findings if not finding.holds):
        return "reject", failed
    decision: Decision = "promote" if policy.approval == "automatic" else "awaiting-approval"
    return decision, tuple(finding.sentence for finding in findings)


def _unmeasurable(evaluation: Evaluation, policy: GatePolicy, champion: str | None) -> Iterator[str]:
    rows, rival = evaluation.challenger.rows, evaluation.champion
    if rows < policy.min_test_rows:
        yield f"{rows} test rows, and at least {policy.min_test_rows} are needed"
    if strange := [name for name, value in _measured(evaluation).items() if not math.isfinite(value)]:
        yield f"not a finite number: {', '.join(strange)}"
    if not evaluation.golden.equal:
        yield f"served and evaluated outputs differ by {evaluation.golden.max_difference:.2g} on the golden rows"
    beside = rival.training_id if rival else None
    if beside == evaluation.training_id:
        yield "it was compared with itself"
    elif beside != champion:
        yield f"it was evaluated beside {beside or 'no champion'}, and the champion is {champion or 'none'}"
    if rival and (paired := sum(count for *_, count in rival.pairs)) != rows:
        yield f"{paired} of {rows} test rows were answered by both"


def _may_return(evaluation: Evaluation, former: frozenset[str], withdrawn_to: str) -> Iterator[_Finding]:
    if evaluation.training_id in former:
        yield _Finding(False, "it was the champion before and was replaced; `evergreen rollback` can bring it back")
    _, trained_to = evaluation.snapshot.period["train"]
    if trained_to <= withdrawn_to:
        known = f"a version trained to {withdrawn_to} was rolled back"
        yield _Finding(False, f"{known}, and this one, trained to {trained_to}, has seen nothing newer")


def _findings(evaluation: Evaluation, policy: GatePolicy) -> Iterator[_Finding]:
    yield from _beats_baseline(evaluation, policy)
    yield _is_calibrated(evaluation, policy)
    yield _is_fast(evaluation, policy)
    if evaluation.champion is None:
        yield _Finding(True, "there is no champion yet")
        return
    yield from _beats_champion(evaluation.champion, policy)
    yield _holds_on_slices(evaluation, policy)
    if evaluation.reference is not None:
        yield _holds_on_reference(evaluation.reference, policy)


def _beats_baseline(evaluation: Evaluation, policy: GatePolicy) -> Iterator[_Finding]:
    for name, attribute in _METRICS.items():
        ours, theirs = getattr(evaluation.challenger, attribute), getattr(evaluation.baseline, attribute)
        needed = f", and must be more than {policy.min_gain_over_baseline:g} above it"
        yield _Finding(
            ours - theirs > policy.min_gain_over_baseline,
            f"{name} {ours:.4f} is {_above(ours - theirs)} the baseline's {theirs:.4f}{needed}",
        )


def _is_calibrated(evaluation: Evaluation, policy: GatePolicy) -> _Finding:
    error, bound = evaluation.challenger.ece, policy.max_calibration_error
    if error <= bound:
        return _Finding(True, f"calibration error {error:.4f} is within the bound of {bound:g}")
    theirs = evaluation.champion.metrics.ece if evaluation.champion else 0.0
    beside = f", and {_above(error - theirs)} the champion's" if evaluation.champion else ""
    return _Finding(error <= theirs, f"calibration error {error:.4f} is above the bound of {bound:g}{beside}")


def _is_fast(evaluation: Evaluation, policy: GatePolicy) -> _Finding:
    took, bound = evaluation.milliseconds, policy.max_milliseconds
    return _Finding(took <= bound, f"a row takes {took:.1f} ms, of {bound:g} that it may")


def _beats_champion(rival: Rival, policy: GatePolicy) -> Iterator[_Finding]:
    """Better in one metric, each tested at half the significance; not worse than is allowed in either."""
    gains = compare(rival.pairs)
    yield _is_better(rival, gains, policy)
    for name, attribute in _METRICS.items():
        worst = gains[attribute].at_least(1 - policy.significance)
        found = f"{name} is {_above(gains[attribute].gain)} champion {rival.version}'s"
        at_worst = f"with {1 - policy.significance:.0%} confidence {_above(worst)} it at worst"
        yield _Finding(worst >= -policy.max_loss, f"{found}, {at_worst}; {policy.max_loss:g} below is allowed")


def _is_better(rival: Rival, gains: dict[str, Gain], policy: GatePolicy) -> _Finding:
    level = policy.significance / 2
    only_ours = sum(count for true, ours, theirs, count in rival.pairs if ours == true != theirs)
    only_theirs = sum(count for true, ours, theirs, count in rival.pairs if theirs == true != ours)
    chance, worst = mcnemar(only_ours, only_theirs), gains["macro_f1"].at_least(1 - level)
    accurate = chance <= level and gains["accuracy"].gain >= policy.min_gain
    balanced = worst > 0 and gains["macro_f1"].gain >= policy.min_gain
    rows = f"{only_ours} rows are right only by the challenger, {only_theirs} only by the champion"
    found = f"{rows} (chance {chance:.2g}); macro-F1 is {_above(worst)} the champion's at worst"
    better = f"better by at least {policy.min_gain:g}, beyond a chance of {level:g}, in accuracy or macro-F1"
    return _Finding(accurate or balanced, f"{'' if accurate or balanced else 'not '}{better}: {found}")


def _holds_on_slices(evaluation: Evaluation, policy: GatePolicy) -> _Finding:
    losses = {part: loss for part in evaluation.slices if (loss := _loss(part)) is not None}
    if not losses:
        return _Finding(True, "no slice is large enough to decide")
    beyond_chance = holm([mcnemar(part.only_champion, part.only_challenger) for part in losses], policy.significance)
    worse = [part for part, sure in zip(losses, beyond_chance, strict=True) if sure]
    if beyond := [part for part in worse if losses[part] > policy.max_slice_loss]:
        listed = ", ".join(f"{part.name} by {losses[part]:.4f} ({part.rows} rows)" for part in beyond)
        bound = f"loses more than {policy.max_slice_loss:g} of accuracy to the champion, beyond chance,"
        return _Finding(False, f"{bound} on {listed}")
    worst, loss = max(losses.items(), key=lambda item: item[1])
    seen = f"worst: {worst.name}, {_above(-loss)} it"
    bound = f"lose more than {policy.max_slice_loss:g} beyond chance"
    return _Finding(True, f"on none of {len(losses)} slices does it {bound} ({seen})")


def _holds_on_reference(reference: Reference, policy: GatePolicy) -> _Finding:
    chance = mcnemar(reference.only_champion, reference.only_challenger)
    seen = (
        f"on {reference.rows} reference rows accuracy is {_above(-reference.loss)} the champion's (chance {chance:.2g})"
    )
    holds = reference.loss <= policy.max_loss or chance > policy.significance
    return _Finding(holds, f"{seen}; {policy.max_loss:g} below is allowed, and what is within chance")


def _loss(part: SliceScores) -> float | None:
    """Accuracy lost to the champion on a slice that decides, else None."""
    return part.champion - part.challenger if part.decides and part.champion is not None else None


def _above(difference: float) -> str:
    return f"{abs(difference):.4f} {'above' if difference >= 0 else 'below'}"


def _measured(evaluation: Evaluation) -> dict[str, float]:
    """Every measured number that a rule reads."""
    found = {"golden_difference": evaluation.golden.max_difference, "milliseconds": evaluation.milliseconds}
    for who, metrics in evaluation.contenders().items():
        found |= {f"{who}_{name}": getattr(metrics, name) for name in ("accuracy", "macro_f1", "log_loss", "ece")}
    if evaluation.reference is not None:
        found["reference_loss"] = evaluation.reference.loss
    for part in evaluation.slices:
        if (loss := _loss(part)) is not None:
            found[f"slice_loss/{part.by}/{part.value}"] = loss
    return found


def _numbers(evaluation: Evaluation, policy: GatePolicy) -> dict[str, float]:
    limits = {f"policy_{name}": value for name, value in policy.model_dump().items() if isinstance(value, int | float)}
    return {"test_rows": float(evaluation.challenger.rows)} | _measured(evaluation) | limits
