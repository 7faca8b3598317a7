"""Finds, in a stretch of CSV bytes, the records that nothing is wrong with, and parses them with Arrow.

Clean is what RFC 4180 leaves no doubt about: every quote around a field or doubled inside one, the right number of
fields, UTF-8 without a NUL byte, and no line inside the text at which another record may start. Whether a quote opens
or closes is a matter of how many came before it, counted from a place that lies outside of quotes. There are two such
counts, even and odd, and each is gone through once: the cost is linear, however often a broken quote turns the one
into the other.
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
    """A stretch of an object that starts at the start of a record.

    Nothing here or in what looks at it refers back to itself: a stretch is gone as soon as its rows are made.
    """

    def __init__(self, data: bytes, layout: Layout, max_record: int) -> None:
        self.data, self.layout, self.max_record = data, layout, max_record
        self.array = np.frombuffer(data, np.uint8)
        self.quotes: Places = np.flatnonzero(self.array == _QUOTE)
        self.separators: Places = np.flatnonzero(self.array == ord(layout.delimiter))
        self.line_ends: Places = np.flatnonzero(self.array == _LF)

    def lines_before(self, places: Places | int) -> Places:
        """How many line ends lie before a place, or before each of several."""
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
        """Lines that `Layout.starts_record` may be true of; the last one among them if it has no end."""
        starts = np.concatenate([[0], self.line_ends + 1])
        may = self.layout.may_start_record(self.separators_in_line, self.array[starts[:-1]])
        return [*np.flatnonzero(may).tolist(), len(self.line_ends)]

    def parts_records(self, line: int) -> bool:
        """Whether one record ends with this line, and another starts with the next, by their looks."""
        starts = self.line_starts
        ends = self.text(starts[line], starts[line + 1]), self.text(starts[line + 1], starts[line + 2])
        return self.layout.parts_records(*ends)

    def text(self, start: int, stop: int) -> str:
        """A part of the data; bytes that are not UTF-8 as surrogates."""
        return self.data[start:stop].decode(errors="surrogateescape")


class Clean:
    """The clean records of a stretch."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._counts: dict[int, _Count] = {}

    def run(self, start: int) -> tuple[int, Places]:
        """From the start of a record: where the clean records end, and where each of them starts.

        They end at a doubtful record, or where no whole record follows. Starts must be asked for in their order.
        """
        odd = int(np.searchsorted(self._stretch.quotes, start)) % 2
        if odd not in self._counts:
            self._counts[odd] = _Count(self._stretch, odd)
        return self._counts[odd].run(start)


class _Count:
    """The records of a stretch, if what lies outside of quotes has an even (or an odd) number of quotes before it."""

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
        """Where the first record before `stop` starts that holds others."""
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
        """Where the records start that hold these places, each once."""
        record = np.searchsorted(self._bounds, places) - 1
        holds = np.zeros(len(self._bounds), bool)
        holds[record[(record >= 0) & (record < len(self._bounds) - 1)]] = True
        starts: Places = self._bounds[holds] + 1
        return starts

    def _misplaced(self) -> Iterator[Places]:
        """Quotes that do not stand around a field, carriage returns outside of quotes and of line ends, NUL bytes."""
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
        found = np.diff(np.searchsorted(separators, self._bounds))
        miscounted: Places = starts[(found != self._stretch.layout.width - 1) & ~self._blank(starts, ends)]
        return miscounted

    def _too_long(self) -> Places:
        starts: Places = self._bounds[:-1][np.diff(self._bounds) > self._stretch.max_record] + 1
        return starts

    def _not_utf_8(self) -> Places:
        """Records that cannot be decoded, or start with a mark that Arrow would drop."""
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
    """Clean records, one after the other, as a table by `record_schema`; `lines` has the number of each."""
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
    assert len(table) == len(lines), "Arrow cuts these records in another way"
    return tabulate(layout.domain, {name: table[name].chunk(0) for name in known}, pa.array(lines))
