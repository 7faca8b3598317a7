"""Cuts a stream of CSV bytes into records (RFC 4180, multi-line quoted text) so that a broken one takes no neighbour.

Python's csv parser, strict, reads on until the first doubtful record. Only that one is looked at with care: a record
that is none ends where the next one starts, as the layout says what a start looks like, and reading resumes there.
Quotes that balance are not enough: two lone quotes in nearby records enclose all that lies between. So a record of
several lines is broken, too, when inside its text one record ends and the next one starts.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from assets.exceptions import SourceError
from assets.ingestion.layout import HeaderError, Layout, read_header
from assets.ingestion.records import NOT_UTF_8, NUL_BYTE, SEPARATOR, Record, Reject, make_record, readable

__all__ = ["DamagedError", "split"]

_BROKEN_QUOTE, _STRAY_RETURN, _TOO_LONG = "broken-quote", "stray-carriage-return", "too-long"
_TOO_FEW, _TOO_MANY = "too-few-fields", "too-many-fields"
_QUOTES = re.compile(r'(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+)(?:,(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+))*+[\r\n]*')
"""A record whose quotes are all where RFC 4180 has them: around a field, or doubled inside one."""


class DamagedError(SourceError):
    """From here on an object cannot be read; its text is the reason."""


@dataclass(frozen=True)
class _Window:
    """Consecutive lines with their ends. Only the last can lack its own: the object's last line, or one cut short."""

    lines: list[str]
    final: bool
    cut: str | None
    """Why the last line is not to be trusted, if it has no end."""


def split(blocks: Iterable[bytes], max_record: int, optional: frozenset[str]) -> Iterator[list[Record | Reject]]:
    """The rows of an object, header first, in order and in lists of what one block held.

    `blocks` may raise DamagedError after its last good block: what follows the last whole record is then one reject
    with that reason. `max_record` is in characters: a record that is longer, or whose quotes are open for longer, is
    broken. Columns in `optional` may be absent from the header. A header that cannot be used is one reject, at line 1.
    Memory stays within a few blocks and records.
    """
    windows = _windows(blocks, max_record)
    first = _with_header(windows)
    header = first.lines.pop(0) if first.lines else ""
    try:
        if first.final and first.cut and not header.endswith("\n"):
            raise HeaderError(first.cut)
        layout = _layout(header, optional)
    except HeaderError as fault:
        yield [Reject(1, str(fault), readable(header.rstrip("\r\n")), of_object=True)]
        return
    csv.field_size_limit(max(csv.field_size_limit(), max_record + 1))
    splitter = _Splitter(layout, max_record)
    yield splitter.rows(first)
    yield from map(splitter.rows, windows)


def _windows(blocks: Iterable[bytes], max_record: int) -> Iterator[_Window]:
    rest = b""
    try:
        for block in blocks:
            whole, end, rest = (rest + block).rpartition(b"\n")
            cut = _TOO_LONG if len(rest) > _MAX_UTF_8 * max_record else None
            if cut:
                end, rest = end + rest, b""
            yield _Window(_lines(whole + end), False, cut)
    except DamagedError as damage:
        yield _Window(_lines(rest), True, str(damage))
    else:
        yield _Window(_lines(rest), True, None)


_MAX_UTF_8 = 4
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def _lines(data: bytes) -> list[str]:
    """Physical lines, by line feeds alone: str.splitlines would also cut at form feeds and the like."""
    return _LINE.findall(data.decode(errors="surrogateescape"))


def _with_header(windows: Iterator[_Window]) -> _Window:
    """The first window with a whole line in it, or the only one."""
    lines: list[str] = []
    for window in windows:
        lines += window.lines
        if lines or window.final:
            break
    return _Window(lines, window.final, window.cut)


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
        self._width = layout.width
        self._pick = layout.pick
        self._max_record = max_record
        self._lines: list[str] = []
        self._at = 0
        self._before = 2
        """The number of the first line in `_lines`; the header is line 1."""
        self._window = _Window([], False, None)

    def rows(self, window: _Window) -> list[Record | Reject]:
        """The rows that these lines complete."""
        self._before += self._at
        self._lines = self._lines[self._at :] + window.lines
        self._at = 0
        self._window = window
        rows = list(self._rows())
        if window.final and window.cut and not (rows and rows[-1][1] == window.cut):
            rows.append(Reject(self._before + self._at, window.cut, "", of_object=True))
        return rows

    def _rows(self) -> Iterator[Record | Reject]:
        while self._at < len(self._lines):
            yield from self._records()
            if self._at < len(self._lines):
                reject = self._reject()
                if reject is None:
                    return
                yield reject

    def _records(self) -> Iterator[Record]:
        """Records up to the first doubtful one, or to the end of the lines."""
        first = self._at
        untrusted = self._window.cut is not None and not self._lines[-1].endswith("\n")
        reader = csv.reader(self._from(first, len(self._lines) - untrusted), strict=True)
        try:
            for row in reader:
                end = first + reader.line_num
                record = self._record(row, self._at, end) if row else None
                if isinstance(record, str):
                    return
                self._at = end
                if record is not None:
                    yield record
        except csv.Error:
            return

    def _reject(self) -> Reject | None:
        """What starts at the current line, up to the next record; None when only more lines can tell."""
        start = self._at
        reason, search = self._fault(start)
        if reason in (NUL_BYTE, NOT_UTF_8):
            stop: int | None = search
        else:
            stop = self._next_start(start, search)
        if reason is None or stop is None:
            return None
        raw = "".join(self._lines[start:stop])
        at_cut = self._window.cut is not None and self._window.final and stop == len(self._lines)
        self._at = stop
        reason = str(self._window.cut) if at_cut else _precise(reason, raw)
        return Reject(self._before + start, reason, readable(raw.rstrip("\r\n")), of_object=at_cut)

    def _fault(self, start: int) -> tuple[str | None, int]:
        """What is wrong with the record at this line, and the line from which the next one may start."""
        if len(self._lines[start]) > self._max_record:
            return _TOO_LONG, start + 1
        reader = csv.reader(self._from(start, len(self._lines)), strict=True)
        try:
            row = next(reader)
        except csv.Error:
            more = start + reader.line_num == len(self._lines) and self._may_grow(start)
            return None if more else _BROKEN_QUOTE, start + 1
        end = start + reader.line_num
        found = self._record(row, start, end)
        if isinstance(found, Record):
            assert self._window.cut is not None, "a record that can be trusted was doubted"
            found = self._window.cut
        return found, start + 1 if found == _BROKEN_QUOTE else end

    def _record(self, row: list[str], start: int, end: int) -> Record | str:
        """The record that these lines hold, or the reason why they hold none."""
        if end - start > 1:
            if self._holds_others(start, end):
                return _BROKEN_QUOTE
        elif len(self._lines[start]) > self._max_record:
            return _TOO_LONG
        if len(row) != self._width:
            return self._miscount(row, start, end)
        fields = self._pick(row)
        joined = SEPARATOR.join(fields)
        if '"' in joined and not _QUOTES.fullmatch("".join(self._lines[start:end])):
            return _BROKEN_QUOTE
        return make_record(fields, joined, self._before + start)

    def _miscount(self, row: list[str], start: int, end: int) -> str:
        lines = self._lines[start:end]
        if any(map(self._layout.starts_record, lines[1:])) or not _QUOTES.fullmatch("".join(lines)):
            return _BROKEN_QUOTE
        return _TOO_FEW if len(row) < self._width else _TOO_MANY

    def _holds_others(self, start: int, end: int) -> bool:
        """Whether one record ends and another starts between these lines, or they are too many for one."""
        lines = self._lines[start:end]
        return any(map(self._layout.parts_records, lines, lines[1:])) or sum(map(len, lines)) > self._max_record

    def _next_start(self, start: int, search: int) -> int | None:
        """The first line from `search` on at which a record may start, the end of the object, or None: unknown yet."""
        size = sum(map(len, self._lines[start:search]))
        for k in range(search, len(self._lines)):
            if size > self._max_record or self._layout.starts_record(self._lines[k]):
                return k
            size += len(self._lines[k])
        return None if self._may_grow(start) else len(self._lines)

    def _may_grow(self, start: int) -> bool:
        """Whether more lines can come, and the record at this line may still take them."""
        over = self._window.final or self._window.cut is not None
        return not over and sum(map(len, self._lines[start:])) <= self._max_record

    def _from(self, start: int, stop: int) -> Iterator[str]:
        return map(self._lines.__getitem__, range(start, stop))


def _precise(reason: str, raw: str) -> str:
    """The reason, now that all of the raw text is known: a count of fields may be off because of a quote."""
    if reason in (_TOO_FEW, _TOO_MANY) and not _QUOTES.fullmatch(raw.replace("\n", ",")):
        return _BROKEN_QUOTE
    if reason == _BROKEN_QUOTE and "\r" in raw and _QUOTES.fullmatch(raw.replace("\r", " ").replace("\n", ",")):
        return _STRAY_RETURN
    return reason
