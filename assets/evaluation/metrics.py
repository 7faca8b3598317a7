"""How good predicted probabilities are: overall, in bins of confidence, and on slices of the test rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from assets.settings import Domain

__all__ = [
    *("Bin", "LabelScores", "Metrics", "Slice", "average_precision", "confusion", "correct", "counted"),
    *("f1", "label_scores", "macro_f1", "macro_f1_of", "measure", "reliability", "slices"),
]

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_TOP = 10
_LENGTHS = {"under 300": (0, 300), "300 to 799": (300, 800), "800 to 1999": (800, 2000), "2000 and more": (2000, None)}
_TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Metrics:
    """Quality over some rows. Log loss is in nats; `ece` is the expected calibration error, 0 to 1."""

    rows: int
    accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    others: dict[str, float] = field(default_factory=dict)
    """Other metrics that decide, by their names in `GatePolicy.decided_by`."""

    def value(self, name: str) -> float:
        """The value of a metric by its name; NaN when it was not measured."""
        return self.others.get(name, float(getattr(self, name, np.nan)))


@dataclass(frozen=True)
class LabelScores:
    """The quality on a label. Shares are 0 where it was never answered, or is never true."""

    label: str
    rows: int
    """Test rows with this true label."""
    expected: float
    """The sum of its probabilities: as many rows as the model expects."""
    precision: float
    recall: float
    f1: float
    average_precision: float
    """The area under its precision-recall curve; for answers drawn by lot, its share of the rows."""
    ece: float
    """Expected calibration error of its own probability, 0 to 1; of a rare label it is small by itself."""


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence lies in (low, high]: their mean confidence and the share that is right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Slice:
    """Some of the test rows: `by` is the dimension, `value` the part of it, `mask` [rows] which rows they are."""

    by: str
    value: str
    mask: npt.NDArray[np.bool_]

    @property
    def rows(self) -> int:
        return int(self.mask.sum())


def correct(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The rows [rows] whose most probable label is right."""
    return np.asarray(probabilities.argmax(axis=1) == truth)


def confusion(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows by true label (down) and predicted label (across), [labels, labels]."""
    size = probabilities.shape[1]
    pairs = np.bincount(truth * size + probabilities.argmax(axis=1), minlength=size * size)
    return pairs.astype(np.int64).reshape(size, size)


def counted(truth: npt.ArrayLike, answers: npt.ArrayLike, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """The confusion table of labels by name [kinds], with `rows` of each kind, by default one."""
    names, codes = np.unique(np.concatenate([truth, answers]).astype(str), return_inverse=True)
    true, answered = np.split(codes, 2)
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (true, answered), 1 if rows is None else np.asarray(rows, np.int64))
    return table


def measure(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], bins: int) -> Metrics:
    """Metrics of probabilities [rows, labels] against true codes [rows].

    Numbers that cannot be computed (no rows, probabilities that are not finite) come out as NaN.
    """
    if not len(truth) or not np.isfinite(probabilities).all():
        nan = float("nan")
        return Metrics(len(truth), nan, nan, nan, nan)
    chosen = np.clip(probabilities[np.arange(len(truth)), truth], _TINY, 1.0)
    gaps = [part.rows * abs(part.accuracy - part.confidence) for part in reliability(truth, probabilities, bins)]
    return Metrics(
        rows=len(truth),
        accuracy=float(correct(truth, probabilities).mean()),
        macro_f1=macro_f1_of(confusion(truth, probabilities)),
        log_loss=float(-np.log(chosen).mean()),
        ece=sum(gaps) / len(truth),
    )


def f1(right: Floats, mistakes: Floats) -> Floats:
    """F1 by right answers and mistakes, those from a label and those to it; 0 where there are neither."""
    return np.asarray(2 * right / np.maximum(2 * right + mistakes, np.finfo(np.float64).tiny), np.float64)


def macro_f1(right: Floats, mistakes: Floats, true: Floats) -> Floats:
    """[...] mean F1 of [..., labels] over the labels that have a row: one without would add a zero.

    An expected count is a row from one half on.
    """
    occurs = true >= 0.5
    return np.asarray((f1(right, mistakes) * occurs).sum(axis=-1) / occurs.sum(axis=-1), np.float64)


def macro_f1_of(table: npt.NDArray[Any]) -> float:
    """Macro-F1 of rows, counted or expected, by true label (down) and predicted label (across)."""
    right, true, answered = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    return float(macro_f1(right, true + answered - 2 * right, true))


def label_scores(truth: Codes, probabilities: Floats, labels: Sequence[str], bins: int) -> list[LabelScores]:
    """The quality on each label that is true of any row, rarest first. Probabilities are [rows, labels], and finite."""
    table = confusion(truth, probabilities)
    true, answered, right = table.sum(axis=1), table.sum(axis=0), np.diag(table)
    return [
        LabelScores(
            label=labels[code],
            rows=int(true[code]),
            expected=float(probabilities[:, code].sum()),
            precision=float(right[code] / max(answered[code], 1)),
            recall=float(right[code] / true[code]),
            f1=float(2 * right[code] / (true[code] + answered[code])),
            average_precision=float(average_precision(truth == code, probabilities[:, code])[0]),
            ece=_label_ece(truth == code, probabilities[:, code], bins),
        )
        for code in np.argsort(true, kind="stable").tolist()
        if true[code]
    ]


def average_precision(
    positive: npt.NDArray[np.bool_], score: Floats, weights: npt.NDArray[Any] | None = None
) -> Floats:
    """[draws] areas under the precision-recall curve, of rows weighted by `weights` [draws, rows], by default 1.

    Precision at each score that a positive row has, weighted by the recall that it adds; rows of equal score are one
    step. NaN in a draw without a positive row.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    drawn = (np.ones((1, len(score))) if weights is None else weights)[:, order]
    hits = np.cumsum(drawn * positive[order], axis=1)[:, ends]
    answered = np.cumsum(drawn, axis=1)[:, ends]
    steps = np.diff(hits, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray((steps * hits / np.maximum(answered, 1)).sum(axis=1) / hits[:, -1], np.float64)


def reliability(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], bins: int) -> list[Bin]:
    """Equal-width bins of confidence that have rows, lowest first; none when a probability is not finite.

    The expected calibration error over them is that of Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    if not np.isfinite(probabilities).all():
        return []
    confidence, right = probabilities.max(axis=1), correct(truth, probabilities)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    filled = []
    for number in np.unique(place):
        inside = place == number
        means = float(confidence[inside].mean()), float(right[inside].mean())
        filled.append(Bin(float(number / bins), float((number + 1) / bins), int(inside.sum()), *means))
    return filled


def slices(rows: pd.DataFrame, domain: Domain) -> list[Slice]:
    """The slices of test rows: by label, by the domain's columns, by month and by the length of the text in characters.

    `rows` needs the columns of the domain.
    """
    length = rows["text"].str.len()
    return [
        *_by_value("label", rows["label"]),
        *(part for column, words in domain.slices.items() for part in _by_column(column, rows[column], words)),
        *_by_value("month", rows["known_at"].dt.strftime("%Y-%m")),
        *(Slice("length", name, _between(length, low, high)) for name, (low, high) in _LENGTHS.items()),
    ]


def _by_column(by: str, values: pd.Series, words: tuple[str, ...]) -> list[Slice]:
    """Slices by the values that contain each word or, without words, by the most frequent values."""
    if not words:
        return _by_value(by, values.fillna("unknown"), _TOP)
    texts = values.fillna("").astype(str)
    return [Slice(by, word, texts.str.contains(word, regex=False).to_numpy()) for word in words]


def _by_value(by: str, values: pd.Series, top: int | None = None) -> list[Slice]:
    chosen = values.value_counts().head(top).index if top else values.unique()
    return [Slice(by, str(value), (values == value).to_numpy()) for value in sorted(chosen)]


def _label_ece(positive: npt.NDArray[np.bool_], score: Floats, bins: int) -> float:
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    expected, observed = (np.bincount(place, side, bins) for side in (score, positive.astype(np.float64)))
    return float(np.abs(expected - observed).sum() / len(score))


def _between(length: pd.Series, low: int, high: int | None) -> npt.NDArray[np.bool_]:
    return ((length >= low) & (length < (high or np.inf))).to_numpy()
