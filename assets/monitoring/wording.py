"""Can a classifier tell the window's texts from the reference's? The one test that sees words trade places.

Descriptions of a text (its length, its unknown words) miss known words that become frequent; a domain classifier does
not (Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017). It is naive Bayes over the presence of words,
judged by its area under the ROC curve on texts that it was not fitted to. That area grows with the texts there are to
learn from, so every comparison here learns from as many; it is the surer, the more there are to judge by.

The window is compared with each stretch of the reference, and what counts is the stretch that it is hardest to tell
from: a December is like the December before, and after a change the window is like what the champion has learned of it.
Calm is how well stretches are told from the others that are most like them, without the ones that are least like any:
a single change within the training, or a season, is no measure of calm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
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
"""Texts with a word, and as many without it, that either side is taken to have more: rare words weigh little."""

_FEW = 5
"""Of so many stretches one is left out of what is calm, of more of them two: a change may come within one."""


def hash_words(narratives: Iterable[str]) -> csr_matrix:
    """One row a narrative of unit length: which words of three letters or more it has, hashed, without redactions."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = partial(HashingVectorizer, n_features=_BUCKETS, alternate_sign=False, binary=True, dtype=np.float32)
    return csr_matrix(hashing(token_pattern=_WORD).transform(narratives))


def wording_rows(reference: int, current: int, settings: DriftSettings) -> int:
    """Texts of either side that there are at least: the window's, or those of one of the fewest stretches."""
    return min(current, reference // settings.blocks)


def measure_wording(reference: csr_matrix, current: csr_matrix, parts: int, settings: DriftSettings) -> Column | None:
    """The area under the ROC curve, 0.5 for none, on hashed words of both sides, in order of time.

    parts: stretches of the reference, of which there are fewer where they would have fewer than `min_rows` texts. None
    when either side has too few.
    """
    if wording_rows(reference.shape[0], current.shape[0], settings) < settings.min_rows:
        return None
    parts = min(parts, reference.shape[0] // settings.min_rows)
    size = min(current.shape[0], reference.shape[0] // parts)
    sides = [_Texts.of(reference[part], size // 2) for part in stretches(reference.shape[0], parts)]
    window = _Texts.of(current, size // 2)
    found = min(_tell_apart(side, window) for side in sides)
    calm = _calm(sides, window, settings.calm_confidence)
    threshold = max(settings.wording_threshold, calm)
    return Column("domain_classifier", "wording", "auc", found, calm, threshold, found >= threshold)


@dataclass(frozen=True)
class _Texts:
    """Texts in two halves: each is judged by what the other has taught."""

    halves: tuple[csr_matrix, csr_matrix]
    rates: tuple[Floats, Floats]
    """Logarithms of the share of a half's texts with each word, [buckets]."""

    @classmethod
    def of(cls, texts: csr_matrix, learned: int) -> "_Texts":
        """With at most so many texts of each half to learn from."""
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
    """The chance that a score of the right is larger than one of the left (Mann and Whitney)."""
    ranks = rankdata(np.concatenate([left, right]))[len(left) :]
    return float((ranks.mean() - (len(right) + 1) / 2) / len(left))


def _noise(left: _Texts, right: _Texts) -> float:
    """The standard error of an area where nothing tells the sides apart."""
    return sqrt((1 / len(left) + 1 / len(right)) / 12)


def _calm(sides: list[_Texts], window: _Texts, confidence: float) -> float:
    """The area that the window may have against the stretch it is most like.

    What stretches differ by beyond the noise of so many texts is their liveliness, for which the limit is Student's.
    """
    apart = np.full((len(sides), len(sides)), np.inf)
    for one in range(len(sides)):
        for other in range(one):
            apart[one, other] = apart[other, one] = _tell_apart(sides[other], sides[one])
    nearest = np.sort(apart.min(axis=1))[: -1 if len(sides) <= _FEW else -2]
    lively = max(float(nearest.var(ddof=1)) - _noise(sides[0], sides[1]) ** 2, 0.0) * (1 + 1 / len(nearest))
    beyond = float(stdtrit(len(nearest) - 1, confidence)) ** 2 * lively
    return float(nearest.mean()) + sqrt(beyond + (float(ndtri(confidence)) * _noise(sides[0], window)) ** 2)
