"""An exact search for near duplicates between two sets of texts, without comparing all pairs.

A text is reduced to its words: runs of letters, in lower case, without redactions (words of x only); digits,
punctuation and spaces only separate words. Two texts are near duplicates when their first 120 characters agree (form
letters, and equal texts), or when their sets of 5-word shingles have a Jaccard similarity (Broder 1997) of at least a
threshold t.

Similar pairs are found by prefix filtering (Chaudhuri, Ganti, Kaushik 2006; Bayardo, Ma, Srikant 2007): with the
shingles of every set in one order, rarest first, sets A and B with Jaccard >= t share one of the first
|A| - t|A| + 1 of A and of the first |B| - t|B| + 1 of B. The place of the first shared shingle bounds how many they can
share (Xiao, Wang, Lin, Yu 2008); that leaves few candidates, whose similarity is then computed. Nothing is sampled; the
only approximation is that shingles are compared by 48 bits of a hash.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Duplicates", "find_duplicates", "hash_starts"]

_PREFIX_CHARACTERS = 120
_SHINGLE_WORDS = 5
_ROWS = 1 << 10
"""Rows hashed at a time, which bounds memory."""
_PAIRS = 1 << 20
"""Pairs of a shingle and a row compared at a time, which bounds memory where many texts are alike."""
_HASH_BITS = np.uint64(48)
"""The low bits of a sort key that hold the shingle's hash; the high bits hold the row's place among `_ROWS`."""
_ROUNDING = 1e-9
"""How much bounds are widened, so that rounding never excludes what the final comparison accepts."""

_Hashes = npt.NDArray[np.uint64]
_Indices = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]

_T = TypeVar("_T")

_BASE = 0x9E3779B97F4A7C15
"""An odd number, so that it has an inverse modulo 2^64: 2^64 over the golden ratio (Knuth, TAOCP 3, 6.4)."""


@dataclass(frozen=True)
class Duplicates:
    """Which of the searched texts have a near duplicate among the others, by rule."""

    same_start: _Flags
    similar: _Flags

    @property
    def any(self) -> _Flags:
        return self.same_start | self.similar


def find_duplicates(rows: pa.Table, others: pa.Table, similarity: float) -> Duplicates:
    """For each of `rows`: does its text have a near duplicate among those of `others`?

    Both have the columns `text` (strings, no nulls) and `start` (its `hash_starts`). `similarity` is the Jaccard
    threshold, above 0; rows that start alike are not searched for similar texts. Takes about 20 microseconds of one
    core per KB of text, and memory for the shingles of `others`, which should be the smaller set.
    """
    starts = np.asarray(others["start"])
    same_start = np.isin(np.asarray(rows["start"]), starts[starts > 0])
    index = _Index.of(_map(_shingles, others["text"]), similarity)
    similar = np.zeros(len(same_start), bool)
    unlike = rows["text"].filter(pa.array(~same_start))
    similar[~same_start] = np.concatenate([np.zeros(0, bool), *_map(lambda s: index.similar(_shingles(s)), unlike)])
    return Duplicates(same_start, similar)


def hash_starts(texts: pa.ChunkedArray) -> _Hashes:
    """For each text (strings, no nulls), a hash of the first 120 characters of its words; 0 for a text without words.

    Texts that start alike have the same hash.
    """
    return np.concatenate([np.zeros(0, np.uint64), *_map(_starts, texts)])


@dataclass(frozen=True)
class _Sets:
    """The sets of shingles of some texts."""

    sizes: _Indices
    """Shingles of each row."""
    rows: _Indices
    """The row of every shingle, ascending."""
    shingles: _Hashes


@dataclass(frozen=True)
class _Index:
    """An index of sets to search for similar ones. A shingle is identified by its rank: the rarest has rank 0."""

    similarity: float
    sizes: _Indices
    """Shingles of each set."""
    members: _Indices
    """For each shingle of each set, the set's number times the number of ranks plus the shingle's rank, ascending."""
    shingles: _Hashes
    """Distinct, ascending."""
    ranks: _Indices
    """The rank of each of `shingles`."""
    begins: _Indices
    """For each rank, where the sets with it among their first ranks begin in `sets`; one entry more than ranks."""
    sets: _Indices
    places: _Indices
    """The rank's place in each of those sets."""
    filter: _Flags
    """Whether some shingle has these low bits, which makes most searches unnecessary."""

    @classmethod
    def of(cls, batches: list[_Sets], similarity: float) -> "_Index":
        sizes = np.concatenate([np.zeros(0, np.int64), *(batch.sizes for batch in batches)])
        shingles = np.concatenate([np.zeros(0, np.uint64), *(batch.shingles for batch in batches)])
        distinct, which, counts = np.unique(shingles, return_inverse=True, return_counts=True)
        ranks = np.empty(len(distinct), np.int64)
        ranks[np.argsort(counts, kind="stable")] = np.arange(len(distinct))
        members = np.sort(np.repeat(np.arange(len(sizes)), sizes) * len(distinct) + ranks[which])
        sets, ranked = np.divmod(members, max(len(distinct), 1))
        places = _places(sets, sizes)
        first = places < _first(sizes, similarity)[sets]
        order = np.argsort(ranked[first], kind="stable")
        low = np.zeros(1 << 22, bool)
        low[(distinct & np.uint64(len(low) - 1)).astype(np.int64)] = True
        return cls(
            similarity=similarity,
            sizes=sizes,
            members=members,
            shingles=distinct,
            ranks=ranks,
            begins=_begins(np.bincount(ranked[first], minlength=len(distinct))),
            sets=sets[first][order],
            places=places[first][order],
            filter=low,
        )

    def similar(self, some: _Sets) -> _Flags:
        """Which of some sets have a Jaccard similarity of at least `similarity` with a set of the index."""
        similar = np.zeros(len(some.sizes), bool)
        rows = self._promising(some)
        # Where many sets are alike, the first match usually is similar too, and the others need no comparison.
        for most in (1, len(self.sizes)):
            first = np.flatnonzero(rows.is_first & ~similar[rows.rows])
            for probes in _pieces(first, self._meets(rows.ranks[first], most)):
                mine, other = self._candidates(rows, probes, most)
                for pairs in _pieces(np.arange(len(mine)), rows.known[mine]):
                    alike = self._are_alike(rows, mine[pairs], other[pairs])
                    similar[mine[pairs][alike]] = True
        return similar

    def _promising(self, some: _Sets) -> "_Ranked":
        """The rows that share enough shingles with all sets together, with those shingles.

        |A and B| >= t |A or B| >= t |A|: a row that shares fewer is similar to none.
        """
        ranks = self._ranks(some.shingles)
        known = np.bincount(some.rows[ranks >= 0], minlength=len(some.sizes))
        known[known < self.similarity * some.sizes] = 0
        shared = (ranks >= 0) & (known > 0)[some.rows]
        count = max(len(self.shingles), 1)
        rows, ranks = np.divmod(np.sort(some.rows[shared] * count + ranks[shared]), count)
        places = _places(rows, known) + (some.sizes - known)[rows]
        return _Ranked(some.sizes, known, rows, ranks, places, places < _first(some.sizes, self.similarity)[rows])

    def _ranks(self, shingles: _Hashes) -> _Indices:
        """The rank of each shingle, or -1."""
        ranks = np.full(len(shingles), -1, np.int64)
        if not len(self.shingles):
            return ranks
        maybe = np.flatnonzero(self.filter[(shingles & np.uint64(len(self.filter) - 1)).astype(np.int64)])
        nearest = np.minimum(np.searchsorted(self.shingles, shingles[maybe]), len(self.shingles) - 1)
        hit = self.shingles[nearest] == shingles[maybe]
        ranks[maybe[hit]] = self.ranks[nearest[hit]]
        return ranks

    def _meets(self, ranks: _Indices, most: int) -> _Indices:
        """How many sets have each rank among their first ones, up to `most`."""
        meets: _Indices = np.minimum(self.begins[ranks + 1] - self.begins[ranks], most)
        return meets

    def _candidates(self, some: "_Ranked", probes: _Indices, most: int) -> tuple[_Indices, _Indices]:
        """Pairs of a row and a set that share one of these shingles and may be similar, each once.

        After the first shared shingle, both can share at most what remains of the smaller one.
        """
        ranks = some.ranks[probes]
        probe, posting = _expand(self.begins[ranks], self._meets(ranks, most))
        mine, other = some.rows[probes][probe], self.sets[posting]
        size, its = some.sizes[mine], self.sizes[other]
        fits = np.flatnonzero((its >= self.similarity * size) & (its * self.similarity <= size))
        _, meetings = np.unique(mine[fits] * len(self.sizes) + other[fits], return_index=True)
        met = fits[meetings]
        size, its = size[met], its[met]
        rest = np.minimum(size - some.places[probes][probe[met]], its - self.places[posting[met]])
        may = met[rest >= self.similarity * (size + its - rest) - _ROUNDING]
        return mine[may], other[may]

    def _are_alike(self, some: "_Ranked", mine: _Indices, other: _Indices) -> _Flags:
        """Whether a row and a set are similar, pair by pair."""
        pair, shingle = _expand(_begins(some.known)[mine], some.known[mine])
        keys = other[pair] * len(self.shingles) + some.ranks[shingle]
        has = self.members[np.minimum(np.searchsorted(self.members, keys), len(self.members) - 1)] == keys
        shared = np.bincount(pair[has], minlength=len(mine))
        alike: _Flags = shared >= self.similarity * (some.sizes[mine] + self.sizes[other] - shared)
        return alike


@dataclass(frozen=True)
class _Ranked:
    """Rows with those of their shingles that an index has, in order of row and rank."""

    sizes: _Indices
    """Shingles of each row, whether the index has them or not."""
    known: _Indices
    """Shingles of each row that the index has."""
    rows: _Indices
    ranks: _Indices
    places: _Indices
    """The place of each shingle in its row; those the index does not have come first."""
    is_first: _Flags
    """Whether the shingle is one of the row's first ones, of which every similar set shares one."""


def _first(sizes: _Indices, similarity: float) -> _Indices:
    """How many of a set's first shingles are enough for every similar set to share one."""
    first: _Indices = sizes - np.ceil(similarity * sizes - _ROUNDING).astype(np.int64) + 1
    return first


def _begins(counts: _Indices) -> _Indices:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _places(rows: _Indices, counts: _Indices) -> _Indices:
    """The place of each item within its row, for ordered rows with these numbers of items."""
    return np.arange(len(rows)) - _begins(counts)[rows]


def _expand(begins: _Indices, counts: _Indices) -> tuple[_Indices, _Indices]:
    """For ranges of numbers: the range of every number, and the number."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) + (begins - _begins(counts)[:-1])[which]


def _pieces(items: _Indices, weights: _Indices) -> list[_Indices]:
    """Items in pieces that each weigh about `_PAIRS`."""
    ends = np.cumsum(weights)
    return np.split(items, np.searchsorted(ends, np.arange(_PAIRS, ends[-1] if len(ends) else 0, _PAIRS)))


def _map(function: Callable[[pa.LargeStringArray], _T], texts: pa.ChunkedArray) -> list[_T]:
    """Apply a function to every slice of some texts, on all cores: NumPy releases the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, _slices(texts)))


def _slices(texts: pa.ChunkedArray) -> Iterator[pa.LargeStringArray]:
    for chunk in texts.cast(pa.large_string()).chunks:
        for first in range(0, len(chunk), _ROWS):
            yield chunk.slice(first, _ROWS)


@dataclass(frozen=True)
class _Words:
    """The words of some texts, as offsets into their letters."""

    letters: npt.NDArray[np.uint8]
    begins: _Indices
    ends: _Indices
    rows: _Indices
    """The row of every word, ascending."""
    counts: _Indices
    """Words of each row."""


def _starts(texts: pa.LargeStringArray) -> _Hashes:
    words = _words(texts)
    cut = _cut(words)
    within = np.flatnonzero(cut > words.begins)
    some = replace(
        words,
        begins=words.begins[within],
        ends=cut[within],
        rows=words.rows[within],
        counts=np.bincount(words.rows[within], minlength=len(words.counts)),
    )
    return _hash_rows(_hash_words(some), some)


def _shingles(texts: pa.LargeStringArray) -> _Sets:
    words = _words(texts)
    hashes = _hash_words(words)
    keys = _shingle_keys(hashes, words)
    rows = (keys >> _HASH_BITS).astype(np.int64)
    shingles = keys & ((np.uint64(1) << _HASH_BITS) - np.uint64(1))
    return _Sets(np.bincount(rows, minlength=len(words.counts)), rows, shingles)


def _words(texts: pa.LargeStringArray) -> _Words:
    """Every word that is not a redaction."""
    letters, offsets = _letters(texts)
    inside = np.zeros(len(letters) + 2, bool)
    np.greater(letters, 0, out=inside[1:-1])
    edge = np.zeros(len(letters) + 1, bool)
    edge[offsets] = True
    begins = np.flatnonzero(inside[1:-1] & (edge[:-1] | ~inside[:-2]))
    ends = np.flatnonzero(inside[1:-1] & (edge[1:] | ~inside[2:])) + 1
    other_letters = np.zeros(len(letters) + 1, np.int32)
    np.cumsum(inside[1:-1] & (letters != ord("x")), out=other_letters[1:])
    unredacted = other_letters[ends] > other_letters[begins]
    begins, ends = begins[unredacted], ends[unredacted]
    rows = np.searchsorted(offsets, begins, side="right") - 1
    return _Words(letters, begins, ends, rows, np.bincount(rows, minlength=len(texts)))


def _letters(texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.uint8], _Indices]:
    """Every byte as a letter's code, 0 where it is not a letter, and the offset of each text, plus the end."""
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.zeros(0, np.uint8)
    return _LETTER_OF_BYTE[text], offsets - offsets[0]


def _letter_table() -> npt.NDArray[np.uint8]:
    # Bytes from 128 up belong to letters outside ASCII, which stay as they are.
    return np.array([ord(chr(b).lower()) if b >= 128 or chr(b).isalpha() else 0 for b in range(256)], np.uint8)


def _cut(words: _Words) -> _Indices:
    """Where each word ends when a text, with one space between words, is cut after its first characters."""
    before = _begins(words.ends - words.begins + 1)
    so_far = before[:-1] - before[_begins(words.counts)[words.rows]]
    cut: _Indices = np.clip(words.begins + _PREFIX_CHARACTERS - so_far, words.begins, words.ends)
    return cut


def _hash_words(words: _Words) -> _Hashes:
    """A polynomial hash of the letters of each word, divided by the power at which the word begins."""
    bucket = _bucket(len(words.letters) + 1)
    sums = np.zeros(len(words.letters) + 1, np.uint64)
    np.cumsum(words.letters * _powers(bucket)[: len(words.letters)], out=sums[1:])
    return _mix((sums[words.ends] - sums[words.begins]) * _powers(bucket, inverse=True)[words.begins])


def _hash_rows(hashes: _Hashes, words: _Words) -> _Hashes:
    """A hash of the words of each row in order, 0 for a row without any."""
    powers = _powers(_bucket(len(hashes)))[_places(words.rows, words.counts)]
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * powers, out=sums[1:])
    return np.diff(sums[_begins(words.counts)])


def _shingle_keys(hashes: _Hashes, words: _Words) -> _Hashes:
    """Distinct (row, hash) keys, ascending; a text with fewer words than a shingle is one shingle."""
    last = max(len(hashes) - _SHINGLE_WORDS + 1, 0)
    shingles = np.zeros(last, np.uint64)
    for place in range(_SHINGLE_WORDS if last else 0):
        shingles = _mix(shingles + hashes[place : last + place])
    within = np.flatnonzero(words.rows[:last] == words.rows[len(hashes) - last :])
    short = np.flatnonzero((words.counts > 0) & (words.counts < _SHINGLE_WORDS))
    shingles = np.concatenate([shingles[within], _mix(_hash_rows(hashes, words)[short])])
    rows = np.concatenate([words.rows[within], short])
    keys = np.sort((rows.astype(np.uint64) << _HASH_BITS) | (shingles >> (np.uint64(64) - _HASH_BITS)))
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
