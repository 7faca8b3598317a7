"""What a header says: where each field is, and what the start and the end of a record look like.

The repair of broken CSV records relies on that. The evidence is the domain's types: the time of receipt in its column,
other days and instants, a number as the id, the opening quote of the long text (the last of `text.fields`) in its
column, and the columns from the first typed one after the text to the last, when the id and a time are among them. A
file that follows RFC 4180 is read as it is, unless a text contains whole lines that look like records. Where a domain
declares little (a textual id, few columns, no time before the text), a line looks like a record only with a time of
receipt in its column. Then two lone quotes in nearby records can enclose everything between them, and after a broken
record those of several lines can be lost up to the next record that is recognised.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

from assets.exceptions import SourceError
from assets.ingestion.records import readable
from assets.ingestion.times import digits_first, time_pattern
from assets.settings import Domain
from assets.settings.domain import Source

__all__ = ["HeaderError", "Layout", "may_lack", "plain", "read_header", "read_row", "require_fields"]

_FIRST_HEAD_COLUMN = 3
"""An opening quote after fewer columns than this is too common in prose to count as the start of a record."""
_TELLING_COLUMNS = 8
"""A row of this many columns with a number as its id is a record, whatever its time of receipt."""
_TELLING_TAIL = 4
"""No line of prose or of a log ends in this many columns, some of them empty."""
_NUMBER = r"(?:[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)?"


class HeaderError(SourceError):
    """An object that does not match the source the domain declares; the message is the reason."""

    def __init__(self, reason: str, fault: str | None = None) -> None:
        """`fault`: what is missing and what was found, in words, when the names of the fields are at fault."""
        super().__init__(reason)
        self.fault = fault


def may_lack(source: Source, *, outcomes: bool = False) -> frozenset[str]:
    """Fields that an object may lack; with `outcomes` also those known only later."""
    return frozenset(n for n, field in source.fields.items() if not field.required or (outcomes and field.outcome))


@dataclass(frozen=True)
class Layout:
    """The columns of one object, in its order."""

    domain: Domain
    columns: tuple[str | None, ...]
    """The domain's names; None for other columns."""
    notes: tuple[str, ...] = ()
    """How the header differs from the declared source."""

    @property
    def width(self) -> int:
        return len(self.columns)

    @property
    def delimiter(self) -> str:
        return self.domain.source.delimiter

    @cached_property
    def pick(self) -> Callable[[list[str]], Sequence[str]]:
        """Maps a row of the object to the fields in the domain's order; absent ones are empty."""
        fields = tuple(self.domain.source.fields)
        if self.columns == fields:
            return lambda row: row
        places = [self.columns.index(name) if name in self.columns else self.width for name in fields]
        getter = itemgetter(*places)
        return lambda row: getter([*row, ""])

    def starts_record(self, line: str) -> bool:
        """Whether a record may start at this line: it looks like a start, or is a whole record."""
        return (self._start is not None and self._start.match(line) is not None) or self.is_record(line)

    def parts_records(self, before: str, line: str) -> bool:
        """Whether a record ends and another starts between two lines: both look it, or the second is a record."""
        if line.count(self.delimiter) >= self._separators and self.is_record(line, surely=True):
            return True
        if '"' in line and self._opening is not None and self._opening.match(line):
            return True
        end = self._end
        return end is not None and before.count(self.delimiter) >= self._end_separators and self._parts(before, line)

    def is_record(self, line: str, *, surely: bool = False) -> bool:
        """Whether a single line is a whole record, its id and times in place; `surely`: it cannot be text."""
        if line.count(self.delimiter) < self._separators:
            return False
        if surely and not self._is_telling and not self._well_quoted.fullmatch(line):
            return False
        row = read_row(line, self.delimiter)
        return row is not None and len(row) == self.width and self._is_plausible(row, surely)

    def _is_plausible(self, row: list[str], surely: bool) -> bool:
        number = row[self._id] if self._id is not None else ""
        if not (number.isdecimal() if self._has_number else number and not _BLANK.search(number)):
            return False
        received = row[self._received] if self._received is not None else ""
        is_time = self._time is not None and re.fullmatch(self._time, received) is not None
        if not is_time and (" " in received or (surely and not self._is_telling)):
            return False
        if any(row[place].startswith(" ") for place in self._no_text):
            return False
        return all(kind.fullmatch(row[place]) for place, kind in self._other_times)

    def may_part_records(self, separators_before: Any, separators: Any, first_byte: Any) -> Any:
        """Whether `parts_records` can be true of two lines, by a cheap test on their separator counts (arrays)."""
        may = separators >= self._separators
        if self._opening is not None:
            may |= (separators >= self._text) & self._may_be_dated(separators, first_byte)
        return may | (separators_before >= self._end_separators) if self._end is not None else may

    def may_start_record(self, separators: Any, first_byte: Any) -> Any:
        """The same for `starts_record`."""
        others = self._text if self._text is not None and self._opens_with_text else self._separators
        return (separators >= others) | self._may_be_dated(separators, first_byte)

    def _may_be_dated(self, separators: Any, first_byte: Any) -> Any:
        if self._time is None or self._received is None:
            return separators < 0
        formats = self.domain.source.fields[self.domain.received.field].formats
        if self._received > 0 or not digits_first(formats):
            return separators >= self._received
        return (first_byte == ord('"')) | ((first_byte >= ord("0")) & (first_byte <= ord("9")))

    def _parts(self, before: str, line: str) -> bool:
        assert self._end is not None
        return self._start is not None and self._start.match(line) is not None and self._end.search(before) is not None

    def _place(self, field: str) -> int | None:
        return self.columns.index(field) if field in self.columns else None

    @cached_property
    def _id(self) -> int | None:
        return self._place(self.domain.id)

    @cached_property
    def _received(self) -> int | None:
        return self._place(self.domain.received.field)

    @cached_property
    def _text(self) -> int | None:
        """The column of the long text: the last of several, since a title comes first."""
        return self._place(self.domain.text.fields[-1])

    @cached_property
    def _no_text(self) -> list[int]:
        return [place for place, name in enumerate(self.columns) if name not in self.domain.text.fields]

    @cached_property
    def _has_number(self) -> bool:
        return self.domain.source.fields[self.domain.id].type == "number"

    @cached_property
    def _is_telling(self) -> bool:
        return self._has_number and self.width >= _TELLING_COLUMNS

    @cached_property
    def _separators(self) -> int:
        return self.width - 1

    def _time_of(self, field: str) -> str | None:
        declared = self.domain.source.fields[field]
        if declared.type in ("text", "number"):
            return None
        return time_pattern(declared.formats, to_the_day=declared.type == "day")

    @cached_property
    def _time(self) -> str | None:
        """A pattern for the time of receipt; None when it can be anything."""
        return self._time_of(self.domain.received.field) if self._received is not None else None

    @cached_property
    def _other_times(self) -> list[tuple[int, re.Pattern[str]]]:
        times = ((place, self._time_of(name)) for place, name in enumerate(self.columns) if name is not None)
        return [(p, re.compile(f"(?:{time})?")) for p, time in times if time is not None and p != self._received]

    @cached_property
    def _field(self) -> str:
        """A field on one line that does not start with a blank, as text after a comma in prose does."""
        return rf'(?:"[^"\n]*+(?:""[^"\n]*+)*+"|(?! )[^"{self._separator}\n]*+)'

    @cached_property
    def _well_quoted(self) -> re.Pattern[str]:
        """A line whose quotes are around fields, unlike a longer text's last line, where other fields follow one."""
        field = rf'(?:"[^"\n]*+(?:""[^"\n]*+)*+"|[^"{self._separator}\n]*+)'
        return re.compile(rf"(?:{field}{self._separator})*+{field}\n?")

    @cached_property
    def _separator(self) -> str:
        return re.escape(self.delimiter)

    def _fields(self, count: int) -> str:
        return rf"(?:{self._field}{self._separator}){{{count}}}"

    @cached_property
    def _dated(self) -> str | None:
        """The start of a line up to the time of receipt in its column."""
        if self._time is None or self._received is None:
            return None
        return rf'{self._fields(self._received)}(?:(?:{self._time})|"(?:{self._time})")'

    @cached_property
    def _opens_with_text(self) -> bool:
        """Whether the text's opening quote shows where a record starts: after many columns, or after the id."""
        far = self._text is not None and self._text >= _FIRST_HEAD_COLUMN
        return far or (self._text is not None and self._id is not None and self._id < self._text)

    @cached_property
    def _start(self) -> re.Pattern[str] | None:
        """A time in its column (with no blank after it, as in prose), or the text's opening quote in its column."""
        places = [rf"{self._dated}(?:{self._separator}(?! )|\r?\n?$)"] if self._dated is not None else []
        if self._text is not None and self._opens_with_text:
            places.append(rf'{self._before_text(self._text)}"(?:[^"]|"")')
        return re.compile("|".join(places)) if places else None

    def _before_text(self, text: int) -> str:
        if text >= _FIRST_HEAD_COLUMN or self._id is None:
            return self._fields(text)
        number = r'(?:\d+|"\d+")' if self._has_number else rf'(?:[^"\s{self._separator}]+|"[^"\s]+")'
        return f"{self._fields(self._id)}{number}{self._separator}{self._fields(text - self._id - 1)}"

    @cached_property
    def _opening(self) -> re.Pattern[str] | None:
        """The start of a record up to its text's opening quote: the last line of a text never looks like this."""
        if self._dated is None or self._received is None or self._text is None:
            return None
        if not self._received < self._text >= _FIRST_HEAD_COLUMN:
            return None
        between = self._fields(self._text - self._received - 1)
        return re.compile(rf'{self._dated}{self._separator}{between}"(?:[^"]|"")')

    @cached_property
    def _tail(self) -> tuple[str | None, ...]:
        """The columns from the first typed one after the text, if there are several, with the id and a time."""
        if self._text is None:
            return ()
        kinds = {name: field.type for name, field in self.domain.source.fields.items()}
        after = self.columns[self._text + 1 :]
        first = next((place for place, name in enumerate(after) if name and kinds[name] != "text"), len(after))
        tail = after[first:]
        timed = any(name and kinds[name] in ("day", "instant") for name in tail)
        return tail if self.domain.id in tail and timed and len(tail) >= _TELLING_TAIL else ()

    @cached_property
    def _end_separators(self) -> int:
        return len(self._tail)

    @cached_property
    def _end(self) -> re.Pattern[str] | None:
        if not self._tail:
            return None
        return re.compile("".join(self._separator + self._kind(name) for name in self._tail) + r"\r?\n?$")

    def _kind(self, name: str | None) -> str:
        anything = rf'[^"{self._separator}\n]*'
        if name == self.domain.id:
            return r"\d+" if self._has_number else rf'[^"\s{self._separator}]+'
        if name is None or self.domain.source.fields[name].type == "text":
            return anything
        if self.domain.source.fields[name].type == "number":
            return _NUMBER
        time = self._time_of(name)
        return anything if time is None else f"(?:{time})?"


_BLANK = re.compile(r"\s")
_SHOWN_NAMES, _SHOWN_FOUND, _SHOWN_LENGTH = 5, 10, 40


def read_row(line: str, delimiter: str) -> list[str] | None:
    """The fields of a record on one line; None if its quotes are not where they should be."""
    try:
        return next(csv.reader([line], strict=True, delimiter=delimiter))
    except csv.Error:
        return None


def read_header(names: Sequence[str], domain: Domain, optional: frozenset[str]) -> Layout:
    """The layout of an object with these column names, in any order and case, with blanks around and others among them.

    Raises HeaderError: 'missing-column: NAME' (unless it is optional), 'repeated-column: NAME' (two that read alike).
    """
    source = domain.source
    called = {plain(head): field for field in source.fields for head in source.names(field)}
    columns = tuple(called.get(plain(name)) for name in names)
    counts = Counter(columns)
    require_fields(source, [name for name in source.fields if name not in counts and name not in optional], names)
    if repeated := [name for name in source.fields if counts[name] > 1]:
        reason = f"repeated-column: {_called(source, repeated[0])}"
        raise HeaderError(reason, f"{_called(source, repeated[0])} appears twice; {_found(names)}")
    return Layout(domain, columns, tuple(_notes(names, columns, source)))


def require_fields(source: Source, missing: Sequence[str], names: Sequence[str]) -> None:
    """Raises HeaderError, 'missing-column: NAME', if any are missing, saying which names were found."""
    if missing:
        lacks = ", ".join(_called(source, name) for name in missing)
        raise HeaderError(f"missing-column: {_called(source, missing[0])}", f"there is no {lacks}; {_found(names)}")


def _called(source: Source, field: str) -> str:
    return " or ".join(source.names(field))


def _found(names: Sequence[str]) -> str:
    shown = [readable(name)[:_SHOWN_LENGTH] or "(no name)" for name in names[:_SHOWN_FOUND]]
    return f"found {', '.join([*map(_in_one_line, shown), *(['...'] if len(names) > _SHOWN_FOUND else [])])}"


def _in_one_line(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _notes(names: Sequence[str], columns: Sequence[str | None], source: Source) -> Iterator[str]:
    pairs = list(zip(names, columns, strict=True))
    kinds = {
        "names written differently": [n for n, field in pairs if field and n not in source.names(field)],
        "other columns, ignored": [name for name, field in pairs if field is None],
        "missing optional columns": [_called(source, field) for field in source.fields if field not in columns],
    }
    for kind, fields in kinds.items():
        if fields:
            more = ["..."] if len(fields) > _SHOWN_NAMES else []
            yield f"{kind}: {', '.join([*(readable(name) or '(no name)' for name in fields[:_SHOWN_NAMES]), *more])}"
    if [field for field in columns if field] != [field for field in source.fields if field in columns]:
        yield "columns in another order"


def plain(name: str) -> str:
    """A name for comparison: case and extra blanks do not count."""
    return " ".join(name.removeprefix("\ufeff").casefold().split())
