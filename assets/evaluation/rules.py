"""The gate's rules: what each requires of a challenger, the numbers it compares, and whether it holds.

A finding depends only on the evaluation, the policy and the context: with one threshold changed, the same rules say
what the verdict would have been.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from assets.display import slice_name
from assets.evaluation.criteria import Costs, Criterion, criteria, title
from assets.evaluation.harm import Part, paired_gain, parts
from assets.evaluation.live import chance_of_no_loss
from assets.evaluation.paired import Gain, Pair, compare, mcnemar
from assets.evaluation.report import GOLDEN_TOLERANCE, Evaluation, Reference, Rival
from assets.settings import Domain, GatePolicy

__all__ = ["WHILE_SERVING", "Context", "Finding", "Measured", "Term", "find"]

WHILE_SERVING = "no worse while serving"
"""The rule about live evidence; without any, it is not asked."""


@dataclass(frozen=True)
class Term:
    """A number and the threshold that a rule compares it with, in the unit of configs/gate.yaml."""

    what: str
    value: float
    must_be: Literal["at least", "at most", "more than", "less than"]
    bound: float
    settings: tuple[str, ...] = ()
    """The fields of GatePolicy that the number or the threshold depends on."""

    @property
    def holds(self) -> bool:
        return self.margin > 0 if self.must_be.endswith("than") else self.margin >= 0

    @property
    def margin(self) -> float:
        """The distance from the threshold; negative on the wrong side."""
        return self.bound - self.value if self.must_be in ("at most", "less than") else self.value - self.bound


@dataclass(frozen=True)
class Finding:
    """The result of one rule."""

    rule: str
    holds: bool
    sentence: str
    terms: tuple[Term, ...] = ()
    measures: bool = False
    """Whether nothing can be judged unless this holds."""
    waivable: bool = False
    """Whether a person may promote the challenger although this does not hold."""
    quiet: bool = False
    """Whether it is a reason only if it does not hold."""

    def body(self) -> dict[str, Any]:
        """The finding as JSON, with the margin of each term."""
        terms = [asdict(term) | {"settings": list(term.settings), "margin": term.margin} for term in self.terms]
        return {"rule": self.rule, "holds": self.holds, "sentence": self.sentence, "terms": terms}


@dataclass(frozen=True)
class Context:
    """What a verdict depends on besides the evaluation and the policy."""

    champion: str | None = None
    """The training id of the evaluated champion; None without one."""
    replaced: bool = False
    """Whether the challenger is a former champion."""
    withdrawn_to: str = ""
    """The last training day of any version that a rollback has replaced."""
    nth: int = 1
    """The number of the challenger in the champion's reign."""
    doubts: tuple[str, ...] = ()
    """Other reasons why it cannot be measured."""
    held: str | None = None
    """Why a person decides if it passes, whatever the policy's approval."""
    live: tuple[int, int, int] = (0, 0, 0)
    """Records that both have answered while serving and whose label is known: all of them, those that only the
    challenger got right, and those that only the champion did."""


@dataclass(frozen=True)
class Measured:
    """An evaluation, and what follows from it for any thresholds."""

    evaluation: Evaluation
    domain: Domain
    decided_by: tuple[str, ...]
    costs: Costs

    @classmethod
    def of(cls, evaluation: Evaluation, domain: Domain, policy: GatePolicy) -> "Measured":
        """By the policy's metrics and costs."""
        return cls(evaluation, domain, policy.decided_by, policy.costs)

    @cached_property
    def metrics(self) -> dict[str, Criterion]:
        """The metrics that decide, by name."""
        return criteria(self.decided_by, self.evaluation.labels, self.costs)

    @cached_property
    def gains(self) -> list[tuple[Criterion, Gain]]:
        """The metrics that decide, and the challenger's gain in each; there must be a champion."""
        rival = self.evaluation.champion
        assert rival is not None
        gains = compare(rival.pairs, self.metrics.values()) | rival.gains
        return [(metric, gains[name]) for name, metric in self.metrics.items()]

    @cached_property
    def parts(self) -> list[Part]:
        """The gain on each part; none without a champion."""
        return parts(self.evaluation, self.costs)

    @cached_property
    def paired(self) -> int:
        """The rows that both have answered."""
        assert self.evaluation.champion is not None
        return sum(count for *_, count in self.evaluation.champion.pairs)

    @cached_property
    def differing(self) -> tuple[int, int, float]:
        """The rows that only the challenger gets right, and only the champion, and the chance of this by luck."""
        assert self.evaluation.champion is not None
        ours, theirs = _only(self.evaluation.champion.pairs)
        return ours, theirs, mcnemar(ours, theirs)

    @cached_property
    def blind(self) -> dict[str, float]:
        """The best possible without reading rows, in each metric."""
        return {name: _without_reading(metric, self.evaluation) for name, metric in self.metrics.items()}

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Every measured number that a rule reads."""
        evaluation, rival = self.evaluation, self.evaluation.champion
        numbers = {"golden_difference": evaluation.golden.max_difference, "milliseconds": evaluation.milliseconds}
        names = dict.fromkeys(("accuracy", "macro_f1", "log_loss", "ece", *self.decided_by))
        for who, metrics in evaluation.contenders().items():
            numbers |= {f"{who}_{name}": metrics.value(name) for name in names}
        if evaluation.reference is not None:
            numbers["reference_loss"] = evaluation.reference.loss
        if rival is not None:
            gains = {name: rival.gains.get(name) for name, one in self.metrics.items() if one.of_probabilities}
            numbers |= {f"gain_{name}": gain.gain if gain else math.nan for name, gain in gains.items()}
            numbers |= {f"error_{name}": gain.error if gain else math.nan for name, gain in gains.items()}
        return numbers

    def title(self, metric: Criterion) -> str:
        return title(metric.name, self.domain)


def find(measured: Measured, policy: GatePolicy, context: Context) -> tuple[Finding, ...]:
    """The findings of every rule, in order; of what cannot be measured, no further rule is asked."""
    basic = tuple(_measurable(measured, policy, context))
    if not all(finding.holds for finding in basic):
        return basic
    if measured.evaluation.refit_of:
        return (*basic, *_refit(measured, policy))
    return (*basic, *_may_return(measured.evaluation, context), *_is_good(measured, policy, context))


def _measurable(measured: Measured, policy: GatePolicy, context: Context) -> Iterator[Finding]:
    evaluation = measured.evaluation
    for doubt in context.doubts:
        yield _basic("beyond doubt", False, doubt)
    yield _has_rows(evaluation, policy)
    yield from _has_rows_of_labels(measured, policy)
    strange = [name for name, value in measured.numbers.items() if not math.isfinite(value)]
    sentence = f"not a finite number: {', '.join(strange)}" if strange else "every number is finite"
    yield _basic("every number is finite", not strange, sentence)
    yield _is_served_alike(evaluation)
    yield _is_against(evaluation, context.champion)
    if evaluation.champion:
        yield _is_paired(measured)
    if evaluation.refit_of:
        complete = evaluation.champion is not None and evaluation.reference is not None
        yield _basic("reference rows", complete, f"there are {'' if complete else 'no '}reference rows")


def _basic(rule: str, holds: bool, sentence: str, *terms: Term) -> Finding:
    return Finding(rule, holds, sentence, terms, measures=True, quiet=True)


def _has_rows(evaluation: Evaluation, policy: GatePolicy) -> Finding:
    kind, setting = ("reference", "min_reference_rows") if evaluation.refit_of else ("test", "min_test_rows")
    rows, needed = evaluation.challenger.rows, getattr(policy, setting)
    term = Term(f"{kind} rows", rows, "at least", needed, (setting,))
    return _basic(f"enough {kind} rows", term.holds, f"{rows} {kind} rows, and at least {needed} are needed", term)


def _has_rows_of_labels(measured: Measured, policy: GatePolicy) -> Iterator[Finding]:
    """Enough test rows of the labels whose own metrics decide."""
    rows = {scores.label: scores.rows for scores in measured.evaluation.by_label}
    for label in dict.fromkeys(name.partition(":")[2] for name in policy.decided_by if ":" in name):
        needed, rows_of = policy.min_label_rows, f"test rows of {slice_name(measured.domain, 'label', label)}"
        term = Term(rows_of, rows.get(label, 0), "at least", needed, ("min_label_rows",))
        sentence = f"{term.value} {rows_of}, and at least {needed} are needed"
        yield _basic(f"enough {rows_of}", term.holds, sentence, term)


def _is_served_alike(evaluation: Evaluation) -> Finding:
    golden = evaluation.golden
    sentence = f"served and evaluated outputs differ by {golden.max_difference:.2g} on the golden rows"
    if not math.isfinite(golden.max_difference):
        return _basic("served as evaluated", golden.equal, sentence)
    term = Term("difference on golden rows", golden.max_difference, "at most", GOLDEN_TOLERANCE)
    return _basic("served as evaluated", golden.equal, sentence, term)


def _is_against(evaluation: Evaluation, champion: str | None) -> Finding:
    rule, against = "evaluated against the champion", evaluation.champion and evaluation.champion.training_id
    if against == evaluation.training_id:
        return _basic(rule, False, "it was compared with itself")
    if against == champion:
        return _basic(rule, True, "it was evaluated against the champion" if champion else "there is no champion yet")
    sentence = f"it was evaluated against {against or 'no champion'}, but the champion is {champion or 'none'}"
    return _basic(rule, False, sentence)


def _is_paired(measured: Measured) -> Finding:
    rows, paired = measured.evaluation.challenger.rows, measured.paired
    return _basic("both answered every row", paired == rows, f"{paired} of {rows} test rows were answered by both")


def _may_return(evaluation: Evaluation, context: Context) -> Iterator[Finding]:
    former = "it was the champion before and was replaced; `evergreen rollback` can bring it back"
    sentence = former if context.replaced else "it was never champion"
    yield Finding("not replaced before", not context.replaced, sentence, quiet=True)
    _, trained_to = evaluation.snapshot.period["train"]
    if context.withdrawn_to:
        newer = trained_to > context.withdrawn_to
        trained = f"a version trained to {context.withdrawn_to} was rolled back, and this one, trained to {trained_to},"
        sentence = f"{trained} has seen {'newer rows' if newer else 'nothing newer'}"
        yield Finding("newer than what was rolled back", newer, sentence, quiet=True)


def _is_good(measured: Measured, policy: GatePolicy, context: Context) -> Iterator[Finding]:
    evaluation = measured.evaluation
    yield from _beats_baseline(measured, policy)
    yield _is_calibrated(evaluation, policy)
    yield _is_fast(measured, policy)
    if evaluation.champion is None:
        yield Finding("better than the champion", True, "there is no champion yet")
        return
    yield _is_better(measured, policy, context.nth)
    yield from _is_not_worse(measured, evaluation.champion, policy)
    yield _harms_none(measured, policy)
    if evaluation.reference is not None:
        yield _holds_on_reference(evaluation.reference, policy)
    if context.live[0]:
        yield _holds_live(measured.domain, policy, *context.live)


def _holds_live(domain: Domain, policy: GatePolicy, rows: int, ours: int, theirs: int) -> Finding:
    """While serving, no loss beyond chance, however often one has looked."""
    chance = chance_of_no_loss(ours, theirs)
    term = Term("chance of no loss while serving", chance, "more than", policy.significance, ("significance",))
    answered = (
        f"of {rows} {domain.record.many} that both answered while serving, {ours} are right only by the challenger"
    )
    sentence = f"{answered}, {theirs} only by the champion (chance {chance:.2g})"
    return Finding(WHILE_SERVING, term.holds, sentence, (term,))


def _beats_baseline(measured: Measured, policy: GatePolicy) -> Iterator[Finding]:
    evaluation, needed = measured.evaluation, policy.min_gain_over_baseline
    for name, metric in measured.metrics.items():
        ours, theirs, blind = evaluation.challenger.value(name), evaluation.baseline.value(name), measured.blind[name]
        value = f"{measured.title(metric)} {ours:.4f} is"
        bound = f", and must be more than {needed:g} {metric.better} it"
        gain = _over_baseline(measured.title(metric), metric.sign * (ours - theirs), needed)
        sentence = f"{value} {_above(ours - theirs)} the baseline's {theirs:.4f}{bound}"
        yield Finding("better than the baseline", gain.holds, sentence, (gain,))
        gain = _over_baseline(measured.title(metric), metric.sign * (ours - blind), needed)
        sentence = f"{value} {_above(ours - blind)} that of one answer to all rows, {blind:.4f}{bound}"
        yield Finding("better than one answer to all rows", gain.holds, sentence, (gain,), quiet=True)


def _over_baseline(metric: str, gain: float, needed: float) -> Term:
    return Term(f"gain in {metric}", gain, "more than", needed, ("min_gain_over_baseline",))


def _without_reading(metric: Criterion, evaluation: Evaluation) -> float:
    """The best possible without reading rows: the same answer to all of them, or the frequencies of the labels."""
    rows = np.array(evaluation.confusion).sum(axis=1)
    labels, shares = np.arange(len(rows)), rows / rows.sum()
    if metric.of_probabilities:
        return float(metric.of_probabilities(labels, np.tile(shares, (len(rows), 1)), rows[None])[0])
    assert metric.of_answers
    alike = [float(metric.of_answers(labels, np.full(len(rows), label), rows[None])[0]) for label in labels]
    return metric.sign * max(metric.sign * value for value in alike)


def _is_calibrated(evaluation: Evaluation, policy: GatePolicy) -> Finding:
    """Within the bound, or no worse than the champion."""
    error, bound = evaluation.challenger.ece, policy.max_calibration_error
    theirs = evaluation.champion.metrics.ece if evaluation.champion else 0.0
    term = Term("calibration error", error, "at most", max(bound, theirs), ("max_calibration_error",))
    compared = f", and {_above(error - theirs)} the champion's" if evaluation.champion else ""
    above = f"calibration error {error:.4f} is above the bound of {bound:g}{compared}"
    within = f"calibration error {error:.4f} is within the bound of {bound:g}"
    return Finding("calibrated", term.holds, within if error <= bound else above, (term,))


def _is_fast(measured: Measured, policy: GatePolicy) -> Finding:
    took, bound = measured.evaluation.milliseconds, policy.max_milliseconds
    term = Term("milliseconds", took, "at most", bound, ("max_milliseconds",))
    sentence = f"one {measured.domain.record.one} takes {took:.1f} ms, of {bound:g} that it may"
    return Finding("fast enough", term.holds, sentence, (term,))


def _is_better(measured: Measured, policy: GatePolicy, nth: int) -> Finding:
    """Better in one metric, each tested at its share of the significance.

    For accuracy the chance is exact, for others the gain at worst must be positive.
    """
    level, better, sentences, terms = policy.level(nth), False, list[str](), list[Term]()
    for metric, gain in measured.gains:
        name = measured.title(metric)
        if metric.name == "accuracy":
            ours, theirs, chance = measured.differing
            rows = f"{ours} rows are right only by the challenger, {theirs} only by the champion"
            sentences.append(f"{rows} (chance {chance:.2g})")
            sure = Term(f"chance of no gain in {name}", chance, "at most", level, ("significance",))
        else:
            worst = gain.at_least(1 - level)
            sentences.append(f"{name} is {_above(metric.sign * worst)} the champion's at worst")
            sure = Term(f"gain in {name} at worst", worst, "more than", 0.0, ("significance",))
        enough = Term(f"gain in {name}", gain.gain, "at least", policy.min_gain, ("min_gain",))
        terms += [sure, enough]
        better |= sure.holds and enough.holds
    either = _either([measured.title(metric) for metric, _ in measured.gains])
    bound = f"better by at least {policy.min_gain:g}, beyond a chance of {level:.2g}, in {either}"
    sentence = f"{'' if better else 'not '}{bound}: {'; '.join(sentences)}"
    return Finding("better than the champion", better, sentence, tuple(terms))


def _is_not_worse(measured: Measured, rival: Rival, policy: GatePolicy) -> Iterator[Finding]:
    """In no metric worse than allowed."""
    for metric, gain in measured.gains:
        worst, name = gain.at_least(1 - policy.significance), measured.title(metric)
        compared = f"{name} is {_above(metric.sign * gain.gain)} champion {rival.version}'s"
        at_worst = f"with {1 - policy.significance:.0%} confidence {_above(metric.sign * worst)} it at worst"
        sentence = f"{compared}, {at_worst}; {policy.max_loss:g} {metric.worse} is allowed"
        term = _loss(f"loss in {name} at worst", -worst, policy)
        yield Finding("no worse than the champion", term.holds, sentence, (term,))


def _loss(what: str, loss: float, policy: GatePolicy) -> Term:
    return Term(what, loss, "at most", policy.max_loss, ("max_loss", "significance"))


def _harms_none(measured: Measured, policy: GatePolicy) -> Finding:
    """A loss that a person may weigh against the gain on all rows."""
    chances = {part: part.chance(policy) for part in measured.parts}
    likely = [part for part in measured.parts if chances[part] >= policy.harm_confidence]
    worst = likely or [max(measured.parts, key=lambda part: chances[part])]
    names = {part: slice_name(measured.domain, part.by, part.value) for part in worst}
    listed = ", ".join(
        f"{names[part]} ({_above(part.gain)}, chance {chances[part]:.2f}, {part.rows} rows)" for part in worst
    )
    terms = tuple(_harm(names[part], chances[part], policy) for part in worst)
    bound = f"more than {policy.max_part_loss:g} of F1 ({measured.domain.label.many}) or accuracy (slices)"
    if likely:
        sentence = f"{len(likely)} of {len(chances)} parts likely lose {bound}: {listed}"
        return Finding("harms no part", False, sentence, terms, waivable=True)
    sentence = f"none of {len(chances)} parts likely loses {bound}; likeliest: {listed}"
    return Finding("harms no part", True, sentence, terms)


def _harm(part: str, chance: float, policy: GatePolicy) -> Term:
    settings = ("max_part_loss", "harm_confidence")
    return Term(f"chance of harm to {part}", chance, "less than", policy.harm_confidence, settings)


def _holds_on_reference(reference: Reference, policy: GatePolicy) -> Finding:
    gain, error = paired_gain(reference.only_challenger, reference.only_champion, reference.rows)
    luck = NormalDist().inv_cdf(1 - policy.significance) * error
    compared = f"on {reference.rows} reference rows accuracy is {_above(gain)} the champion's"
    bound = f"{policy.max_loss + luck:.4f} below is allowed: {policy.max_loss:g}, and what is within chance"
    term = _loss("loss in accuracy on reference rows, beyond chance", -gain - luck, policy)
    return Finding("no worse on the reference rows", term.holds, f"{compared}; {bound}", (term,))


def _refit(measured: Measured, policy: GatePolicy) -> Iterator[Finding]:
    evaluation = measured.evaluation
    assert evaluation.champion is not None
    assert evaluation.reference is not None
    yield from _refit_holds(measured, evaluation.reference, policy)
    yield _agrees(evaluation.champion, policy)


def _refit_holds(measured: Measured, reference: Reference, policy: GatePolicy) -> Iterator[Finding]:
    """By accuracy or, if that does not decide, by each metric that does: most rows say nothing about a rare label."""
    if "accuracy" in policy.decided_by:
        yield _holds_on_reference(reference, policy)
        return
    for metric, gain in measured.gains:
        luck, name = NormalDist().inv_cdf(1 - policy.significance) * gain.error, measured.title(metric)
        compared = f"on {reference.rows} reference rows {name} is {_above(metric.sign * gain.gain)} the champion's"
        allowed = f"{policy.max_loss + luck:.4f} {metric.worse} is allowed"
        term = _loss(f"loss in {name} on reference rows, beyond chance", -gain.gain - luck, policy)
        sentence = f"{compared}; {allowed}: {policy.max_loss:g}, and what is within chance"
        yield Finding("no worse on the reference rows", term.holds, sentence, (term,))


def _agrees(rival: Rival, policy: GatePolicy) -> Finding:
    alike = sum(count for _, ours, theirs, count in rival.pairs if ours == theirs)
    share, bound = alike / sum(count for *_, count in rival.pairs), policy.min_refit_agreement
    term = Term("share of equal answers", share, "at least", bound, ("min_refit_agreement",))
    sentence = f"it answers {share:.4f} of them as version {rival.version} does, of {bound:g}"
    return Finding("answers like the evaluated version", term.holds, sentence, (term,))


def _only(pairs: Iterable[Pair]) -> tuple[int, int]:
    """The rows that only the challenger gets right, and only the champion."""
    ours = sum(count for true, ours, theirs, count in pairs if ours == true != theirs)
    return ours, sum(count for true, ours, theirs, count in pairs if theirs == true != ours)


def _either(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _above(difference: float) -> str:
    return f"{abs(difference):.4f} {'above' if difference >= 0 else 'below'}"
