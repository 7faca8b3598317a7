"""Whether one model is better than another on the same rows, beyond what the draw of the rows explains.

Each row is answered by both, so that what both get right or wrong says nothing: the tests rest on the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["Costs", "Gain", "Pair", "compare", "compare_labels", "mcnemar", "pair_up", "power"]

_RESAMPLES = 2000
_SEED = 0
"""Of the resampling, so that one evaluation always gets one verdict."""

Pair = tuple[int, int, int, int]
"""True label, challenger's, champion's (as indices into all labels), and how many rows are so."""

Costs = Mapping[str, Mapping[str, float]]
"""What an answer costs, by the true label and the label that was answered; 1 where nothing is said."""

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gain:
    """A metric of the challenger minus the champion's: as it is, and on rows drawn again."""

    gain: float
    drawn: npt.NDArray[np.float64]

    def at_least(self, confidence: float) -> float:
        """What it exceeds with this confidence, one-sided: the normal interval, as few draws show no rare chances."""
        return self.gain - NormalDist().inv_cdf(confidence) * self.error

    @property
    def error(self) -> float:
        """Its standard error."""
        return float(self.drawn.std())


def pair_up(truth: _Counts, challenger: _Counts, champion: _Counts) -> tuple[Pair, ...]:
    """The rows of both models' answers, all [rows] of label codes, counted by truth and answers."""
    cells, rows = np.unique(np.stack([truth, challenger, champion], axis=1), axis=0, return_counts=True)
    return tuple((int(t), int(a), int(b), int(count)) for (t, a, b), count in zip(cells, rows, strict=True))


def compare(pairs: tuple[Pair, ...]) -> dict[str, Gain]:
    """Gains of accuracy and macro-F1, with a paired bootstrap over rows.

    Rows are drawn again with both answers (Efron and Tibshirani 1993, chapter 16), as counts of their kinds. Macro-F1
    is the mean over the labels that are true of any row drawn.
    """
    cells, rows = _draw(pairs)
    found = {}
    for name, metric in (("accuracy", _accuracy), ("macro_f1", _macro_f1)):
        gain, *gains = metric(cells, rows, 1) - metric(cells, rows, 2)
        found[name] = Gain(float(gain), np.array(gains))
    return found


def compare_labels(pairs: tuple[Pair, ...], labels: Sequence[str], costs: Costs) -> dict[str, Gain]:
    """The gain of F1 on each label that is true of any row, with the same bootstrap; mistakes weigh what they cost."""
    cells, rows = _draw(pairs)
    weights = [[costs.get(true, {}).get(answer, 1.0) for answer in labels] for true in labels]
    gains = np.subtract(*(_f1(cells, rows, column, np.array(weights)) for column in (1, 2)))
    return {labels[true]: Gain(float(gains[0, true]), gains[1:, true]) for true in np.unique(cells[:, 0])}


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


def _accuracy(cells: _Counts, drawn: _Counts, column: int) -> npt.NDArray[np.float64]:
    right = cells[:, 0] == cells[:, column]
    return np.asarray(drawn[:, right].sum(axis=1) / drawn.sum(axis=1))


def _macro_f1(cells: _Counts, drawn: _Counts, column: int) -> npt.NDArray[np.float64]:
    """[draws] means over the labels that are true of a row."""
    size = int(cells[:, :3].max()) + 1
    f1, true = _f1(cells, drawn, column, np.ones((size, size))), drawn @ _one_hot(cells[:, 0], size)
    return np.asarray(f1.sum(axis=1) / (true > 0).sum(axis=1))


def _f1(cells: _Counts, drawn: _Counts, column: int, costs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[draws, labels]: right answers against mistakes to and from a label, which weigh costs [true, answered]."""
    right, wrong = cells[:, 0] == cells[:, column], costs[cells[:, 0], cells[:, column]]
    true, answered = (_one_hot(cells[:, side], len(costs)) for side in (0, column))
    both = drawn @ (true * right[:, None])
    mistakes = drawn @ ((true + answered) * (wrong * ~right)[:, None])
    return np.asarray(2 * both / np.maximum(2 * both + mistakes, np.finfo(np.float64).tiny))


def _one_hot(codes: _Counts, size: int) -> npt.NDArray[np.float64]:
    return np.asarray(codes[:, None] == np.arange(size), np.float64)
