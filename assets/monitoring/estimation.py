"""Estimates the quality of the champion's answers before labels arrive: confidence-based performance estimation (CBPE).

The chance that an answer is right is its confidence, calibrated on the champion's evaluated test rows by isotonic
regression (Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability estimates, 2002),
and shifted so that the expected number of right answers per label equals the observed one: a rare label that a model
predicts too readily gets as much confidence as others, and is right less often. Its mean is the expected accuracy, as
in NannyML's estimator of the same name. It detects that a window is harder than the test rows; it cannot detect that
the same text now belongs to another label, or that the model has become overconfident.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from assets.evaluation.metrics import macro_f1_of

__all__ = ["Answers", "Estimate", "LabelEstimate", "chances", "estimate_quality"]

Floats = npt.NDArray[np.float64]

_PRIOR_ROWS = 5
"""Pseudo-answers added to each label, right as often as all answers of their confidence."""


@dataclass(frozen=True)
class Answers:
    """A model's answers: the label of each row and its probability, both [rows]."""

    labels: npt.NDArray[Any]
    confidence: Floats

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class LabelEstimate:
    """The expected quality of a label; shares are 0 where it is never answered, or none of its rows is expected."""

    label: str
    rows: float
    """Rows that truly have the label."""
    precision: float
    recall: float


@dataclass(frozen=True)
class Estimate:
    """The expected quality of some answers, from 0 to 1."""

    accuracy: float
    by_threshold: float
    """The accuracy by the average thresholded confidence."""
    macro_f1: float
    """The mean over labels with half an expected row or more."""
    labels: tuple[LabelEstimate, ...] = ()
    """Sorted by name."""


def estimate_quality(truth: npt.NDArray[Any], evaluated: Answers, window: Answers) -> Estimate:
    """The expected quality of a window, from the answers of the evaluation, whose `truth` [rows] is known.

    Raises ValueError when either has no rows.
    """
    if not len(evaluated) or not len(window):
        raise ValueError(f"{len(evaluated)} evaluated and {len(window)} rows of a window: nothing to estimate from")
    chance = chances(truth, evaluated, window)
    labels = np.unique(np.concatenate([truth, evaluated.labels, window.labels]))
    mistakes = _mistakes(truth, evaluated.labels, labels)
    sure = float((window.confidence >= _threshold(truth, evaluated)).mean())
    table = _expected(chance, window.labels, labels, mistakes)
    return Estimate(float(chance.mean()), sure, macro_f1_of(table), tuple(_labels(table, labels)))


def chances(truth: npt.NDArray[Any], evaluated: Answers, window: Answers) -> Floats:
    """The chance of each answer of a window being right, [rows]."""
    from scipy.special import expit, logit  # type: ignore[import-untyped]
    from sklearn.isotonic import IsotonicRegression

    calibration = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    right = truth == evaluated.labels
    calibration.fit(evaluated.confidence, right)
    known, chance = (np.asarray(calibration.predict(side.confidence), np.float64) for side in (evaluated, window))
    least = 1 / (2 * len(known))
    for label in np.unique(window.labels):
        own = evaluated.labels == label
        expected = known[own].sum()
        wanted = expected + (right[own].sum() - expected) * own.sum() / (own.sum() + _PRIOR_ROWS)
        if own.any() and wanted != expected:
            odds = logit(np.clip(known[own], least, 1 - least))
            moved = logit(np.clip(chance[window.labels == label], least, 1 - least)) + _shift(odds, wanted)
            chance[window.labels == label] = expit(moved)
    return chance


def _shift(odds: Floats, wanted: float) -> float:
    """The shift of log-odds with which the expected number of right answers is the wanted one."""
    from scipy.optimize import brentq  # type: ignore[import-untyped]
    from scipy.special import expit

    bounds = 0.5, len(odds) - 0.5
    return float(brentq(lambda shift: expit(odds + shift).sum() - np.clip(wanted, *bounds), -40, 40))


def _threshold(truth: npt.NDArray[Any], evaluated: Answers) -> float:
    """The confidence that as many of the evaluation's answers reach as are right."""
    right = int((truth == evaluated.labels).sum())
    return float(np.sort(evaluated.confidence)[-right]) if right else np.inf


def _mistakes(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Floats:
    """[predicted label, true label]: the shares of the true labels among a label's wrong answers.

    The labels' own frequencies count as one more mistake, so that a label without any also has shares.
    """
    rows, columns = (np.searchsorted(labels, side) for side in (predicted, truth))
    counts = np.tile(np.bincount(columns, minlength=len(labels)) / len(columns), (len(labels), 1))
    np.add.at(counts, (rows, columns), 1.0)
    np.fill_diagonal(counts, 0.0)
    # If the evaluation has a single label, nothing shows what a mistake would be: any other label.
    counts[counts.sum(axis=1) == 0] = 1.0
    return np.asarray(counts / counts.sum(axis=1, keepdims=True), dtype=np.float64)


def _expected(chance: Floats, predicted: npt.NDArray[Any], labels: npt.NDArray[Any], mistakes: Floats) -> Floats:
    """The expected rows, by true label (down) and predicted label (across)."""
    places = np.searchsorted(labels, predicted)
    right, answered = (np.bincount(places, side, len(labels)) for side in (chance, None))
    return np.asarray((mistakes * (answered - right)[:, None]).T + np.diag(right), np.float64)


def _labels(table: Floats, labels: npt.NDArray[Any]) -> Iterator[LabelEstimate]:
    for place, label in enumerate(labels):
        right, true, answered = table[place, place], table[place].sum(), table[:, place].sum()
        shares = (float(right / rows) if rows else 0.0 for rows in (answered, true))
        yield LabelEstimate(str(label), float(true), *shares)
