"""Reads doubtful records one at a time, and gives the reason for each that is not a record.

What a line contributes depends only on the line and on whether a quote is open at its start. So each line is examined a
fixed number of times, however many records are tried, and time grows only with the size of the text.
"""

import csv
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import cache

from assets.ingestion.clean import Stretch
from assets.ingestion.records import NOT_UTF_8, NUL_BYTE, TOO_LONG, Record, Reject, make_record, readable

__all__ = ["Doubtful"]

_BROKEN_QUOTE, _STRAY_RETURN = "broken-quote", "stray-carriage-return"
_TOO_FEW, _TOO_MANY = "too-few-fields", "too-many-fields"

_QUOTED = r'"[^"]*+(?:""[^"]*+)*+'
_INSIDE = re.compile(rf'{_QUOTED}"?')


class _Patterns:
    """Patterns for text whose fields are separated by a delimiter."""

    def __init__(self, delimiter: str) -> None:
        self.delimiter, separator = delimiter, re.escape(delimiter)
        field = rf'(?:{_QUOTED}"(?=[{separator}\r\n]|\Z)|[^"{separator}\r\n]*+)'
        self.quotes = re.compile(rf"(?:{field}{separator})*+{field}[\r\n]*+")
        """Text whose quotes are all where RFC 4180 allows them: around a field, or doubled inside one."""
        self.line = re.compile(rf"(?:{field}{separator})*+(?:{field}[\r\n]*+\Z|(?P<open>{_QUOTED}\Z))")
        """The same for a single line, whose last quote may stay open."""

    def separators(self, text: str) -> int:
        return _INSIDE.sub("", text).count(self.delimiter)

    def precise(self, reason: str, raw: str) -> str:
        """The reason, now that all the raw text is known: a wrong number of fields may come from a broken quote."""
        one_line = raw.replace("\n", self.delimiter)
        if reason in (_TOO_FEW, _TOO_MANY) and not self.quotes.fullmatch(one_line):
            return _BROKEN_QUOTE
        if reason == _BROKEN_QUOTE and "\r" in raw and self.quotes.fullmatch(one_line.replace("\r", " ")):
            return _STRAY_RETURN
        return reason


_patterns = cache(_Patterns)


class Doubtful:
    """Reads the lines of a stretch one record at a time, from a given place."""

    def __init__(self, stretch: Stretch, first_line: int, *, over: bool, cut: str | None, damaged: bool) -> None:
        """`over`: no line follows. `cut`: the reason for a reject that reaches the end; `damaged`: `of_object` too."""
        self._stretch, self._starts, self._first_line = stretch, stretch.line_starts, first_line
        self._over, self._cut, self._damaged = over, cut, damaged
        self._patterns = _patterns(stretch.layout.delimiter)
        lines = range(len(self._starts))
        self._closing, self._parting, self._starting = _Next(lines), _Next(lines), _Next(stretch.may_start_records())
        self._separators = [0] * len(self._starts)
        """For each line: the separators outside quotes in the earlier lines that start inside a quote."""
        self._misplaced = set[int]()
        """Lines that start inside a quote and whose quotes are misplaced."""

    @property
    def _end(self) -> int:
        return len(self._starts) - 1

    def row(self, at: int) -> tuple[Record | Reject | None, int] | None:
        """What starts at this byte, and where it ends; no row if the line is blank. None: more lines are needed."""
        line = bisect_right(self._starts, at) - 1
        if not self._text(line, line + 1).strip("\r\n"):
            return None, self._starts[line + 1]
        attempt = self._attempt(line)
        if attempt is None:
            return None
        row, stop = attempt
        if isinstance(row, Record):
            return row, self._starts[stop]
        until = stop if row in (NUL_BYTE, NOT_UTF_8) else self._next_start(line, stop)
        return None if until is None else (self._reject(row, line, until), self._starts[until])

    def _reject(self, reason: str, line: int, stop: int) -> Reject:
        raw = self._text(line, stop)
        at_cut = self._cut is not None and stop == self._end
        reason = str(self._cut) if at_cut else self._patterns.precise(reason, raw)
        return Reject(self._first_line + line, reason, readable(raw.rstrip("\r\n")), of_object=at_cut and self._damaged)

    def _attempt(self, line: int) -> tuple[Record | str, int] | None:
        """The record at a line and the line after it; or what is wrong and the first line that may start the next."""
        if self._too_long(line, line + 1):
            return TOO_LONG, line + 1
        text = self._text(line, line + 1)
        placed = self._patterns.line.match(text)
        if placed is None:
            return _BROKEN_QUOTE, line + 1
        if placed["open"] is None:
            return self._record(line, line + 1, self._patterns.separators(text))
        close = self._closing.first(line + 1, self._end, self._closes)
        stop = self._end if close is None else close + 1
        if (
            self._parting.first(line + 1, stop, self._parts) is not None
            or self._too_long(line, stop)
            or close in self._misplaced
        ):
            return _BROKEN_QUOTE, line + 1
        if close is None:
            return (_BROKEN_QUOTE, line + 1) if self._over else None
        inside = self._separators[stop] - self._separators[line + 1]
        return self._record(line, stop, self._patterns.separators(text) + inside)

    def _record(self, line: int, stop: int, separators: int) -> tuple[Record | str, int]:
        width = self._stretch.layout.width
        if separators + 1 != width:
            if self._starting.first(line + 1, stop, self._starts_record) is not None:
                return _BROKEN_QUOTE, line + 1
            return (_TOO_FEW if separators + 1 < width else _TOO_MANY), stop
        if self._cut is not None and stop == self._end and not self._stretch.data.endswith(b"\n"):
            return self._cut, stop
        layout = self._stretch.layout
        row = next(csv.reader(self._lines(line, stop), strict=True, delimiter=layout.delimiter))
        return make_record(layout.domain, layout.pick(row), self._first_line + line), stop

    def _next_start(self, line: int, search: int) -> int | None:
        """The first line from `search` at which a record may start, the end of the object, or None: not known yet."""
        limit = max(search, bisect_right(self._starts, self._starts[line] + self._stretch.max_record))
        start = self._starting.first(search, min(limit, self._end), self._starts_record)
        if start is not None or limit <= self._end:
            return limit if start is None else start
        return self._end if self._over else None

    def _closes(self, line: int) -> bool:
        """Whether a quote open at a line's start is closed by its end, or the line has a misplaced quote."""
        text = '"' + self._text(line, line + 1)
        placed = self._patterns.line.match(text)
        self._separators[line + 1] = self._separators[line] + self._patterns.separators(text)
        if placed is None:
            self._misplaced.add(line)
        return placed is None or placed["open"] is None

    def _parts(self, line: int) -> bool:
        return self._stretch.parts_records(line - 1)

    def _starts_record(self, line: int) -> bool:
        return self._stretch.layout.starts_record(self._text(line, line + 1))

    def _too_long(self, line: int, stop: int) -> bool:
        return self._starts[stop] - self._starts[line] > self._stretch.max_record

    def _text(self, line: int, stop: int) -> str:
        return self._stretch.text(self._starts[line], self._starts[stop])

    def _lines(self, line: int, stop: int) -> list[str]:
        return [self._text(place, place + 1) for place in range(line, stop)]


class _Next:
    """The first of some lines, within a range, for which a condition holds; ranges must come in ascending order."""

    def __init__(self, lines: Sequence[int]) -> None:
        self._lines = lines
        self._place = 0
        self._match: int | None = None

    def first(self, start: int, stop: int, holds: Callable[[int], bool]) -> int | None:
        if self._match is None or self._match < start:
            self._match = None
            self._place = bisect_left(self._lines, start, self._place)
            while self._match is None and self._place < len(self._lines) and self._lines[self._place] < stop:
                line = self._lines[self._place]
                self._match = line if holds(line) else None
                self._place += 1
        return self._match if self._match is not None and self._match < stop else None
