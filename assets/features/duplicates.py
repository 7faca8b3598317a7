"""Near duplicates between two sets of narratives, exactly, without comparing all pairs.

A narrative is its words: runs of letters, in lower case, without redactions (words of x only); digits, punctuation and
spaces only separate. Two narratives are near duplicates when their first 120 characters agree (form letters, and equal
texts), or when the sets of their 5-word shingles have a Jaccard similarity (Broder 1997) of at least a threshold t.

Similar pairs are found by prefix filtering (Chaudhuri, Ganti, Kaushik 2006; Bayardo, Ma, Srikant 2007): sets A and B
with Jaccard >= t share at least t|A| shingles, so B has one of any |A| - t|A| + 1 shingles of A. Taking the
rarest of them leaves few candidates, on which the similarity is then computed. Nothing is sampled; the only
approximation is that shingles are compared by 48 bits of a hash.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Duplicates", "find_duplicates", "hash_starts"]

_PREFIX_CHARACTERS = 120
_SHINGLE_WORDS = 5
_ROWS = 1 << 10
"""Rows that are hashed together: what bounds memory."""
_HASH_BITS = np.uint64(48)
"""High bits of a sorting key hold a row's place among `_ROWS`, these low ones the shingle's hash."""

_Hashes = npt.NDArray[np.uint64]
_Indices = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]

_BASE = 0x9E3779B97F4A7C15
"""An odd number, so that it has an inverse modulo 2^64: 2^64 over the golden ratio (Knuth, TAOCP 3, 6.4)."""


@dataclass(frozen=True)
class Duplicates:
    """Which of the searched narratives have a near duplicate among the others, by the rule that found it."""

    same_start: _Flags
    similar: _Flags

    @property
    def any(self) -> _Flags:
        return self.same_start | self.similar


def find_duplicates(narratives: pa.ChunkedArray, others: pa.ChunkedArray, similarity: float) -> Duplicates:
    """For each of `narratives` (strings, no nulls): does it have a near duplicate among `others`?

    `similarity` is the Jaccard threshold, above 0. Takes about 80 microseconds of one core for 1 KB of text,
    and memory for the shingles of `others`, which is meant to be the smaller set.
    """
    index = _Index.of(others)

    def find(slice_: pa.LargeStringArray) -> tuple[_Flags, _Flags]:
        texts = _texts(slice_)
        same_start = np.isin(texts.prefixes, index.prefixes)
        return same_start, index.similar(texts, similarity, skip=same_start)

    # NumPy lets go of the interpreter's lock in everything that takes time here.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [(np.zeros(0, bool), np.zeros(0, bool)), *pool.map(find, _slices(narratives))]
    same_start, similar = (np.concatenate(flags) for flags in zip(*found, strict=True))
    return Duplicates(same_start, similar)


def hash_starts(narratives: pa.ChunkedArray) -> _Hashes:
    """For each narrative (strings, no nulls) a hash of its first 120 characters, as near duplicates share them."""
    return np.concatenate([np.zeros(0, np.uint64), *(_texts(slice_).prefixes for slice_ in _slices(narratives))])


@dataclass(frozen=True)
class _Texts:
    """A batch of narratives: the hash of each one's first characters, and the sets of their shingles."""

    prefixes: _Hashes
    rows: _Indices
    """The row of every shingle, ascending."""
    shingles: _Hashes


@dataclass(frozen=True)
class _Index:
    """An inverted index: for each shingle, the rows that have it."""

    prefixes: _Hashes
    sizes: _Indices
    """Shingles of each row."""
    shingles: _Hashes
    """Distinct, ascending."""
    starts: _Indices
    """Where each shingle's rows begin in `rows`; one more than there are shingles."""
    rows: _Indices
    filter: _Flags
    """Whether some shingle has these low bits: spares most searches."""

    @classmethod
    def of(cls, narratives: pa.ChunkedArray) -> "_Index":
        batches = [_texts(slice_) for slice_ in _slices(narratives)]
        firsts = np.cumsum([0, *(len(batch.prefixes) for batch in batches)])
        rows = np.concatenate([np.zeros(0, np.int64), *(b.rows + n for b, n in zip(batches, firsts, strict=False))])
        shingles = np.concatenate([np.zeros(0, np.uint64), *(batch.shingles for batch in batches)])
        order = np.argsort(shingles, kind="stable")
        distinct, starts = np.unique(shingles[order], return_index=True)
        low = np.zeros(1 << 22, bool)
        low[(distinct & np.uint64(len(low) - 1)).astype(np.int64)] = True
        return cls(
            prefixes=np.unique([prefix for batch in batches for prefix in batch.prefixes if prefix]),
            sizes=np.bincount(rows, minlength=int(firsts[-1])),
            shingles=distinct,
            starts=np.append(starts, len(shingles)),
            rows=rows[order],
            filter=low,
        )

    def similar(self, texts: _Texts, similarity: float, skip: _Flags) -> _Flags:
        """Which rows of a batch have a Jaccard similarity of at least `similarity` with a row of the index."""
        sizes = np.bincount(texts.rows, minlength=len(texts.prefixes))
        places = self._places(texts.shingles)
        shared = np.bincount(texts.rows[places >= 0], minlength=len(sizes))
        # |A and B| >= t |A or B| >= t |A|: a row that shares less with all others together is like none of them.
        promising = (shared >= similarity * sizes) & (sizes > 0) & ~skip
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        found = np.zeros(len(sizes), bool)
        for row in np.flatnonzero(promising):
            found[row] = self._is_similar(places[firsts[row] : firsts[row + 1]], similarity)
        return found

    def _places(self, shingles: _Hashes) -> _Indices:
        """The place of each shingle in the index, or -1."""
        places = np.full(len(shingles), -1, np.int64)
        if not len(self.shingles):
            return places
        maybe = np.flatnonzero(self.filter[(shingles & np.uint64(len(self.filter) - 1)).astype(np.int64)])
        nearest = np.minimum(np.searchsorted(self.shingles, shingles[maybe]), len(self.shingles) - 1)
        hit = self.shingles[nearest] == shingles[maybe]
        places[maybe[hit]] = nearest[hit]
        return places

    def _is_similar(self, places: _Indices, similarity: float) -> bool:
        """Whether one set of shingles, by their places in the index, is similar to a row of the index."""
        size = len(places)
        known = places[places >= 0]
        known = known[np.argsort(self.starts[known + 1] - self.starts[known], kind="stable")]
        prefix = size - ceil(similarity * size) + 1 - (size - len(known))
        candidates = np.unique(self._rows_with(known[: max(prefix, 0)]))
        candidates = candidates[(self.sizes[candidates] >= similarity * size)]
        candidates = candidates[(self.sizes[candidates] * similarity <= size)]
        if not len(candidates):
            return False
        shared = np.bincount(self._rows_with(known), minlength=len(self.sizes))[candidates]
        return bool(np.any(shared >= similarity * (size + self.sizes[candidates] - shared)))

    def _rows_with(self, places: _Indices) -> _Indices:
        """The rows of each of these shingles, one after the other."""
        first, last = self.starts[places], self.starts[places + 1]
        counts = last - first
        offsets = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if len(places) else counts
        return self.rows[offsets + np.arange(len(offsets))]


def _slices(narratives: pa.ChunkedArray) -> Iterator[pa.LargeStringArray]:
    for chunk in narratives.cast(pa.large_string()).chunks:
        for first in range(0, len(chunk), _ROWS):
            yield chunk.slice(first, _ROWS)


def _texts(narratives: pa.LargeStringArray) -> _Texts:
    count = len(narratives)
    letters, offsets = _letters(narratives)
    starts, ends = _words(letters, offsets)
    rows = np.searchsorted(offsets, starts, side="right") - 1
    places = _places_in_row(rows, count)
    words = _hash_spans(letters, starts, np.stack([ends, _cut(starts, ends, rows, count)]))
    powers = _powers(_bucket(len(starts)))
    starts_of_rows = np.zeros((2, count), np.uint64)
    for folded, hashes in zip(starts_of_rows, words, strict=True):
        np.add.at(folded, rows, hashes * powers[places])
    whole, prefixes = starts_of_rows
    sizes = np.bincount(rows, minlength=count)
    keys = _shingle_keys(words[0], rows, np.flatnonzero((sizes > 0) & (sizes < _SHINGLE_WORDS)), whole)
    return _Texts(prefixes, (keys >> _HASH_BITS).astype(np.int64), keys & ((np.uint64(1) << _HASH_BITS) - np.uint64(1)))


def _letters(narratives: pa.LargeStringArray) -> tuple[npt.NDArray[np.uint8], _Indices]:
    """Every byte as a letter's code, 0 where there is no letter, and where each narrative begins; one offset more."""
    _, offsets_buffer, data = narratives.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[narratives.offset : narratives.offset + len(narratives) + 1]
    text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.zeros(0, np.uint8)
    return _LETTER_OF_BYTE[text], offsets - offsets[0]


def _letter_table() -> npt.NDArray[np.uint8]:
    # Bytes from 128 belong to letters outside ASCII, which are kept as they are.
    return np.array([ord(chr(b).lower()) if b >= 128 or chr(b).isalpha() else 0 for b in range(256)], np.uint8)


def _words(letters: npt.NDArray[np.uint8], offsets: _Indices) -> tuple[_Indices, _Indices]:
    """Where each word begins and ends, without those that are redactions."""
    inside = np.zeros(len(letters) + 2, bool)
    np.greater(letters, 0, out=inside[1:-1])
    edge = np.zeros(len(letters) + 1, bool)
    edge[offsets] = True
    starts = np.flatnonzero(inside[1:-1] & (edge[:-1] | ~inside[:-2]))
    ends = np.flatnonzero(inside[1:-1] & (edge[1:] | ~inside[2:])) + 1
    other_letters = np.zeros(len(letters) + 1, np.int32)
    np.cumsum(inside[1:-1] & (letters != ord("x")), out=other_letters[1:])
    said = other_letters[ends] > other_letters[starts]
    return starts[said], ends[said]


def _places_in_row(rows: _Indices, count: int) -> _Indices:
    return np.arange(len(rows)) - np.searchsorted(rows, np.arange(count))[rows]


def _cut(starts: _Indices, ends: _Indices, rows: _Indices, count: int) -> _Indices:
    """Where each word ends when a narrative is cut after its first characters, one space between words."""
    widths = ends - starts + 1
    before = np.cumsum(widths) - widths
    first = np.append(before, 0)[np.minimum(np.searchsorted(rows, np.arange(count)), len(rows))]
    cut: _Indices = np.clip(starts + _PREFIX_CHARACTERS - (before - first[rows]), starts, ends)
    return cut


def _hash_spans(letters: npt.NDArray[np.uint8], starts: _Indices, ends: _Indices) -> _Hashes:
    """A hash of the letters of each span, 0 for an empty one: a polynomial, divided by the power that it begins at."""
    bucket = _bucket(len(letters) + 1)
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(letters * _powers(bucket)[: len(letters)], out=sums[1:])
    return _mix((sums[ends] - sums[starts]) * _powers(bucket, inverse=True)[starts])


def _shingle_keys(words: _Hashes, rows: _Indices, short_rows: _Indices, whole: _Hashes) -> _Hashes:
    """Distinct (row, hash) keys, ascending; a text of fewer words than a shingle has is one shingle."""
    last = len(words) - _SHINGLE_WORDS + 1
    hashes = np.zeros(max(last, 0), np.uint64)
    for place in range(_SHINGLE_WORDS if last > 0 else 0):
        hashes = _mix(hashes + words[place : last + place])
    within = rows[:last] == rows[_SHINGLE_WORDS - 1 :] if last > 0 else np.zeros(0, bool)
    hashes = np.concatenate([hashes[within], _mix(whole[short_rows])])
    rows = np.concatenate([rows[: len(within)][within], short_rows])
    keys = np.sort((rows.astype(np.uint64) << _HASH_BITS) | (hashes >> (np.uint64(64) - _HASH_BITS)))
    return keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys


def _mix(hashes: _Hashes) -> _Hashes:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _bucket(length: int) -> int:
    return 1 << length.bit_length()


@lru_cache(maxsize=64)
def _powers(count: int, inverse: bool = False) -> _Hashes:
    base = pow(_BASE, -1, 1 << 64) if inverse else _BASE
    return np.cumprod(np.append(np.uint64(1), np.full(count - 1, base, np.uint64)), dtype=np.uint64)


_LETTER_OF_BYTE = _letter_table()
