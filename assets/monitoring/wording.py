"""Can a classifier tell the window's texts from the reference's? The one test that sees words trade places.

Descriptions of a text (its length, its unknown words) miss known words that become frequent; a domain classifier does
not (Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017). It is judged by its area under the ROC curve
on texts that it was not fitted to. That area grows with the texts there are to learn from, so every comparison here
has the same number on both sides: the window with the reference, and each stretch of the reference with its rest.
"""

from collections.abc import Iterable
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, vstack  # type: ignore[import-untyped]

from assets.monitoring.columns import prediction_limit, spread, stretches
from assets.monitoring.comparison import Column
from assets.settings import DriftSettings

__all__ = ["calm_wording", "hash_words", "measure_wording", "wording_rows"]

_BUCKETS = 2**16
_FOLDS = 5
_WORD = r"(?<![a-z])(?!xx)[a-z]{3,}"


def hash_words(narratives: Iterable[str]) -> csr_matrix:
    """One row a narrative of unit length: which words of three letters or more it has, hashed, without redactions."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = partial(HashingVectorizer, n_features=_BUCKETS, alternate_sign=False, binary=True, dtype=np.float32)
    return csr_matrix(hashing(token_pattern=_WORD).transform(narratives))


def wording_rows(reference: int, current: int, settings: DriftSettings) -> int:
    """Texts of either side of a comparison: what the window, and what a stretch of the reference can give."""
    return min(settings.wording_rows, current, reference // settings.blocks)


def measure_wording(
    reference: csr_matrix, current: csr_matrix, settings: DriftSettings, calm: float | None = None
) -> Column | None:
    """The area under the ROC curve, 0.5 for none, on hashed words of both sides, in order of time.

    None when either side of a comparison would have fewer than `min_rows` texts. `calm` is what `calm_wording` has
    found before, for as many texts: it takes most of the time.
    """
    size = wording_rows(reference.shape[0], current.shape[0], settings)
    if size < settings.min_rows:
        return None
    found = _tell_apart(reference[spread(reference.shape[0], size)], current[spread(current.shape[0], size)])
    calm = calm_wording(reference, size, settings) if calm is None else calm
    threshold = max(settings.wording_threshold, calm)
    return Column("domain_classifier", "wording", "auc", found, calm, threshold, found >= threshold)


def calm_wording(reference: csr_matrix, size: int, settings: DriftSettings) -> float:
    """The area that `size` more texts may have against the reference, judged by its own stretches."""
    parts = stretches(reference.shape[0], settings.blocks)
    return prediction_limit(np.array([_stretch(reference, part, size) for part in parts]), settings.calm_confidence)


def _stretch(reference: csr_matrix, part: npt.NDArray[np.int64], size: int) -> float:
    """A stretch of the reference against the rest of it."""
    rest = np.delete(np.arange(reference.shape[0]), part)
    return _tell_apart(reference[rest[spread(len(rest), size)]], reference[part[spread(len(part), size)]])


def _tell_apart(left: csr_matrix, right: csr_matrix) -> float:
    """The mean area over the folds, each scored by a regression that was fitted to the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    side = np.repeat([0, 1], [left.shape[0], right.shape[0]])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(solver="liblinear", random_state=0)
    areas = cross_val_score(model, vstack([left, right], format="csr"), side, cv=folds, scoring="roc_auc")
    return float(areas.mean())
