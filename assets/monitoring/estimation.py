"""What the champion's answers are worth before their labels arrive: confidence-based performance estimation (CBPE).

The chance that an answer is right is its confidence, calibrated on the champion's evaluated test rows by isotonic
regression (Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability estimates, 2002).
Its mean is the accuracy to expect, as in NannyML's estimator of the same name. It sees that a window is harder than
the test rows were; it cannot see that the same text now belongs to another label, nor that the model has become surer
than it is right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from assets.evaluation.metrics import macro_f1_of

__all__ = ["Answers", "Estimate", "chances", "estimate_quality"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a model answered: the label of each row and the model's probability of it, both [rows]."""

    labels: npt.NDArray[Any]
    confidence: Floats

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Estimate:
    """What the quality of some answers is expected to be, both 0 to 1."""

    accuracy: float
    by_threshold: float
    """The accuracy by the average thresholded confidence."""
    macro_f1: float
    """The mean over the labels that half a row or more is expected to belong to."""


def estimate_quality(truth: npt.NDArray[Any], evaluated: Answers, window: Answers) -> Estimate:
    """The quality to expect of a window, by the answers of the evaluation, whose `truth` [rows] is known.

    Raises ValueError when either has no rows.
    """
    if not len(evaluated) or not len(window):
        raise ValueError(f"{len(evaluated)} evaluated and {len(window)} rows of a window: nothing to estimate by")
    chance = chances(truth, evaluated, window)
    labels = np.unique(np.concatenate([truth, evaluated.labels, window.labels]))
    mistakes = _mistakes(truth, evaluated.labels, labels)
    sure = float((window.confidence >= _threshold(truth, evaluated)).mean())
    table = _expected(chance, window.labels, labels, mistakes)
    return Estimate(float(chance.mean()), sure, macro_f1_of(table))


def chances(truth: npt.NDArray[Any], evaluated: Answers, window: Answers) -> Floats:
    """The chance that each answer of a window is right, [rows]."""
    from sklearn.isotonic import IsotonicRegression

    calibration = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    calibration.fit(evaluated.confidence, truth == evaluated.labels)
    return np.asarray(calibration.predict(window.confidence), dtype=np.float64)


def _threshold(truth: npt.NDArray[Any], evaluated: Answers) -> float:
    """The confidence that as many of the evaluation's answers reach as are right."""
    right = int((truth == evaluated.labels).sum())
    return float(np.sort(evaluated.confidence)[-right]) if right else np.inf


def _mistakes(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Floats:
    """[predicted label, true label]: the shares of the labels among a label's wrong answers.

    The labels' own frequencies count for one more mistake, so that a label without any has shares, too.
    """
    rows, columns = (np.searchsorted(labels, side) for side in (predicted, truth))
    counts = np.tile(np.bincount(columns, minlength=len(labels)) / len(columns), (len(labels), 1))
    np.add.at(counts, (rows, columns), 1.0)
    np.fill_diagonal(counts, 0.0)
    # Where the evaluation has a single label, nothing says what a mistake would be: any other label.
    counts[counts.sum(axis=1) == 0] = 1.0
    return np.asarray(counts / counts.sum(axis=1, keepdims=True), dtype=np.float64)


def _expected(chance: Floats, predicted: npt.NDArray[Any], labels: npt.NDArray[Any], mistakes: Floats) -> Floats:
    """The rows to expect, by true label (down) and predicted label (across)."""
    places = np.searchsorted(labels, predicted)
    right, answered = (np.bincount(places, side, len(labels)) for side in (chance, None))
    return np.asarray((mistakes * (answered - right)[:, None]).T + np.diag(right), np.float64)
