"""Turns a record's columns into the model's inputs, in the same way in training and in serving.

A row has three views: its text as tokens, with some columns before it; its words as weights of hashed buckets, with
columns whose value weighs as much as all of the text; and its features as standardised numbers. Features that are an
entity's label mix in the past (`<entity>_share_<label>` and `<entity>_labels`) also become a smoothed log-prior.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from assets.settings import Domain
from assets.training.program.batches import Integers

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer

__all__ = [
    "Encoded",
    "Preprocessing",
    "fit_preprocessing",
    "load_preprocessing",
    "starts",
]

Floats = NDArray[np.float32]
Rows: TypeAlias = "Mapping[str, Any] | pd.DataFrame"
"""Columns by name: a data frame, or lists and arrays of one length."""

_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\w+")
_BIGRAM = np.uint64(0x9E3779B1)
_CLIP = 5.0
_UNKNOWN = "unknown"
"""The value of a column that is missing."""


@dataclass(frozen=True)
class Encoded:
    """Rows as the model reads them, in flat arrays: values of varying length are concatenated.

    tokens: int32, `lengths` of them a row; buckets (int32) and weights (float32): hashed words, `words` of them a row;
    lengths and words: int64 [rows]; features: float32 [rows, model inputs]; priors: float32 [rows, entities, labels],
    natural logarithms.
    """

    tokens: NDArray[np.int32]
    lengths: Integers
    buckets: NDArray[np.int32]
    weights: Floats
    words: Integers
    features: Floats
    priors: Floats

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: Integers) -> "Encoded":
        """Some of the rows, copied, in the order of `index`."""
        tokens = _places(self._first_token[index], self.lengths[index])
        words = _places(self._first_word[index], self.words[index])
        return Encoded(
            tokens=self.tokens[tokens],
            lengths=self.lengths[index],
            buckets=self.buckets[words],
            weights=self.weights[words],
            words=self.words[index],
            features=self.features[index],
            priors=self.priors[index],
        )

    @cached_property
    def _first_token(self) -> Integers:
        return starts(self.lengths)

    @cached_property
    def _first_word(self) -> Integers:
        return starts(self.words)


@dataclass(frozen=True)
class Preprocessing:
    """What is fitted on the training rows to read any row: stored as `preprocessing.json`.

    medians, means and scales belong to `features`, in order, on the signed-log scale; `missing` names the features that
    were missing on some training row and get an indicator; `frequencies` are the shares of `labels`, in order;
    before, whole and replace are the domain's TextReading.
    """

    features: tuple[str, ...]
    missing: tuple[str, ...]
    medians: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    labels: tuple[str, ...]
    frequencies: tuple[float, ...]
    max_tokens: int
    hashed_words: int
    prior_labels: float
    before: tuple[str, ...]
    whole: tuple[str, ...]
    replace: tuple[tuple[str, str], ...]

    @property
    def inputs(self) -> int:
        """Width of the encoded features."""
        return len(self.features) + len(self.missing)

    @property
    def entities(self) -> list[str]:
        """The entities with a label mix among the features: `<entity>_labels` and a share for every label."""
        named = [name.removesuffix("_labels") for name in self.features if name.endswith("_labels")]
        return [one for one in named if all(f"{one}_share_{label}" in self.features for label in self.labels)]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of rows that are read as text."""
        return tuple(dict.fromkeys(("text", *self.before, *self.whole)))

    def encode(self, rows: Rows, tokenizer: "Tokenizer") -> Encoded:
        """Encode rows with text, the columns read with it and the raw features, in order, without imputation."""
        texts = self.clean(rows)
        whole = [[f"{name}={value}" for value in _texts(rows, name, _UNKNOWN)] for name in self.whole]
        hashed = [self._hash(*parts) for parts in zip(texts, *whole, strict=True)]
        tokens, lengths = _end_to_end(_tokenize(self.read(rows, texts), tokenizer, self.max_tokens), np.int32)
        buckets, words = _end_to_end([buckets for buckets, _ in hashed], np.int32)
        weights, _ = _end_to_end([weights for _, weights in hashed], np.float32)
        raw = _numbers(rows, self.features, len(texts))
        return Encoded(
            tokens=tokens,
            lengths=lengths,
            buckets=buckets,
            weights=weights,
            words=words,
            features=self._standardise(raw),
            priors=self._priors(raw),
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    def clean(self, rows: Rows) -> list[str]:
        """The texts with all replacements made, and white space collapsed."""
        texts = _texts(rows, "text", "")
        for pattern, by in self.replace:
            texts = [re.sub(pattern, by, text) for text in texts]
        return [_SPACE.sub(" ", text).strip() for text in texts]

    def read(self, rows: Rows, texts: Sequence[str]) -> list[str]:
        """The encoder's input for rows and their clean texts: the columns come first, and are never cut off."""
        if not self.before:
            return list(texts)
        before = [_texts(rows, name, _UNKNOWN) for name in self.before]
        return [f"{', '.join(values)}. {text}" for text, *values in zip(texts, *before, strict=True)]

    def _standardise(self, raw: NDArray[np.float64]) -> Floats:
        absent = np.isnan(raw)
        filled = np.where(absent, np.array(self.medians), _signed_log(raw))
        scaled = np.clip((filled - np.array(self.means)) / np.array(self.scales), -_CLIP, _CLIP)
        indicators = absent[:, [self.features.index(name) for name in self.missing]]
        return np.hstack([scaled, indicators]).astype(np.float32)

    def _priors(self, raw: NDArray[np.float64]) -> Floats:
        base = np.array(self.frequencies)
        priors = np.empty((len(raw), len(self.entities), len(base)), np.float32)
        for index, entity in enumerate(self.entities):
            known = np.nan_to_num(raw[:, [self.features.index(f"{entity}_labels")]])
            shares = np.nan_to_num(raw[:, [self.features.index(f"{entity}_share_{label}") for label in self.labels]])
            priors[:, index] = np.log((shares * known + base * self.prior_labels) / (known + self.prior_labels))
        return priors

    def _hash(self, text: str, *whole: str) -> tuple[NDArray[np.int32], Floats]:
        if self.hashed_words == 0:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        size = np.uint64(self.hashed_words)
        words = np.fromiter(map(_hash_word, _WORD.findall(text.lower())), np.uint64)
        pairs = ((words[:-1] * _BIGRAM) ^ words[1:]) * _BIGRAM >> np.uint64(16)
        buckets, counts = np.unique(np.concatenate([words, pairs]) % size, return_counts=True)
        weights = 1.0 + np.log(counts)
        own = np.array([_hash_word(value) for value in whole], np.uint64) % size
        weights = np.append(weights / _norm(weights), np.ones(len(own)))
        return np.append(buckets, own).astype(np.int32), weights.astype(np.float32)


def fit_preprocessing(
    rows: Rows,
    features: Sequence[str],
    domain: Domain,
    max_tokens: int,
    hashed_words: int,
    prior_labels: float,
) -> Preprocessing:
    """Fit the preprocessing on the training rows (with raw features and label).

    Missing values take the training median; counts are heavy-tailed, so features are standardised on the scale
    sign(x) log(1 + |x|). A label without training rows counts as half a row, so that its logarithm exists.
    """
    raw = {name: np.asarray(rows[name], np.float64) for name in features}
    spreads = [_spread(values) for values in raw.values()]
    counted = Counter(rows["label"])
    counts = np.array([max(counted[label], 0.5) for label in domain.labels])
    return Preprocessing(
        features=tuple(features),
        missing=tuple(name for name, values in raw.items() if np.isnan(values).any()),
        medians=tuple(median for median, _, _ in spreads),
        means=tuple(mean for _, mean, _ in spreads),
        scales=tuple(scale for _, _, scale in spreads),
        labels=tuple(domain.labels),
        frequencies=tuple((counts / counts.sum()).tolist()),
        max_tokens=max_tokens,
        hashed_words=hashed_words,
        prior_labels=prior_labels,
        before=domain.text.before,
        whole=domain.text.whole,
        replace=tuple((each.pattern, each.by) for each in domain.text.replace),
    )


def load_preprocessing(path: Path) -> Preprocessing:
    """Read what `Preprocessing.save` wrote."""
    stored = json.loads(path.read_text())
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    return Preprocessing(**values | {"replace": tuple((pattern, by) for pattern, by in values["replace"])})


def starts(lengths: Integers) -> Integers:
    """The start of each of some concatenated parts, by their lengths."""
    return np.cumsum(lengths) - lengths


def _places(first: Integers, lengths: Integers) -> Integers:
    """The indices of parts that start at `first`, one part after the other."""
    return np.arange(lengths.sum()) + np.repeat(first - starts(lengths), lengths)


def _end_to_end(arrays: Sequence[NDArray[Any]], kind: type) -> tuple[NDArray[Any], Integers]:
    """The concatenated arrays, and the length of each."""
    return np.concatenate([np.empty(0, kind), *arrays]), np.array([len(array) for array in arrays], np.int64)


def _texts(rows: Rows, name: str, missing: str) -> list[str]:
    return [value if isinstance(value, str) else missing for value in rows[name]]


def _numbers(rows: Rows, names: Sequence[str], count: int) -> NDArray[np.float64]:
    """Float64 [count, names], NaN for missing values."""
    columns = [np.asarray(rows[name], dtype=np.float64) for name in names]
    return np.column_stack([np.empty((count, 0)), *columns])


def _tokenize(texts: Sequence[str], tokenizer: "Tokenizer", max_tokens: int) -> list[NDArray[np.int32]]:
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    # A token is rarely shorter than one character and hardly ever longer than 16 on average: cutting long texts before
    # they are tokenized changes nothing and saves most of the work.
    cut = [text[: 16 * max_tokens] for text in texts]
    return [
        np.array(encoding.ids, np.int32) for batch in _chunks(cut, 4096) for encoding in tokenizer.encode_batch(batch)
    ]


def _chunks(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _spread(raw: NDArray[np.float64]) -> tuple[float, float, float]:
    """Median, mean and scale of a feature on the signed-log scale, with missing values set to the median."""
    values, absent = _signed_log(raw), np.isnan(raw)
    median = 0.0 if absent.all() else float(np.median(values[~absent]))
    filled = np.where(absent, median, values)
    return median, float(filled.mean()), float(filled.std()) or 1.0


def _signed_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.log1p(np.abs(values))


def _norm(weights: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(weights)) or 1.0


@lru_cache(maxsize=1 << 18)
def _hash_word(word: str) -> int:
    return crc32(word.encode())
