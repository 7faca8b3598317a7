"""Can a classifier separate the window's texts from the reference's? The only test that detects a change of wording.

Descriptions of a text (its length, its unknown words) miss known words that become frequent; a domain classifier does
not (Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017). It is naive Bayes over the presence of words,
judged by its area under the ROC curve on texts it was not fitted to. That area grows with the number of texts to learn
from, so every comparison here learns from equally many; with more texts to judge by, it is more precise.

The window is compared with each block of the reference, and the most similar blocks count: a December is like the
December before, and after a change the window is like what the champion has learned of it. All blocks that may by
chance be the most similar one count together: the smallest of many areas would be small by luck, the more so with more
blocks. Calm is how well blocks are separated from the others most like them, leaving out those least like any: a single
change within the training, or a season, is no measure of calm.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]
from scipy.stats import rankdata  # type: ignore[import-untyped]

from assets.monitoring.columns import spread, stretches
from assets.monitoring.comparison import Column
from assets.settings import DriftSettings

__all__ = ["hash_words", "measure_wording", "wording_rows"]

Floats = npt.NDArray[np.float64]

_BUCKETS = 2**16
_WORD = r"(?<![a-z])(?!xx)[a-z]{3,}"
_SMOOTHING = 2.0
"""Pseudo-texts with each word, and as many without it, added to either side: rare words get little weight."""

_FEW = 5
"""Up to this many blocks, one is left out of what is calm, and with more blocks two: a change may fall within one."""


def hash_words(texts: Iterable[str]) -> csr_matrix:
    """A row of unit length per text: the hashed words of three or more letters that it has, without redactions."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = partial(HashingVectorizer, n_features=_BUCKETS, alternate_sign=False, binary=True, dtype=np.float32)
    return csr_matrix(hashing(token_pattern=_WORD).transform(texts))


def wording_rows(reference: int, current: int, settings: DriftSettings) -> int:
    """The number of texts available on either side: the window's, or those of the largest possible block."""
    return min(current, reference // settings.blocks)


def measure_wording(reference: csr_matrix, current: csr_matrix, parts: int, settings: DriftSettings) -> Column | None:
    """The area under the ROC curve, 0.5 for no difference, on hashed words of both sides, in order of time.

    `parts`: blocks of the reference; there are fewer if they would have fewer than `min_rows` texts. None when either
    side has too few.
    """
    if wording_rows(reference.shape[0], current.shape[0], settings) < settings.min_rows:
        return None
    parts = min(parts, reference.shape[0] // settings.min_rows)
    size = min(current.shape[0], reference.shape[0] // parts)
    sides = [_Texts.of(reference[part], size // 2) for part in stretches(reference.shape[0], parts)]
    window = _Texts.of(current, size // 2)
    area, like = _nearest(np.array([_tell_apart(side, window) for side in sides]), sides[0], window, settings)
    calm = _calm(sides, _noise(like * len(sides[0]), len(window)), settings)
    threshold = max(settings.wording_threshold, calm)
    note = f"{len(window):,} texts of the window, {len(sides[0]):,} of each of {parts} parts of the training period"
    return Column("domain_classifier", "wording", "auc", area, calm, threshold, area >= threshold, note)


@dataclass(frozen=True)
class _Texts:
    """Texts in two halves: each is judged by a classifier trained on the other."""

    halves: tuple[csr_matrix, csr_matrix]
    rates: tuple[Floats, Floats]
    """Logarithms of the share of a half's texts with each word, [buckets]."""

    @classmethod
    def of(cls, texts: csr_matrix, learned: int) -> "_Texts":
        """The same with at most this many texts of each half to learn from."""
        halves = texts[::2], texts[1::2]
        first, second = (_rates(half[spread(half.shape[0], learned)]) for half in halves)
        return cls(halves, (first, second))

    def __len__(self) -> int:
        return int(sum(half.shape[0] for half in self.halves))


def _rates(texts: csr_matrix) -> Floats:
    present = np.bincount(texts.indices, minlength=_BUCKETS)
    return np.asarray(np.log((present + _SMOOTHING) / (texts.shape[0] + 2 * _SMOOTHING)), dtype=np.float64)


def _tell_apart(left: _Texts, right: _Texts) -> float:
    """The mean area of both halves."""
    areas = []
    for taught, judged in ((0, 1), (1, 0)):
        weights = right.rates[taught] - left.rates[taught]
        areas.append(_area(left.halves[judged] @ weights, right.halves[judged] @ weights))
    return float(np.mean(areas))


def _area(left: Floats, right: Floats) -> float:
    """The chance that a score on the right exceeds one on the left (Mann and Whitney)."""
    ranks = rankdata(np.concatenate([left, right]))[len(left) :]
    return float((ranks.mean() - (len(right) + 1) / 2) / len(left))


def _nearest(areas: Floats, side: _Texts, texts: _Texts, settings: DriftSettings) -> tuple[float, int]:
    """The mean area of the blocks that may be the most similar one, and their number."""
    chance = float(ndtri(settings.calm_confidence)) * _noise(len(side), len(texts))
    like = areas[areas <= areas.min() + chance]
    return float(like.mean()), len(like)


def _noise(left: int, right: int) -> float:
    """The standard error of an area over this many texts when nothing distinguishes the sides.

    It is that of one half: each half teaches about the other what the other teaches about it, so both areas agree
    (correlation 0.94 in 150 pairs of 2,000 texts each, standard error 0.0133 for 0.0129).
    """
    return sqrt((1 / left + 1 / right) / 6)


def _calm(sides: list[_Texts], noise: float, settings: DriftSettings) -> float:
    """The area that the window may have against the blocks most like it, given its noise.

    Differences between blocks beyond the noise of their texts are natural variability, with Student's limit.
    """
    nearest = [_nearest(areas, sides[0], sides[0], settings) for areas in _between(sides)]
    calm = sorted(nearest)[: -1 if len(sides) <= _FEW else -2]
    areas, size = np.array([area for area, _ in calm]), len(sides[0])
    chance = float(np.mean([_noise(like * size, size) ** 2 for _, like in calm]))
    lively = max(float(areas.var(ddof=1)) - chance, 0.0) * (1 + 1 / len(areas))
    beyond = float(stdtrit(len(areas) - 1, settings.calm_confidence)) ** 2 * lively
    return max(float(areas.mean()), 0.5) + sqrt(beyond + (float(ndtri(settings.calm_confidence)) * noise) ** 2)


def _between(sides: list[_Texts]) -> Iterator[Floats]:
    """The areas of each block against the others, [blocks - 1]."""
    apart = np.zeros((len(sides), len(sides)))
    for one, other in combinations(range(len(sides)), 2):
        apart[one, other] = apart[other, one] = _tell_apart(sides[one], sides[other])
    return (np.delete(row, place) for place, row in enumerate(apart))
