"""The gate: pure rules for whether a challenger becomes the champion.

It requires proof, on the rows that both have answered, that the challenger is better than the champion beyond chance in
one of the metrics that decide, and in none of them worse by more than is allowed. A part of the rows on which it likely
loses more than is allowed counts against it; if nothing else does, a person decides.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from assets.display import slice_name
from assets.evaluation.criteria import Criterion, criteria, title
from assets.evaluation.harm import Part, paired_gain, parts
from assets.evaluation.paired import Gain, Pair, compare, mcnemar
from assets.evaluation.report import Evaluation, Reference, Rival
from assets.settings import Domain, GatePolicy

__all__ = ["Decision", "Verdict", "count_reign", "decide", "decide_refit", "met"]

Decision = Literal["promote", "awaiting-approval", "reject", "inconclusive", "unchanged"]
"""`inconclusive` means that the gate cannot measure; only `promote` moves the alias automatically."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, its reasons, and every number it is based on."""

    decision: Decision
    reasons: tuple[str, ...]
    numbers: dict[str, float] = field(repr=False)
    as_of: str
    evaluation: str
    training_id: str
    champion: str | None
    """The training id of the champion that the challenger was judged against."""
    trained_to: str
    """The last day of the training rows of the challenger, or of the version it is a refit of."""
    refit_of: str | None = None
    """The training id of the evaluated version, when the verdict is about a refit of it."""

    def body(self) -> dict[str, Any]:
        """The verdict as JSON; a number that is not finite becomes null."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {
            "decision": self.decision,
            "reasons": list(self.reasons),
            "training_id": self.training_id,
            "evaluation": self.evaluation,
            "champion": self.champion,
            "trained_to": self.trained_to,
            "numbers": numbers,
            **({"refit_of": self.refit_of} if self.refit_of else {}),
        }


@dataclass(frozen=True)
class _Finding:
    holds: bool
    sentence: str
    waivable: bool = False
    """Whether a person may promote the challenger although this does not hold."""


def decide(
    evaluation: Evaluation,
    policy: GatePolicy,
    domain: Domain,
    champion: str | None = None,
    former: frozenset[str] = frozenset(),
    withdrawn_to: str = "",
    nth: int = 1,
    doubts: tuple[str, ...] = (),
    held: str | None = None,
    refit_of: str | None = None,
) -> Verdict:
    """The verdict on an evaluated challenger, its reasons in the domain's words.

    `champion` is the training id of the version that has the alias now, or None; if it is a refit, `refit_of` is that
    of the version it refits, with which the challenger is compared: neither has learned from the rows it is judged by,
    and the challenger may get a refit, too. `former` are the training ids of former champions; `withdrawn_to` is the
    last training day of any version that a rollback has replaced; `nth` counts the challengers of the champion's reign
    including this one; `doubts` are other reasons why it cannot be measured, and `held` is why a person decides if it
    passes, whatever the policy's approval. What cannot be measured is never promoted.
    """
    harm = parts(evaluation, policy)
    known = refit_of or champion
    decision, reasons = _decide(evaluation, policy, domain, known, former, withdrawn_to, nth, harm, doubts, held)
    return Verdict(
        decision=decision,
        reasons=reasons,
        numbers=_numbers(evaluation, policy, harm) | {"nth_of_the_reign": float(nth)},
        as_of=evaluation.as_of,
        evaluation=evaluation.id,
        training_id=evaluation.training_id,
        champion=champion,
        trained_to=evaluation.snapshot.period["train"][1],
    )


def decide_refit(evaluation: Evaluation, policy: GatePolicy, domain: Domain, trained_to: str) -> Verdict:
    """The verdict on a refit, evaluated on the reference rows against the version it is to replace.

    It has learned from that version's test rows, so they say nothing about it. `trained_to` is that version's.
    """
    rival = evaluation.champion
    decision, reasons = _decide_refit(evaluation, policy, domain)
    return Verdict(
        decision=decision,
        reasons=reasons,
        numbers=_numbers(evaluation, policy, []),
        as_of=evaluation.as_of,
        evaluation=evaluation.id,
        training_id=evaluation.training_id,
        champion=rival.training_id if rival else None,
        trained_to=trained_to,
        refit_of=evaluation.refit_of,
    )


def _decide_refit(evaluation: Evaluation, policy: GatePolicy, domain: Domain) -> tuple[Decision, tuple[str, ...]]:
    needed = policy.model_copy(update={"min_test_rows": policy.min_reference_rows})
    unknown = tuple(f"cannot measure: {why}" for why in _unmeasurable(evaluation, needed, domain, evaluation.refit_of))
    if unknown or evaluation.champion is None or evaluation.reference is None:
        return "inconclusive", unknown or ("cannot measure: there are no reference rows",)
    held = _refit_holds(evaluation, evaluation.champion, evaluation.reference, policy, domain)
    findings = (*held, _agrees(evaluation.champion, policy))
    if failed := tuple(finding.sentence for finding in findings if not finding.holds):
        return "reject", failed
    decision: Decision = "promote" if policy.approval == "automatic" else "awaiting-approval"
    return decision, tuple(finding.sentence for finding in findings)


def _refit_holds(
    evaluation: Evaluation, rival: Rival, reference: Reference, policy: GatePolicy, domain: Domain
) -> Iterator[_Finding]:
    """By accuracy or, if that does not decide, by each metric that does: most rows say nothing about a rare label."""
    if "accuracy" in policy.decided_by:
        yield _holds_on_reference(reference, policy)
        return
    for metric, gain in _gains(evaluation, rival, policy):
        worst = policy.max_loss + NormalDist().inv_cdf(1 - policy.significance) * gain.error
        measured = f"{title(metric.name, domain)} is {_above(metric.sign * gain.gain)} the champion's"
        bound = f"on {reference.rows} reference rows {measured}; {worst:.4f} {metric.worse} is allowed"
        yield _Finding(gain.gain >= -worst, f"{bound}: {policy.max_loss:g}, and what is within chance")


def _agrees(rival: Rival, policy: GatePolicy) -> _Finding:
    alike = sum(count for _, ours, theirs, count in rival.pairs if ours == theirs)
    share, bound = alike / sum(count for *_, count in rival.pairs), policy.min_refit_agreement
    return _Finding(share >= bound, f"it answers {share:.4f} of them as version {rival.version} does, of {bound:g}")


def count_reign(verdicts: Iterable[Mapping[str, Any]], evaluation: Evaluation, champion: str | None) -> int:
    """The number of this evaluation among those against a champion, from 1, by the bodies of the verdicts so far."""
    return len(met(verdicts, champion) - {evaluation.id}) + 1


def met(verdicts: Iterable[Mapping[str, Any]], champion: str | None) -> set[str]:
    """The evaluations against a champion, by the bodies of the verdicts so far, oldest first.

    What could not be measured does not count, since it could not have replaced the champion. Nor does a refit: it needs
    no gain, so it spends no chance of a false one. Nor does a former champion: only a person brings it back.
    """
    evaluations, reigned = set[str](), set[str | None]()
    for verdict in verdicts:
        reigned.add(verdict["champion"])
        against = verdict["champion"] == champion and not verdict.get("refit_of")
        if against and verdict["decision"] != "inconclusive" and verdict["training_id"] not in reigned:
            evaluations.add(verdict["evaluation"])
    return evaluations


def _decide(
    evaluation: Evaluation,
    policy: GatePolicy,
    domain: Domain,
    champion: str | None,
    former: frozenset[str],
    withdrawn_to: str,
    nth: int,
    harm: list[Part],
    doubts: tuple[str, ...],
    held: str | None,
) -> tuple[Decision, tuple[str, ...]]:
    if champion == evaluation.training_id:
        return "unchanged", ("the challenger is the champion already: nothing it is made of has changed",)
    if unknown := tuple(
        f"cannot measure: {why}" for why in (*doubts, *_unmeasurable(evaluation, policy, domain, champion))
    ):
        return "inconclusive", unknown
    findings = [*_may_return(evaluation, former, withdrawn_to), *_findings(evaluation, policy, domain, nth, harm)]
    if failed := [finding for finding in findings if not finding.holds]:
        # Findings against it come first, then those in favour, for the person who weighs them.
        if all(finding.waivable for finding in failed):
            return "awaiting-approval", tuple(f.sentence for f in sorted(findings, key=lambda finding: finding.holds))
        return "reject", tuple(finding.sentence for finding in failed)
    decision: Decision = "promote" if policy.approval == "automatic" and not held else "awaiting-approval"
    return decision, (*([held] if held else []), *(finding.sentence for finding in findings))


def _unmeasurable(evaluation: Evaluation, policy: GatePolicy, domain: Domain, champion: str | None) -> Iterator[str]:
    rows, rival = evaluation.challenger.rows, evaluation.champion
    if rows < policy.min_test_rows:
        yield f"{rows} test rows, and at least {policy.min_test_rows} are needed"
    for label, count in _rows_of(evaluation, policy).items():
        if count < policy.min_label_rows:
            of_label = slice_name(domain, "label", label)
            yield f"{count} test rows of {of_label}, and at least {policy.min_label_rows} are needed"
    if strange := [name for name, value in _measured(evaluation, policy).items() if not math.isfinite(value)]:
        yield f"not a finite number: {', '.join(strange)}"
    if not evaluation.golden.equal:
        yield f"served and evaluated outputs differ by {evaluation.golden.max_difference:.2g} on the golden rows"
    against = rival.training_id if rival else None
    if against == evaluation.training_id:
        yield "it was compared with itself"
    elif against != champion:
        yield f"it was evaluated against {against or 'no champion'}, but the champion is {champion or 'none'}"
    if rival and (paired := sum(count for *_, count in rival.pairs)) != rows:
        yield f"{paired} of {rows} test rows were answered by both"


def _rows_of(evaluation: Evaluation, policy: GatePolicy) -> dict[str, int]:
    """Test rows of the labels whose own metrics decide."""
    rows = {scores.label: scores.rows for scores in evaluation.by_label}
    return {label: rows.get(label, 0) for name in policy.decided_by if (label := name.partition(":")[2])}


def _may_return(evaluation: Evaluation, former: frozenset[str], withdrawn_to: str) -> Iterator[_Finding]:
    if evaluation.training_id in former:
        yield _Finding(False, "it was the champion before and was replaced; `evergreen rollback` can bring it back")
    _, trained_to = evaluation.snapshot.period["train"]
    if trained_to <= withdrawn_to:
        known = f"a version trained to {withdrawn_to} was rolled back"
        yield _Finding(False, f"{known}, and this one, trained to {trained_to}, has seen nothing newer")


def _findings(
    evaluation: Evaluation, policy: GatePolicy, domain: Domain, nth: int, harm: list[Part]
) -> Iterator[_Finding]:
    yield from _beats_baseline(evaluation, policy, domain)
    yield _is_calibrated(evaluation, policy)
    yield _is_fast(evaluation, policy, domain)
    if evaluation.champion is None:
        yield _Finding(True, "there is no champion yet")
        return
    yield from _beats_champion(evaluation, evaluation.champion, policy, domain, nth)
    yield _harms_none(harm, policy, domain)
    if evaluation.reference is not None:
        yield _holds_on_reference(evaluation.reference, policy)


def _beats_baseline(evaluation: Evaluation, policy: GatePolicy, domain: Domain) -> Iterator[_Finding]:
    for name, metric in criteria(policy.decided_by, evaluation.labels, policy.costs).items():
        ours, theirs = evaluation.challenger.value(name), evaluation.baseline.value(name)
        needed, value = policy.min_gain_over_baseline, f"{title(name, domain)} {ours:.4f} is"
        bound = f", and must be more than {needed:g} {metric.better} it"
        compared = f"{value} {_above(ours - theirs)} the baseline's {theirs:.4f}{bound}"
        yield _Finding(metric.sign * (ours - theirs) > needed, compared)
        blind = _without_reading(metric, evaluation)
        if metric.sign * (ours - blind) <= needed:
            yield _Finding(False, f"{value} {_above(ours - blind)} that of one answer to all rows, {blind:.4f}{bound}")


def _without_reading(metric: Criterion, evaluation: Evaluation) -> float:
    """The best possible without reading rows: the same answer to all of them, or the frequencies of the labels."""
    rows = np.array(evaluation.confusion).sum(axis=1)
    labels, shares = np.arange(len(rows)), rows / rows.sum()
    if metric.of_probabilities:
        return float(metric.of_probabilities(labels, np.tile(shares, (len(rows), 1)), rows[None])[0])
    assert metric.of_answers
    alike = [float(metric.of_answers(labels, np.full(len(rows), label), rows[None])[0]) for label in labels]
    return metric.sign * max(metric.sign * value for value in alike)


def _is_calibrated(evaluation: Evaluation, policy: GatePolicy) -> _Finding:
    error, bound = evaluation.challenger.ece, policy.max_calibration_error
    if error <= bound:
        return _Finding(True, f"calibration error {error:.4f} is within the bound of {bound:g}")
    theirs = evaluation.champion.metrics.ece if evaluation.champion else 0.0
    compared = f", and {_above(error - theirs)} the champion's" if evaluation.champion else ""
    return _Finding(error <= theirs, f"calibration error {error:.4f} is above the bound of {bound:g}{compared}")


def _is_fast(evaluation: Evaluation, policy: GatePolicy, domain: Domain) -> _Finding:
    took, bound = evaluation.milliseconds, policy.max_milliseconds
    return _Finding(took <= bound, f"one {domain.record.one} takes {took:.1f} ms, of {bound:g} that it may")


def _beats_champion(
    evaluation: Evaluation, rival: Rival, policy: GatePolicy, domain: Domain, nth: int
) -> Iterator[_Finding]:
    """Better in one metric, each tested at its share of the significance, and in none worse than allowed."""
    gains = _gains(evaluation, rival, policy)
    yield _is_better(rival, gains, policy, domain, nth)
    for metric, gain in gains:
        worst = gain.at_least(1 - policy.significance)
        measured = f"{title(metric.name, domain)} is {_above(metric.sign * gain.gain)} champion {rival.version}'s"
        at_worst = f"with {1 - policy.significance:.0%} confidence {_above(metric.sign * worst)} it at worst"
        allowed = f"{policy.max_loss:g} {metric.worse} is allowed"
        yield _Finding(worst >= -policy.max_loss, f"{measured}, {at_worst}; {allowed}")


def _gains(evaluation: Evaluation, rival: Rival, policy: GatePolicy) -> list[tuple[Criterion, Gain]]:
    """The metrics that decide, and the challenger's gain in each."""
    metrics = criteria(policy.decided_by, evaluation.labels, policy.costs)
    gains = compare(rival.pairs, metrics.values()) | rival.gains
    return [(metric, gains[name]) for name, metric in metrics.items()]


def _is_better(
    rival: Rival, gains: list[tuple[Criterion, Gain]], policy: GatePolicy, domain: Domain, nth: int
) -> _Finding:
    """Better in one metric: for accuracy the chance is exact, for others the gain at worst must be positive."""
    level, better, sentences = policy.level(nth), False, []
    for metric, gain in gains:
        if metric.name == "accuracy":
            only_ours, only_theirs = _only(rival.pairs)
            chance = mcnemar(only_ours, only_theirs)
            sure = chance <= level
            rows = f"{only_ours} rows are right only by the challenger, {only_theirs} only by the champion"
            sentences.append(f"{rows} (chance {chance:.2g})")
        else:
            worst = gain.at_least(1 - level)
            sure = worst > 0
            sentences.append(f"{title(metric.name, domain)} is {_above(metric.sign * worst)} the champion's at worst")
        better |= sure and gain.gain >= policy.min_gain
    either = _either([title(metric.name, domain) for metric, _ in gains])
    asked = f"better by at least {policy.min_gain:g}, beyond a chance of {level:.2g}, in {either}"
    return _Finding(better, f"{'' if better else 'not '}{asked}: {'; '.join(sentences)}")


def _only(pairs: Iterable[Pair]) -> tuple[int, int]:
    """The rows that only the challenger gets right, and only the champion."""
    ours = sum(count for true, ours, theirs, count in pairs if ours == true != theirs)
    return ours, sum(count for true, ours, theirs, count in pairs if theirs == true != ours)


def _either(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _harms_none(harm: list[Part], policy: GatePolicy, domain: Domain) -> _Finding:
    """A loss that a person may weigh against the gain on all rows."""
    likely = [part for part in harm if part.chance >= policy.harm_confidence]
    worst = likely or [max(harm, key=lambda part: part.chance)]
    listed = ", ".join(
        f"{slice_name(domain, part.by, part.value)} ({_above(part.gain)}, chance {part.chance:.2f}, {part.rows} rows)"
        for part in worst
    )
    bound = f"more than {policy.max_part_loss:g} of F1 ({domain.label.many}) or accuracy (slices)"
    if likely:
        return _Finding(False, f"{len(likely)} of {len(harm)} parts likely lose {bound}: {listed}", waivable=True)
    return _Finding(True, f"none of {len(harm)} parts likely loses {bound}; likeliest: {listed}")


def _holds_on_reference(reference: Reference, policy: GatePolicy) -> _Finding:
    gain, error = paired_gain(reference.only_challenger, reference.only_champion, reference.rows)
    worst = -policy.max_loss - NormalDist().inv_cdf(1 - policy.significance) * error
    measured = f"on {reference.rows} reference rows accuracy is {_above(gain)} the champion's"
    return _Finding(
        gain >= worst, f"{measured}; {-worst:.4f} below is allowed: {policy.max_loss:g}, and what is within chance"
    )


def _above(difference: float) -> str:
    return f"{abs(difference):.4f} {'above' if difference >= 0 else 'below'}"


def _measured(evaluation: Evaluation, policy: GatePolicy) -> dict[str, float]:
    """Every measured number that a rule reads."""
    numbers = {"golden_difference": evaluation.golden.max_difference, "milliseconds": evaluation.milliseconds}
    names = dict.fromkeys(("accuracy", "macro_f1", "log_loss", "ece", *policy.decided_by))
    for who, metrics in evaluation.contenders().items():
        numbers |= {f"{who}_{name}": metrics.value(name) for name in names}
    if evaluation.reference is not None:
        numbers["reference_loss"] = evaluation.reference.loss
    if evaluation.champion is not None:
        wanted = criteria(policy.decided_by, evaluation.labels, policy.costs)
        gains = {name: evaluation.champion.gains.get(name) for name, one in wanted.items() if one.of_probabilities}
        numbers |= {f"gain_{name}": gain.gain if gain else math.nan for name, gain in gains.items()}
        numbers |= {f"error_{name}": gain.error if gain else math.nan for name, gain in gains.items()}
    return numbers


def _numbers(evaluation: Evaluation, policy: GatePolicy, harm: list[Part]) -> dict[str, float]:
    limits = {f"policy_{name}": value for name, value in policy.model_dump().items() if isinstance(value, int | float)}
    by_part = {f"{what}/{part.name}": getattr(part, what) for part in harm for what in ("gain", "chance")}
    return {"test_rows": float(evaluation.challenger.rows)} | _measured(evaluation, policy) | by_part | limits
