"""From a record's columns to the numbers that the model reads, the same in training and in serving.

Three views of a row: its text as tokens (the company and the state before the text), its words as weights of
hashed buckets (the company weighs as much as all of the text), and its features as standardised numbers. Where
features are a mix of labels over an entity's past (`<entity>_share_<label>` and `<entity>_labels`), they become a
smoothed log-prior as well.
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

from assets.settings import LABELS

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer

__all__ = [
    "Encoded",
    "Preprocessing",
    "clean",
    "fit_preprocessing",
    "load_preprocessing",
    "prior_entities",
    "starts",
    "text_of",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Rows: TypeAlias = "Mapping[str, Any] | pd.DataFrame"
"""Columns by name: a data frame, or lists and arrays of one length."""

_REDACTED = re.compile(r"\b(?:X{2,}|\d{1,2}/\d{1,2}/X{2,})\b(?:[\s/.,-]+(?:X{2,}|\d{2,4})\b)*")
_AMOUNT = re.compile(r"\{(\$[\d,.]*)\}")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\w+")
_BIGRAM = np.uint64(0x9E3779B1)
_CLIP = 5.0


@dataclass(frozen=True)
class Encoded:
    """Rows as the model reads them, in flat arrays: what has another length in every row lies end to end.

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
    """What has to be known from the training rows to read any row: stored as `preprocessing.json`.

    medians, means and scales belong to `features`, in order, on the signed-log scale; `missing` names the features that
    were missing on some training row and get an indicator; `frequencies` are the labels' shares.
    """

    features: tuple[str, ...]
    missing: tuple[str, ...]
    medians: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    frequencies: tuple[float, ...]
    max_tokens: int
    hashed_words: int
    prior_labels: float

    @property
    def inputs(self) -> int:
        """Width of the encoded features."""
        return len(self.features) + len(self.missing)

    def encode(self, rows: Rows, tokenizer: "Tokenizer") -> Encoded:
        """Rows with text, company, state and the raw features, encoded in order; nothing is imputed before."""
        texts = [clean(text) for text in _texts(rows, "text", "")]
        companies, states = (_texts(rows, name, "unknown") for name in ("company", "state"))
        inputs = [text_of(*parts) for parts in zip(companies, states, texts, strict=True)]
        hashed = [self._hash(*parts) for parts in zip(companies, texts, strict=True)]
        tokens, lengths = _end_to_end(_tokenize(inputs, tokenizer, self.max_tokens), np.int32)
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

    def _standardise(self, raw: NDArray[np.float64]) -> Floats:
        absent = np.isnan(raw)
        filled = np.where(absent, np.array(self.medians), _signed_log(raw))
        scaled = np.clip((filled - np.array(self.means)) / np.array(self.scales), -_CLIP, _CLIP)
        indicators = absent[:, [self.features.index(name) for name in self.missing]]
        return np.hstack([scaled, indicators]).astype(np.float32)

    def _priors(self, raw: NDArray[np.float64]) -> Floats:
        base = np.array(self.frequencies)
        priors = np.empty((len(raw), len(prior_entities(self.features)), len(base)), np.float32)
        for index, entity in enumerate(prior_entities(self.features)):
            labels = np.nan_to_num(raw[:, [self.features.index(f"{entity}_labels")]])
            shares = np.nan_to_num(raw[:, [self.features.index(f"{entity}_share_{label}") for label in LABELS]])
            priors[:, index] = np.log((shares * labels + base * self.prior_labels) / (labels + self.prior_labels))
        return priors

    def _hash(self, company: str, text: str) -> tuple[NDArray[np.int32], Floats]:
        if self.hashed_words == 0:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        size = np.uint64(self.hashed_words)
        words = np.fromiter(map(_hash_word, _WORD.findall(text.lower())), np.uint64)
        pairs = ((words[:-1] * _BIGRAM) ^ words[1:]) * _BIGRAM >> np.uint64(16)
        buckets, counts = np.unique(np.concatenate([words, pairs]) % size, return_counts=True)
        weights = 1.0 + np.log(counts)
        own = np.uint64(_hash_word(f"company={company}")) % size
        return np.append(buckets, own).astype(np.int32), np.append(weights / _norm(weights), 1.0).astype(np.float32)


def fit_preprocessing(
    rows: Rows, features: Sequence[str], max_tokens: int, hashed_words: int, prior_labels: float
) -> Preprocessing:
    """Learn from the training rows (with raw features and label) how to read any row.

    Missing values take the training median; counts are heavy-tailed, so features are standardised on the scale
    sign(x) log(1 + |x|). A label that no training row has counts as half a row, so that its logarithm exists.
    """
    raw = {name: np.asarray(rows[name], np.float64) for name in features}
    spreads = [_spread(values) for values in raw.values()]
    counted = Counter(rows["label"])
    counts = np.array([max(counted[label], 0.5) for label in LABELS])
    return Preprocessing(
        features=tuple(features),
        missing=tuple(name for name, values in raw.items() if np.isnan(values).any()),
        medians=tuple(median for median, _, _ in spreads),
        means=tuple(mean for _, mean, _ in spreads),
        scales=tuple(scale for _, _, scale in spreads),
        frequencies=tuple((counts / counts.sum()).tolist()),
        max_tokens=max_tokens,
        hashed_words=hashed_words,
        prior_labels=prior_labels,
    )


def load_preprocessing(path: Path) -> Preprocessing:
    """Read what `Preprocessing.save` wrote."""
    stored = json.loads(path.read_text())
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    return Preprocessing(**values)


def prior_entities(features: Sequence[str]) -> list[str]:
    """The entities whose features are a mix of labels: those with `<entity>_labels` and a share for every label."""
    entities = [name.removesuffix("_labels") for name in features if name.endswith("_labels")]
    return [entity for entity in entities if all(f"{entity}_share_{label}" in features for label in LABELS)]


def clean(text: str) -> str:
    """Collapse redactions to one `xx`, amounts `{$1.00}` to `$1.00`, and white space.

    Redactions carry no words and cost a fifth of a typical text's tokens.
    """
    return _SPACE.sub(" ", _AMOUNT.sub(r"\1", _REDACTED.sub("xx", text))).strip()


def text_of(company: str, state: str, text: str) -> str:
    """The text that the encoder reads: what routes best comes first, so that it is never cut off."""
    return f"{company}, {state}. {text}"


def starts(lengths: Integers) -> Integers:
    """Where each of some stretches that lie end to end begins."""
    return np.cumsum(lengths) - lengths


def _places(first: Integers, lengths: Integers) -> Integers:
    """The places of stretches that begin at `first`, one stretch after the other."""
    return np.arange(lengths.sum()) + np.repeat(first - starts(lengths), lengths)


def _end_to_end(arrays: Sequence[NDArray[Any]], kind: type) -> tuple[NDArray[Any], Integers]:
    """Arrays as one, and the length of each."""
    return np.concatenate([np.empty(0, kind), *arrays]), np.array([len(array) for array in arrays], np.int64)


def _texts(rows: Rows, name: str, missing: str) -> list[str]:
    return [value if isinstance(value, str) else missing for value in rows[name]]


def _numbers(rows: Rows, names: Sequence[str], count: int) -> NDArray[np.float64]:
    """Float64 [count, names], NaN where there is nothing."""
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
    """Median, mean and scale of a feature on the signed-log scale, the median standing for what is missing."""
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
