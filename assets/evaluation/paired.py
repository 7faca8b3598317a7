"""Whether one model is better than another on the same rows, beyond what the draw of the rows explains.

Each row is answered by both, so that what both get right or wrong says nothing: the tests rest on the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assets.settings import QUEUES

__all__ = ["Gain", "Pair", "compare", "holm", "mcnemar", "pair_up"]

_RESAMPLES = 2000
_SEED = 0
"""Of the resampling, so that one evaluation always gets one verdict."""

Pair = tuple[int, int, int, int]
"""True queue, challenger's, champion's (as indices into QUEUES), and how many rows are so."""

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gain:
    """A metric of the challenger minus the champion's: as it is, and on rows drawn again."""

    gain: float
    drawn: npt.NDArray[np.float64]

    def at_least(self, confidence: float) -> float:
        """What it exceeds with this confidence, one-sided."""
        return float(np.quantile(self.drawn, 1 - confidence))


def pair_up(truth: _Counts, challenger: _Counts, champion: _Counts) -> tuple[Pair, ...]:
    """The rows of both models' answers, all [rows] of queue codes, counted by truth and answers."""
    cells, rows = np.unique(np.stack([truth, challenger, champion], axis=1), axis=0, return_counts=True)
    return tuple((int(t), int(a), int(b), int(count)) for (t, a, b), count in zip(cells, rows, strict=True))


def compare(pairs: Sequence[Pair]) -> dict[str, Gain]:
    """Gains of accuracy and macro-F1, with a paired bootstrap over rows.

    Rows are drawn again with both answers (Efron and Tibshirani 1993, chapter 16), as counts of their kinds. Macro-F1
    is the mean over the queues that are true of any row drawn.
    """
    cells = np.array(pairs, np.int64)
    counts = cells[:, 3]
    drawn = np.random.default_rng(_SEED).multinomial(counts.sum(), counts / counts.sum(), _RESAMPLES)
    rows = np.vstack([counts, drawn])
    found = {}
    for name, metric in (("accuracy", _accuracy), ("macro_f1", _macro_f1)):
        gain, *gains = metric(cells, rows, 1) - metric(cells, rows, 2)
        found[name] = Gain(float(gain), np.array(gains))
    return found


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """The chance of so many rows, or more, that only ours gets right, if both were equally good (exact, one-sided).

    McNemar 1947, by the binomial distribution. 1 when there is no row that only one of them gets right.
    """
    from scipy.stats import binom  # type: ignore[import-untyped]

    return float(binom.sf(only_ours - 1, only_ours + only_theirs, 0.5))


def holm(chances: Sequence[float], level: float) -> list[bool]:
    """Which findings hold when all together may be wrong with probability `level` (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    steps = np.array(chances)[order] <= level / np.arange(len(chances), 0, -1)
    holds = np.empty(len(chances), bool)
    holds[order] = np.logical_and.accumulate(steps)
    return holds.tolist()


def _accuracy(cells: _Counts, drawn: _Counts, column: int) -> npt.NDArray[np.float64]:
    right = cells[:, 0] == cells[:, column]
    return np.asarray(drawn[:, right].sum(axis=1) / drawn.sum(axis=1))


def _macro_f1(cells: _Counts, drawn: _Counts, column: int) -> npt.NDArray[np.float64]:
    """[draws] means over the queues that are true of a row."""
    right = np.where(cells[:, 0] == cells[:, column], cells[:, 0], -1)
    true, predicted, both = (drawn @ _one_hot(codes) for codes in (cells[:, 0], cells[:, column], right))
    f1 = 2 * both / np.maximum(true + predicted, 1)
    return np.asarray(f1.sum(axis=1) / (true > 0).sum(axis=1))


def _one_hot(codes: _Counts) -> npt.NDArray[np.float64]:
    return np.asarray(codes[:, None] == np.arange(len(QUEUES)), np.float64)
