"""Turns a fixed sample of rows into columns of a few categories each, which drift compares.

Numbers become quantile bins of the reference and rare categories are pooled, because the population stability index
(PSI) over equal-width bins or hundreds of categories alarms on calm data. The PSIs of all columns are then comparable,
whatever the tails of their distributions, and no text leaves this module.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtri, stdtrit  # type: ignore[import-untyped]

__all__ = [
    "Binning",
    "calm_psi",
    "describe",
    "fit_binning",
    "prediction_limit",
    "psi",
    "sample_positions",
    "spread",
    "stretches",
    "vocabulary",
]

Integers = npt.NDArray[np.int64]

_WORD = re.compile(r"[a-z]{3,}")
_TOKEN = re.compile(r"\S+")
_REDACTION = re.compile(r"[xX]{2,}")
_OTHER = "(other)"
_MISSING = "(missing)"
_EXPECTED_ROWS = 10
_WINDOWS = 50
"""Windows compared with the same reference: an unlucky draw of it would raise an alarm in all of them."""
_EMPTY_SHARE = 1e-4
"""Evidently's replacement for the share of an empty bin."""


def sample_positions(ids: "pd.Series[str]", size: int) -> list[int]:
    """The ascending positions of a fixed sample: the `size` rows with the smallest hashes of their ids."""
    hashes = pd.util.hash_array(ids.astype(str).to_numpy(dtype=object))
    return [int(place) for place in np.sort(np.argsort(hashes, kind="stable")[:size])]


def vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """Every word of three or more letters, in lower case and without redactions."""
    words: set[str] = set()
    for text in texts:
        words.update(_words(text))
    return frozenset(words)


def describe(texts: "pd.Series[str]", known: frozenset[str]) -> pd.DataFrame:
    """Per text: text_words (tokens), text_unknown_share (words outside `known`), text_redacted_share (0 to 1)."""
    rows = []
    for text in texts:
        tokens, words = _TOKEN.findall(text), _words(text)
        redacted = sum(_REDACTION.search(token) is not None for token in tokens)
        unknown = sum(word not in known for word in words)
        rows.append((len(tokens), unknown / max(len(words), 1), redacted / max(len(tokens), 1)))
    return pd.DataFrame(rows, columns=["text_words", "text_unknown_share", "text_redacted_share"], index=texts.index)


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if not word.startswith("xx")]


@dataclass(frozen=True)
class Binning:
    """How one column's values become categories; learned only from the reference."""

    edges: tuple[float, ...] | None
    """For numbers, the upper edges of all bins except the last."""
    kept: frozenset[str]
    """For everything else, the categories that are not pooled."""

    def codes(self, values: "pd.Series[Any]") -> Integers:
        """The index in `names` of each value's category; missing and rare values have their own."""
        if self.edges is None:
            indices = pd.Index(self.names[:-2]).get_indexer(pd.Index(values.astype(str)))
            places = np.where(indices < 0, len(self.names) - 2, indices)
        else:
            numbers = pd.to_numeric(values).to_numpy(dtype=float, na_value=np.nan)
            places = np.searchsorted(self.edges, numbers, side="left")
        return np.where(values.isna(), len(self.names) - 1, places).astype(np.int64)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All categories; the last one is for missing values. Bins that are close together may have the same name."""
        if self.edges is None:
            return (*sorted(self.kept), _OTHER, _MISSING)
        upper = [f"{edge:,.0f}" if edge.is_integer() or abs(edge) >= 1000 else f"{edge:.3g}" for edge in self.edges]
        between = [f"{low} to {high}" for low, high in pairwise(upper)]
        return (*([f"up to {upper[0]}", *between, f"over {upper[-1]}"] if upper else ["any"]), _MISSING)


def fit_binning(reference: "pd.Series[Any]", bins: int, rows: int) -> Binning:
    """Quantile bins for numbers; for the rest, at most `bins` values, each frequent enough.

    `rows` is the number of rows to be judged: a category that would have fewer than ten of them is pooled, since one
    empty category of 5% adds 0.3 to a PSI.
    """
    bins = max(2, min(bins, rows // _EXPECTED_ROWS))
    if pd.api.types.is_numeric_dtype(reference):
        present = pd.to_numeric(reference).dropna().to_numpy(dtype=float)
        cuts = np.quantile(present, np.arange(1, bins) / bins, method="lower") if len(present) else []
        return Binning(tuple(float(edge) for edge in np.unique(cuts)), frozenset())
    shares = reference.dropna().astype(str).value_counts(normalize=True).sort_index().sort_values(ascending=False)
    return Binning(None, frozenset(shares[shares >= max(0.01, _EXPECTED_ROWS / rows)].index[:bins]))


def psi(reference: Integers, current: Integers) -> float:
    """Population stability index of two samples of `Binning.codes`, by Evidently's rule for empty categories."""
    size = int(max(reference.max(), current.max())) + 1
    counts = np.stack([np.bincount(side, minlength=size) for side in (reference, current)])
    counts = counts[:, counts.any(axis=0)]
    left, right = (_filled(side / side.sum()) for side in counts)
    return float(((left - right) * np.log(left / right)).sum())


def _filled(shares: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    smallest = shares[shares > 0].min()
    return np.where(shares == 0, smallest / 1e6 if smallest <= _EMPTY_SHARE else _EMPTY_SHARE, shares)


def calm_psi(reference: Integers, rows: int, confidence: float, lively: Integers, parts: int) -> float:
    """The PSI that `rows` more rows may have against the reference when nothing is wrong.

    It is the movement between the `parts` blocks (in order of time) of a column, `lively`, from growth, seasons or the
    warm-up of rolling statistics, plus the noise of two samples of these sizes. The column is the reference's own, or
    one that moves alike and is known for longer. A block is a smaller sample than a window; its extra noise is
    subtracted. The square root of a PSI is the length of a shift, and that is roughly normal, rather than its square.
    """
    moved = []
    for stretch in stretches(len(lively), parts):
        rest, drawn = np.delete(lively, stretch), lively[stretch[spread(len(stretch), rows)]]
        moved.append(max(0.0, psi(rest, drawn) - _noise(lively, len(rest), len(drawn), confidence)))
    return float(
        prediction_limit(np.sqrt(moved), confidence) ** 2 + _noise(reference, len(reference), rows, confidence)
    )


def _noise(categories: Integers, left: int, right: int, confidence: float) -> float:
    """The PSI below which two samples of one distribution, of `left` and `right` rows, stay with `confidence`.

    Divided by 1 / left + 1 / right, the index has a chi-squared distribution with one degree of freedom less than there
    are categories (Yurdakul, Statistical properties of population stability index, 2018).
    """
    return float(chdtri(max(len(np.unique(categories)) - 1, 1), 1 - confidence)) * (1 / left + 1 / right)


def stretches(rows: int, blocks: int) -> list[Integers]:
    """The indices of `rows` rows, in `blocks` parts of equal length."""
    return [np.asarray(part, dtype=np.int64) for part in np.array_split(np.arange(rows), blocks)]


def spread(rows: int, size: int) -> Integers:
    """At most `size` of `rows` indices, evenly spaced."""
    size = min(rows, size)
    return np.arange(size, dtype=np.int64) * rows // size


def prediction_limit(values: npt.NDArray[np.float64], confidence: float) -> float:
    """The limit below which one more value stays with `confidence`, and at least the largest value.

    After five values, the next one exceeds them all with a chance of one in six: their maximum alone would raise an
    alarm that often on a naturally variable column. The limit is Student's for one further observation of a normal
    distribution (Hahn and Meeker, Statistical Intervals, 1991). Needs two or more values.
    """
    size = len(values)
    width = float(stdtrit(size - 1, confidence)) * float(values.std(ddof=1)) * sqrt(1 + 1 / size)
    return max(float(values.max()), float(values.mean()) + width)
