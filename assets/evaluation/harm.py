"""Whether the challenger harms a part of the rows: a label, by F1, or what is known before an answer, by accuracy.

There are many parts with few rows. A part's observed gain is therefore shrunk towards zero, more so with fewer rows:
the posterior under a normal prior around zero (James and Stein 1961).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from assets.evaluation.criteria import Costs
from assets.evaluation.paired import compare_labels
from assets.evaluation.report import Evaluation
from assets.settings import GatePolicy

__all__ = ["Part", "paired_gain", "parts"]


@dataclass(frozen=True)
class Part:
    """The challenger's gain on a part of the rows."""

    by: str
    """`label`, or the dimension of a slice."""
    value: str
    rows: int
    gain: float
    """F1 of a label, accuracy of a slice: the challenger's minus the champion's."""
    error: float
    """The standard error of that."""

    @property
    def name(self) -> str:
        """The ledger's, whatever people call it."""
        return f"{self.by} {self.value}"

    def chance(self, policy: GatePolicy) -> float:
        """The chance that the true gain is below minus `max_part_loss`, if gains stray from zero by `part_spread`."""
        trust = policy.part_spread**2 / (policy.part_spread**2 + self.error**2)
        mean, deviation = trust * self.gain, policy.part_spread * math.sqrt(1 - trust)
        return 0.5 * math.erfc((policy.max_part_loss + mean) / (deviation * math.sqrt(2)))


def parts(evaluation: Evaluation, costs: Costs) -> list[Part]:
    """The labels, and the large enough slices, of an evaluation against a champion; mistakes weigh what they cost."""
    return [*_labels(evaluation, costs), *_slices(evaluation)] if evaluation.champion else []


def paired_gain(only_ours: int, only_theirs: int, rows: int) -> tuple[float, float]:
    """The gain in accuracy on rows that both have answered, and its standard error.

    Half a row is added to each of the four kinds of rows, so that few rows are not taken for certain (Agresti and Min
    2005).
    """
    ours, theirs, rows_ = only_ours + 0.5, only_theirs + 0.5, rows + 2
    variance = (ours + theirs - (ours - theirs) ** 2 / rows_) / rows_**2
    return (only_ours - only_theirs) / rows, math.sqrt(variance)


def _labels(evaluation: Evaluation, costs: Costs) -> Iterator[Part]:
    assert evaluation.champion is not None
    pairs, labels = evaluation.champion.pairs, evaluation.labels
    for label, gain in compare_labels(pairs, labels, costs).items():
        rows = sum(count for true, *_, count in pairs if labels[true] == label)
        # Resamples of a handful of rows are all alike: the error is at least that of one more row.
        yield Part("label", label, rows, gain.gain, math.hypot(gain.error, 1 / (rows + 1)))


def _slices(evaluation: Evaluation) -> Iterator[Part]:
    for part in evaluation.slices:
        if part.decides and part.champion is not None:
            gain, error = paired_gain(part.only_challenger, part.only_champion, part.rows)
            yield Part(part.by, part.value, part.rows, gain, error)
