"""Splits a stream of CSV bytes into records (RFC 4180, multi-line quoted text); a broken one takes no neighbour along.

Stretches of clean records are found and parsed as arrays (`clean`). Only doubtful records are examined one by one
(`doubtful`): a broken one ends where the next record starts, by what the layout says a start looks like, and reading
resumes there. Balanced quotes are not enough: two lone quotes in nearby records enclose everything between them. So
a record of several lines is also broken when one record ends and another starts inside its text.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assets.ingestion.clean import Clean, Places, Stretch, parse
from assets.ingestion.doubtful import Doubtful
from assets.ingestion.layout import HeaderError, Layout, read_header, read_row
from assets.ingestion.records import NOT_UTF_8, Record, Reject, Rows, no_records, readable, tabulate_records
from assets.ingestion.windows import Limits, Window, windows
from assets.settings import Domain

__all__ = ["split"]

_LINE_END = b"\n"


def split(
    blocks: Iterable[bytes], limits: Limits, domain: Domain, optional: frozenset[str], *, whole: bool
) -> Iterator[Rows]:
    """The rows of an object, header first, in order, a stretch at a time.

    `blocks` may raise DamagedError after its last good block: everything after the last whole record is then one reject
    with that reason. Fields in `optional` may be absent from the header. An unusable header is one reject, at line 1.
    `whole` says that the object is known to be complete; otherwise a last line without an end is a reject, since a
    record cut inside its last field looks like any other. Time is linear in the size; memory stays within a few chunks
    and records.
    """
    remaining = windows(blocks, limits, whole)
    first = _with_header(remaining)
    header, end, rest = first.data.partition(_LINE_END)
    try:
        if first.cut and not end:
            raise HeaderError(first.cut)
        layout = _layout(header.decode(errors="surrogateescape"), domain, optional)
    except HeaderError as fault:
        yield _refused(domain, fault, header)
        return
    csv.field_size_limit(max(csv.field_size_limit(), limits.record + 1))
    if layout.notes:
        yield Rows(no_records(domain), (), layout.notes)
    splitter = _Splitter(layout, limits.record)
    yield splitter.rows(first._replace(data=rest))
    yield from map(splitter.rows, remaining)


def _refused(domain: Domain, fault: HeaderError, header: bytes) -> Rows:
    text = readable(header.rstrip(b"\r\n").decode(errors="surrogateescape"))
    return Rows(no_records(domain), [Reject(1, str(fault), text, of_object=True)], header_fault=fault.fault)


def _with_header(remaining: Iterator[Window]) -> Window:
    """The first window with data, or the final one."""
    return next(window for window in remaining if window.data or window.final)


def _layout(header: str, domain: Domain, optional: frozenset[str]) -> Layout:
    text = header.removeprefix("\ufeff")
    if not text.strip():
        raise HeaderError("empty-object")
    if readable(text) != text:
        raise HeaderError(NOT_UTF_8)
    names = read_row(text, domain.source.delimiter)
    if names is None:
        raise HeaderError("unreadable-header")
    return read_header(names, domain, optional)


class _Splitter:
    """Holds the lines not yet turned into rows."""

    def __init__(self, layout: Layout, max_record: int) -> None:
        self._layout = layout
        self._max_record = max_record
        self._rest = b""
        self._line = 2
        """The number of the line at which `_rest` starts; the header is line 1."""

    def rows(self, window: Window) -> Rows:
        """The rows these lines complete, clean and doubtful in turn, up to a record that needs more lines."""
        stretch = Stretch(self._rest + window.data, self._layout, self._max_record)
        parts, clean, doubtful, at = _Parts([], [], [], []), Clean(stretch), None, 0
        while at < len(stretch.data):
            start = at
            at, starts = clean.run(start)
            parts.runs.append(memoryview(stretch.data)[start:at])
            parts.starts.append(starts)
            if at == len(stretch.data):
                break
            doubtful = doubtful or _doubtful(window, stretch, self._line)
            if (row := doubtful.row(at)) is None:
                break
            parts.add(row[0])
            at = row[1]
        rows = parts.rows(stretch, self._line)
        self._rest, self._line = stretch.data[at:], self._line + int(stretch.lines_before(at))
        if window.damage and not (parts.rejects and parts.rejects[-1].reason == window.damage):
            parts.rejects.append(Reject(self._line, window.damage, "", of_object=True))
        return rows


def _doubtful(window: Window, stretch: Stretch, line: int) -> Doubtful:
    over, cut = window.final or window.cut is not None, window.cut if window.final else None
    return Doubtful(stretch, line, over=over, cut=cut, damaged=window.damage is not None)


@dataclass(frozen=True)
class _Parts:
    """The clean runs, records and rejects of a window so far."""

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
        """The rows of a window that starts at this line."""
        starts = np.concatenate([*self.starts, np.empty(0, np.int64)])
        lines = line + stretch.lines_before(starts)
        domain = stretch.layout.domain
        clean = parse(b"".join(self.runs), stretch.layout, lines) if len(lines) else no_records(domain)
        if not self.records:
            return Rows(clean, self.rejects)
        table = pa.concat_tables([clean, tabulate_records(domain, self.records)])
        return Rows(table.sort_by("line"), self.rejects)
