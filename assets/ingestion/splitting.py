"""Cuts a stream of CSV bytes into records (RFC 4180, multi-line quoted text) so that a broken one takes no neighbour.

Stretches of clean records are found and parsed as arrays (`clean`). Only a doubtful record is looked at with care
(`doubtful`): one that is none ends where the next one starts, as the layout says what a start looks like, and reading
resumes there. Quotes that balance are not enough: two lone quotes in nearby records enclose all that lies between. So
a record of several lines is broken, too, when inside its text one record ends and the next one starts.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from assets.ingestion.clean import Clean, Places, Stretch, parse
from assets.ingestion.doubtful import TOO_LONG, Doubtful
from assets.ingestion.layout import HeaderError, Layout, read_header
from assets.ingestion.records import NOT_UTF_8, Record, Reject, Rows, readable, tabulate_records
from assets.ingestion.unpacking import DamagedError

__all__ = ["UNFINISHED", "Limits", "split"]

UNFINISHED = "unfinished-last-line"
_LINE_END = b"\n"


@dataclass(frozen=True)
class Limits:
    """What is held in memory at a time, in bytes."""

    record: int
    """A record that is longer, or whose quotes are open for longer, is broken."""
    chunk: int
    """The stretch that is read at a time."""


class _Window(NamedTuple):
    """Whole lines, but for the last, which can lack its end: the object's last line, or one cut short."""

    data: bytes
    final: bool
    cut: str | None
    """Why the last line is not to be trusted, if it has no end."""
    damage: str | None = None
    """Why the object cannot be read from here on."""

    def doubtful(self, stretch: Stretch, line: int) -> Doubtful:
        over, cut = self.final or self.cut is not None, self.cut if self.final else None
        return Doubtful(stretch, line, over=over, cut=cut, damaged=self.damage is not None)


def split(blocks: Iterable[bytes], limits: Limits, optional: frozenset[str], *, whole: bool) -> Iterator[Rows]:
    """The rows of an object, header first, in order, a stretch at a time.

    `blocks` may raise DamagedError after its last good block: what follows the last whole record is then one reject
    with that reason. Columns in `optional` may be absent from the header. A header that cannot be used is one reject,
    at line 1. `whole` says that the object is known to be complete; a last line that has no end is a reject otherwise,
    since a record that was cut inside its last field looks like any other. Time grows with the size alone; memory stays
    within a few chunks and records.
    """
    windows = _windows(blocks, limits, whole)
    first = _with_header(windows)
    header, end, rest = first.data.partition(_LINE_END)
    try:
        if first.cut and not end:
            raise HeaderError(first.cut)
        layout = _layout(header.decode(errors="surrogateescape"), optional)
    except HeaderError as fault:
        yield _refused(str(fault), header)
        return
    csv.field_size_limit(max(csv.field_size_limit(), limits.record + 1))
    if layout.notes:
        yield Rows(tabulate_records([]), (), layout.notes)
    splitter = _Splitter(layout, limits.record)
    yield splitter.rows(first._replace(data=rest))
    yield from map(splitter.rows, windows)


def _refused(reason: str, header: bytes) -> Rows:
    text = readable(header.rstrip(b"\r\n").decode(errors="surrogateescape"))
    return Rows(tabulate_records([]), [Reject(1, reason, text, of_object=True)])


def _windows(blocks: Iterable[bytes], limits: Limits, whole: bool) -> Iterator[_Window]:
    rest, damage = b"", None
    chunks = _chunks(blocks, limits.chunk)
    try:
        for chunk in chunks:
            lines, end, rest = (rest + chunk).rpartition(_LINE_END)
            if len(rest) > limits.record:
                yield _Window(lines + end + rest, False, TOO_LONG)
                rest = b""
            elif end:
                yield _Window(lines + end, False, None)
    except DamagedError as error:
        damage = str(error)
    yield _Window(rest, True, damage or (UNFINISHED if rest and not whole else None), damage)


def _chunks(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of at least `size`, the last one excepted; what came before damage is not lost."""
    held, length = [], 0
    try:
        for block in filter(None, blocks):
            held.append(block)
            length += len(block)
            if length >= size:
                yield b"".join(held)
                held, length = [], 0
    except DamagedError:
        yield b"".join(held)
        raise
    yield b"".join(held)


def _with_header(windows: Iterator[_Window]) -> _Window:
    """The first window with a line in it, or the only one."""
    return next(window for window in windows if window.data or window.final)


def _layout(header: str, optional: frozenset[str]) -> Layout:
    text = header.removeprefix("\ufeff")
    if not text.strip():
        raise HeaderError("empty-object")
    if readable(text) != text:
        raise HeaderError(NOT_UTF_8)
    try:
        return read_header(next(csv.reader([text], strict=True)), optional)
    except csv.Error:
        raise HeaderError("unreadable-header") from None


class _Splitter:
    """Keeps the lines that no row was made of yet."""

    def __init__(self, layout: Layout, max_record: int) -> None:
        self._layout = layout
        self._max_record = max_record
        self._rest = b""
        self._line = 2
        """The number of the line at which `_rest` starts; the header is line 1."""

    def rows(self, window: _Window) -> Rows:
        """The rows that these lines complete: clean and doubtful ones in turn, up to what only more lines can tell."""
        stretch = Stretch(self._rest + window.data, self._layout, self._max_record)
        found, clean, doubtful, at = _Found([], [], [], []), Clean(stretch), None, 0
        while at < len(stretch.data):
            start = at
            at, starts = clean.run(start)
            found.runs.append(memoryview(stretch.data)[start:at])
            found.starts.append(starts)
            if at == len(stretch.data):
                break
            doubtful = doubtful or window.doubtful(stretch, self._line)
            if (row := doubtful.row(at)) is None:
                break
            found.add(row[0])
            at = row[1]
        rows = found.rows(stretch, self._line)
        self._rest, self._line = stretch.data[at:], self._line + int(stretch.lines_before(at))
        if window.damage and not (found.rejects and found.rejects[-1].reason == window.damage):
            found.rejects.append(Reject(self._line, window.damage, "", of_object=True))
        return rows


@dataclass(frozen=True)
class _Found:
    """What was found in a window so far."""

    runs: list[memoryview]
    starts: list[Places]
    """Where each record of a run starts."""
    records: list[Record]
    rejects: list[Reject]

    def add(self, row: Record | Reject | None) -> None:
        if isinstance(row, Record):
            self.records.append(row)
        elif row is not None:
            self.rejects.append(row)

    def rows(self, stretch: Stretch, line: int) -> Rows:
        """The rows, if the window starts at this line."""
        starts = np.concatenate([*self.starts, np.empty(0, np.int64)])
        lines = line + stretch.lines_before(starts)
        clean = parse(b"".join(self.runs), stretch.layout, lines) if len(lines) else tabulate_records([])
        if not self.records:
            return Rows(clean, self.rejects)
        table = pa.concat_tables([clean, tabulate_records(self.records)])
        return Rows(table.sort_by("line"), self.rejects)
