"""Finds the clean records in a stretch of CSV bytes and parses them with Arrow.

A record is clean when RFC 4180 leaves no doubt about it: every quote is around a field or doubled inside one, the
number of fields is right, it is UTF-8 without a NUL byte, and no line inside its text could start another record.
Whether a quote opens or closes depends on how many came before it, counted from a place outside quotes. That count is
even or odd. Each case is worked out once, so the cost is linear however often a broken quote flips one into the other.
"""

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from assets.ingestion.layout import Layout
from assets.ingestion.records import tabulate

__all__ = ["Clean", "Places", "Stretch", "parse"]

Places = npt.NDArray[np.int64]
"""Offsets of bytes, ascending."""

_NUL, _LF, _CR, _QUOTE, _HIGH = 0, 10, 13, 34, 128
_NONE: Places = np.empty(0, np.int64)
_BYTE_ORDER_MARK = "\ufeff".encode()


class Stretch:
    """A stretch of an object, from the start of a record.

    It is in no reference cycle, so its memory is freed as soon as its rows are built.
    """

    def __init__(self, data: bytes, layout: Layout, max_record: int) -> None:
        self.data, self.layout, self.max_record = data, layout, max_record
        self.array = np.frombuffer(data, np.uint8)
        self.quotes: Places = np.flatnonzero(self.array == _QUOTE)
        self.separators: Places = np.flatnonzero(self.array == ord(layout.delimiter))
        self.line_ends: Places = np.flatnonzero(self.array == _LF)

    def lines_before(self, places: Places | int) -> Places:
        """The number of line ends before a place, or before each of several."""
        return np.searchsorted(self.line_ends, places)

    @cached_property
    def line_starts(self) -> list[int]:
        """Where each line starts, and where the last one ends."""
        starts = [0, *(self.line_ends + 1).tolist()]
        return starts if starts[-1] == len(self.data) else [*starts, len(self.data)]

    @cached_property
    def separators_in_line(self) -> Places:
        return np.diff(np.searchsorted(self.separators, self.line_ends), prepend=0)

    def may_start_records(self) -> list[int]:
        """Lines for which `Layout.starts_record` may be true, including a last line without an end."""
        starts = np.concatenate([[0], self.line_ends + 1])
        may = self.layout.may_start_record(self.separators_in_line, self.array[starts[:-1]])
        return [*np.flatnonzero(may).tolist(), len(self.line_ends)]

    def parts_records(self, line: int) -> bool:
        """Whether this line looks like the end of a record and the next one like the start of another."""
        starts = self.line_starts
        ends = self.text(starts[line], starts[line + 1]), self.text(starts[line + 1], starts[line + 2])
        return self.layout.parts_records(*ends)

    def text(self, start: int, stop: int) -> str:
        """Part of the data as text; bytes that are not UTF-8 become surrogates."""
        return self.data[start:stop].decode(errors="surrogateescape")


class Clean:
    """The clean records of a stretch."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._counts: dict[int, _Count] = {}

    def run(self, start: int) -> tuple[int, Places]:
        """From the start of a record: where the run of clean records ends, and where each of them starts.

        A run ends at a doubtful record, or where no whole record follows. Call it with ascending starts.
        """
        odd = int(np.searchsorted(self._stretch.quotes, start)) % 2
        if odd not in self._counts:
            self._counts[odd] = _Count(self._stretch, odd)
        return self._counts[odd].run(start)


class _Count:
    """The records of a stretch, where text outside quotes has an even (or an odd) number of quotes before it."""

    def __init__(self, stretch: Stretch, odd: int) -> None:
        self._stretch, self._odd = stretch, odd
        inside = self._inside(stretch.line_ends)
        ends = stretch.line_ends[~inside]
        self._bounds: Places = ends if odd else np.concatenate([[-1], ends])
        """The line ends around records."""
        faults = np.concatenate([*self._misplaced(), self._miscounted(), self._too_long(), self._not_utf_8()])
        self._doubtful = self._starts_of(faults).tolist()
        self._partings = np.flatnonzero(inside)[self._may_part(np.flatnonzero(inside))].tolist()
        self._next_parting = 0

    def run(self, start: int) -> tuple[int, Places]:
        stop = max(start, int(self._bounds[-1]) + 1) if len(self._bounds) else start
        if (place := bisect_left(self._doubtful, start)) < len(self._doubtful):
            stop = self._doubtful[place]
        if stop > start:
            stop = self._parted(start, stop)
        if stop == start:
            return stop, _NONE
        first, last = np.searchsorted(self._bounds, (start - 1, stop - 1))
        starts = self._bounds[first:last] + 1
        return stop, starts[~self._blank(starts, self._bounds[first + 1 : last + 1])]

    def _parted(self, start: int, stop: int) -> int:
        """Where the first record before `stop` that contains others starts; `stop` if none does."""
        while self._next_parting < len(self._partings):
            line = self._partings[self._next_parting]
            end = int(self._stretch.line_ends[line])
            if end >= stop:
                break
            if end >= start and self._stretch.parts_records(line):
                return int(self._starts_of(np.array([end]))[0])
            self._next_parting += 1
        return stop

    def _inside(self, places: Places) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = np.searchsorted(self._stretch.quotes, places) % 2 != self._odd
        return inside

    def _starts_of(self, places: Places) -> Places:
        """The starts of the records that contain these places, each once."""
        record = np.searchsorted(self._bounds, places) - 1
        holds = np.zeros(len(self._bounds), bool)
        holds[record[(record >= 0) & (record < len(self._bounds) - 1)]] = True
        starts: Places = self._bounds[holds] + 1
        return starts

    def _misplaced(self) -> Iterator[Places]:
        """Quotes that are not around a field, carriage returns outside quotes and line ends, and NUL bytes."""
        array, separator = self._stretch.array, ord(self._stretch.layout.delimiter)
        before_opening = np.isin(np.arange(256), [_LF, _QUOTE, separator])
        after_closing = before_opening | (np.arange(256) == _CR)
        opening, closing = self._stretch.quotes[self._odd :: 2], self._stretch.quotes[1 - self._odd :: 2]
        yield opening[~before_opening[array.take(opening - 1, mode="clip")]]
        yield closing[~after_closing[array.take(closing + 1, mode="clip")]]
        returns = np.flatnonzero(array == _CR)
        yield returns[(array.take(returns + 1, mode="clip") != _LF) & ~self._inside(returns)]
        yield np.flatnonzero(array == _NUL)

    def _miscounted(self) -> Places:
        separators = self._stretch.separators[~self._inside(self._stretch.separators)]
        starts, ends = self._bounds[:-1] + 1, self._bounds[1:]
        counts = np.diff(np.searchsorted(separators, self._bounds))
        miscounted: Places = starts[(counts != self._stretch.layout.width - 1) & ~self._blank(starts, ends)]
        return miscounted

    def _too_long(self) -> Places:
        starts: Places = self._bounds[:-1][np.diff(self._bounds) > self._stretch.max_record] + 1
        return starts

    def _not_utf_8(self) -> Places:
        """Records that are not UTF-8, or start with a byte order mark, which Arrow would drop."""
        starts = self._starts_of(np.flatnonzero(self._stretch.array >= _HIGH))
        stops = self._bounds[np.searchsorted(self._bounds, starts)] + 1
        texts = (self._stretch.data[start:stop] for start, stop in zip(starts, stops, strict=True))
        odd: Places = starts[np.fromiter((_is_odd_text(text) for text in texts), bool, len(starts))]
        return odd

    def _may_part(self, lines: Places) -> npt.NDArray[np.bool_]:
        counts = np.append(self._stretch.separators_in_line, 0)
        first = self._stretch.array.take(self._stretch.line_ends[lines] + 1, mode="clip")
        may: npt.NDArray[np.bool_] = self._stretch.layout.may_part_records(counts[lines], counts[lines + 1], first)
        return may

    def _blank(self, starts: Places, ends: Places) -> npt.NDArray[np.bool_]:
        blank: npt.NDArray[np.bool_] = (ends == starts) | ((ends == starts + 1) & (self._stretch.array[starts] == _CR))
        return blank


def _is_odd_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return data.startswith(_BYTE_ORDER_MARK)


def parse(data: bytes, layout: Layout, lines: Places) -> pa.Table:
    """Consecutive clean records as a table by `record_schema`; `lines` has the line number of each."""
    names = [name or f"{place}" for place, name in enumerate(layout.columns)]
    known = [name for name in layout.columns if name]
    table = pacsv.read_csv(
        pa.BufferReader(data),
        pacsv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
        pacsv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True),
        pacsv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(known, pa.string()),
            include_columns=known,
            null_values=[""],
            strings_can_be_null=True,
        ),
    ).combine_chunks()
    assert len(table) == len(lines), "Arrow splits these records differently"
    return tabulate(layout.domain, {name: table[name].chunk(0) for name in known}, pa.array(lines))
