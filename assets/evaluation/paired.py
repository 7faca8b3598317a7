"""Whether one model is better than another on the same rows, beyond what the draw of the rows explains.

Each row is answered by both, so rows that both get right or wrong say nothing: the tests use the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from assets.evaluation.criteria import Costs, Criterion, label_f1, priced

__all__ = ["Gain", "Pair", "compare", "compare_labels", "compare_probabilities", "mcnemar", "pair_up", "power"]

_RESAMPLES = 2000
_SEED = 0
"""The seed of the resampling, so that an evaluation always gets the same verdict."""

Pair = tuple[int, int, int, int]
"""True label, challenger's, champion's (as indices into all labels), and the number of such rows."""

_Counts = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """How much better the challenger is than the champion in a metric, and the standard error of that."""

    gain: float
    error: float

    def at_least(self, confidence: float) -> float:
        """The lower bound at this one-sided confidence, from the normal interval: few draws show no rare chances."""
        return self.gain - NormalDist().inv_cdf(confidence) * self.error


def pair_up(truth: _Counts, challenger: _Counts, champion: _Counts) -> tuple[Pair, ...]:
    """The rows of both models' answers, all [rows] of label codes, counted by truth and answers."""
    cells, rows = np.unique(np.stack([truth, challenger, champion], axis=1), axis=0, return_counts=True)
    return tuple((int(t), int(a), int(b), int(count)) for (t, a, b), count in zip(cells, rows, strict=True))


def compare(pairs: tuple[Pair, ...], metrics: Iterable[Criterion]) -> dict[str, Gain]:
    """Gains in the metrics of answers, by their names, with a paired bootstrap over rows.

    Rows are drawn again with both answers (Efron and Tibshirani 1993, chapter 16), as counts of their kinds.
    """
    cells, rows = _draw(pairs)
    truth, *sides = cells[:, :3].T
    return {
        metric.name: _gain(metric.sign * np.subtract(*(metric.of_answers(truth, side, rows) for side in sides)))
        for metric in metrics
        if metric.of_answers
    }


def compare_probabilities(
    truth: _Counts, challenger: _Floats, champion: _Floats, metrics: Iterable[Criterion]
) -> dict[str, Gain]:
    """Gains in the metrics of probabilities [rows, labels], by their names, with the same bootstrap over rows.

    A draw in which a metric cannot be computed, as there is no row of a label, does not count.
    """
    drawn = np.random.default_rng(_SEED).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), _RESAMPLES)
    rows = np.vstack([np.ones(len(truth), np.int64), drawn])
    return {
        metric.name: _gain(
            metric.sign * np.subtract(*(metric.of_probabilities(truth, side, rows) for side in (challenger, champion)))
        )
        for metric in metrics
        if metric.of_probabilities
    }


def compare_labels(pairs: tuple[Pair, ...], labels: Sequence[str], costs: Costs) -> dict[str, Gain]:
    """The gain of F1 on each label that is true of any row, with the same bootstrap; mistakes weigh what they cost."""
    cells, rows = _draw(pairs)
    truth, *sides = cells[:, :3].T
    gains = np.subtract(*(label_f1(truth, side, rows, priced(labels, costs)) for side in sides))
    return {labels[true]: _gain(gains[:, true]) for true in np.unique(truth)}


def _gain(gains: _Floats) -> Gain:
    """Of the rows as they are, which come first, and as they were drawn."""
    return Gain(float(gains[0]), float(np.nanstd(gains[1:])) if np.isfinite(gains[0]) else float("nan"))


@lru_cache(maxsize=1)
def _draw(pairs: tuple[Pair, ...]) -> tuple[_Counts, _Counts]:
    """The kinds of rows [kinds, 4], and how many of each there are and were drawn [1 + draws, kinds]."""
    cells = np.array(pairs, np.int64)
    counts = cells[:, 3]
    drawn = np.random.default_rng(_SEED).multinomial(counts.sum(), counts / counts.sum(), _RESAMPLES)
    return cells, np.vstack([counts, drawn])


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """The chance of so many rows, or more, that only ours gets right, if both were equally good (exact, one-sided).

    McNemar 1947, by the binomial distribution. 1 when there is no row that only one of them gets right.
    """
    from scipy.stats import binom  # type: ignore[import-untyped]

    return float(binom.sf(only_ours - 1, only_ours + only_theirs, 0.5))


def power(
    gain: npt.NDArray[np.float64], discordant: float, rows: int, level: float, min_gain: float
) -> npt.NDArray[np.float64]:
    """The chance that a challenger passes `mcnemar` at a level and gains `min_gain`, by its true gain of accuracy.

    discordant: the share of the rows that one model alone gets right.
    """
    from scipy.stats import binom

    decided = round(discordant * rows)
    enough = max(binom.isf(level, decided, 0.5) + 1, np.ceil((decided + min_gain * rows) / 2))
    ours = np.clip((1 + gain / discordant) / 2, 0.0, 1.0)
    return np.asarray(binom.sf(enough - 1, decided, ours), np.float64)
