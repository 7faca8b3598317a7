"""How good predicted probabilities are: overall, in bins of confidence, and on slices of the test rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from assets.settings import Domain

__all__ = ["Bin", "Metrics", "Slice", "codes", "confusion", "correct", "measure", "reliability", "slices"]


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


def codes(truth: "pd.Series[str]", labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """The labels of rows as indices into all labels, [rows]."""
    return np.array([labels.index(label) for label in truth], dtype=np.int64)


def correct(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which rows [rows] the most probable label is right for."""
    return np.asarray(probabilities.argmax(axis=1) == truth)


def confusion(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows by true label (down) and predicted label (across), [labels, labels]."""
    size = probabilities.shape[1]
    pairs = np.bincount(truth * size + probabilities.argmax(axis=1), minlength=size * size)
    return pairs.astype(np.int64).reshape(size, size)


def measure(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], bins: int) -> Metrics:
    """Metrics of probabilities [rows, labels] against true codes [rows].

    Macro-F1 is the mean over the labels present in `truth`: a label without a test row would add a zero.
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
        macro_f1=_macro_f1(confusion(truth, probabilities)),
        log_loss=float(-np.log(chosen).mean()),
        ece=sum(gaps) / len(truth),
    )


def reliability(truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], bins: int) -> list[Bin]:
    """Equal-width bins of confidence that hold any rows, lowest first; none when a probability is not finite.

    With them the expected calibration error is that of Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    if not np.isfinite(probabilities).all():
        return []
    confidence, right = probabilities.max(axis=1), correct(truth, probabilities)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        means = float(confidence[inside].mean()), float(right[inside].mean())
        found.append(Bin(float(number / bins), float((number + 1) / bins), int(inside.sum()), *means))
    return found


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
    """By the values that hold each word or, without words, by the most frequent values."""
    if not words:
        return _by_value(by, values.fillna("unknown"), _TOP)
    texts = values.fillna("").astype(str)
    return [Slice(by, word, texts.str.contains(word, regex=False).to_numpy()) for word in words]


def _by_value(by: str, values: pd.Series, top: int | None = None) -> list[Slice]:
    kept = values.value_counts().head(top).index if top else values.unique()
    return [Slice(by, str(value), (values == value).to_numpy()) for value in sorted(kept)]


def _between(length: pd.Series, low: int, high: int | None) -> npt.NDArray[np.bool_]:
    return ((length >= low) & (length < (high or np.inf))).to_numpy()


def _macro_f1(table: npt.NDArray[np.int64]) -> float:
    present = table.sum(axis=1) > 0
    both = table.sum(axis=1) + table.sum(axis=0)
    return float((2 * np.diag(table)[present] / both[present]).mean())
