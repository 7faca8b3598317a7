"""What drift compares: a fixed sample of rows, turned into columns of a few categories each.

Numbers become quantile bins of the reference and rare categories are pooled, because the population stability index
(PSI) over equal-width bins or hundreds of categories alarms on calm data. Every column then has a PSI of the same
kind, and no text leaves this module.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["Binning", "calm_psi", "describe", "fit_binning", "psi", "sample_positions", "vocabulary"]

_WORD = re.compile(r"[a-z]{3,}")
_TOKEN = re.compile(r"\S+")
_REDACTION = re.compile(r"[xX]{2,}")
_OTHER = "(other)"
_MISSING = "(missing)"
_EXPECTED_ROWS = 10
_EMPTY_SHARE = 1e-4
"""What Evidently puts in the place of an empty bin's share."""


def sample_positions(ids: "pd.Series[str]", size: int) -> list[int]:
    """Positions, in order, of a fixed sample: the `size` rows with the smallest hashes of their ids."""
    hashes = pd.util.hash_array(ids.astype(str).to_numpy(dtype=object))
    return [int(place) for place in np.sort(np.argsort(hashes, kind="stable")[:size])]


def vocabulary(narratives: Iterable[str]) -> frozenset[str]:
    """Every word of three letters or more, in lower case and without redactions."""
    words: set[str] = set()
    for text in narratives:
        words.update(_words(text))
    return frozenset(words)


def describe(narratives: "pd.Series[str]", known: frozenset[str]) -> pd.DataFrame:
    """Per narrative: text_words (tokens), text_unknown_share (words outside `known`), text_redacted_share (0 to 1)."""
    rows = []
    for text in narratives:
        tokens, words = _TOKEN.findall(text), _words(text)
        redacted = sum(_REDACTION.search(token) is not None for token in tokens)
        unknown = sum(word not in known for word in words)
        rows.append((len(tokens), unknown / max(len(words), 1), redacted / max(len(tokens), 1)))
    return pd.DataFrame(
        rows, columns=["text_words", "text_unknown_share", "text_redacted_share"], index=narratives.index
    )


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if not word.startswith("xx")]


@dataclass(frozen=True)
class Binning:
    """How one column's values become categories; learned from the reference alone."""

    edges: tuple[float, ...] | None
    """Upper edges of all bins but the last, for numbers."""
    kept: frozenset[str]
    """Categories that are not pooled, for everything else."""

    def apply(self, values: "pd.Series[Any]") -> "pd.Series[str]":
        """One category per value, with categories of their own for what is missing and what is rare."""
        missing = values.isna()
        if self.edges is None:
            labels = values.astype(str).where(values.astype(str).isin(self.kept), _OTHER)
        else:
            places = np.searchsorted(self.edges, pd.to_numeric(values).fillna(0.0).to_numpy(dtype=float), side="left")
            labels = pd.Series(np.array(self._names(), dtype=object)[places], index=values.index)
        return labels.astype(object).mask(missing, _MISSING)

    def _names(self) -> list[str]:
        assert self.edges is not None
        upper = [f"{edge:.3g}" for edge in self.edges]
        between = [f"{low} to {high}" for low, high in pairwise(upper)]
        names = [f"up to {upper[0]}", *between, f"over {upper[-1]}"] if upper else ["any"]
        return [f"{place:02d}: {name}" for place, name in enumerate(names, start=1)]


def fit_binning(reference: "pd.Series[Any]", bins: int, rows: int) -> Binning:
    """Quantile bins for numbers; for the rest, at most `bins` values, each frequent enough.

    `rows` is how many will be judged: what can hold fewer than ten of them is pooled, for one empty category of 5% adds
    0.3 to a PSI.
    """
    bins = max(2, min(bins, rows // _EXPECTED_ROWS))
    if pd.api.types.is_numeric_dtype(reference):
        present = pd.to_numeric(reference).dropna().to_numpy(dtype=float)
        cuts = np.quantile(present, np.arange(1, bins) / bins, method="lower") if len(present) else []
        return Binning(tuple(float(edge) for edge in np.unique(cuts)), frozenset())
    shares = reference.dropna().astype(str).value_counts(normalize=True).sort_index().sort_values(ascending=False)
    return Binning(None, frozenset(shares[shares >= max(0.01, _EXPECTED_ROWS / rows)].index[:bins]))


def psi(reference: "pd.Series[str]", current: "pd.Series[str]") -> float:
    """Population stability index of two samples of categories, by Evidently's rule for empty ones."""
    shares = [side.value_counts(normalize=True) for side in (reference, current)]
    categories = shares[0].index.union(shares[1].index)
    left, right = (_filled(side.reindex(categories, fill_value=0.0).to_numpy(dtype=float)) for side in shares)
    return float(((left - right) * np.log(left / right)).sum())


def _filled(shares: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    smallest = shares[shares > 0].min()
    return np.where(shares == 0, smallest / 1e6 if smallest <= _EMPTY_SHARE else _EMPTY_SHARE, shares)


def calm_psi(reference: "pd.Series[str]", blocks: int, rows: int) -> float:
    """The largest PSI of any stretch of the reference (in order of time) against the rest of it.

    It is what a column does when nothing is wrong: growth, seasons, warming up of rolling statistics and, with at
    most `rows` rows a stretch (as many as will be judged), the noise of a sample of that size.
    """
    block = np.arange(len(reference)) * blocks // len(reference)
    found = []
    for number in range(blocks):
        stretch = reference[block == number]
        step = max(1, len(stretch) // rows)
        found.append(psi(reference[block != number], stretch.iloc[::step][:rows]))
    return max(found)
