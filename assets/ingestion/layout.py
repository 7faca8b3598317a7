"""What a header says: where each column is, and what the start and the end of a record look like."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

from assets.exceptions import SourceError
from assets.ingestion.records import COLUMNS, readable

__all__ = ["HeaderError", "Layout", "read_header"]

_DATE = r"\d{4}-\d\d-\d\d"
_FIELD = r'(?:"[^"\n]*+(?:""[^"\n]*+)*+"|(?! )[^",\n]*+)'
"""A field on one line that does not start with a blank, as what follows a comma in prose does."""
_FIRST_HEAD_COLUMN = 3
"""An opened quote after fewer columns than this is too common in prose to be taken for the start of a record."""


class HeaderError(SourceError):
    """A header that cannot be read as the official one; its text is the reason."""


@dataclass(frozen=True)
class Layout:
    """The columns of one object, in its order."""

    columns: tuple[str, ...]
    """Official names, and further columns by their own."""
    notes: tuple[str, ...] = ()
    """How the header differs from the official one."""

    @property
    def width(self) -> int:
        return len(self.columns)

    @cached_property
    def pick(self) -> Callable[[list[str]], Sequence[str]]:
        """From a row of the object to the 18 fields in the official order; absent ones are empty."""
        if self.columns == tuple(COLUMNS):
            return lambda row: row
        places = [self.columns.index(name) if name in self.columns else self.width for name in COLUMNS]
        getter = itemgetter(*places)
        return lambda row: getter([*row, ""])

    def starts_record(self, line: str) -> bool:
        """Whether a record may start at this line: it has a date in its place, or is a record by itself."""
        return self._start.match(line) is not None or self.is_record(line)

    def parts_records(self, before: str, line: str) -> bool:
        """Whether one record ends and another starts between two lines: both look like it, or the second is one."""
        if line.count(",") >= self._separators and self.is_record(line):
            return True
        if '"' in line and self._opening is not None and self._opening.match(line):
            return True
        end = self._end
        return end is not None and before.count(",") >= self._end_separators and self._parts(end, before, line)

    def is_record(self, line: str) -> bool:
        """Whether a single line is a whole record, with a number for a complaint id and dates in their places."""
        if line.count(",") < self._separators:
            return False
        try:
            row = next(csv.reader([line], strict=True))
        except csv.Error:
            return False
        return len(row) == self.width and self._is_plausible(row)

    def _is_plausible(self, row: list[str]) -> bool:
        received, sent, number = (row[self.columns.index(name)] if name in self.columns else "" for name in _KEYS)
        prose = " " in received or any(
            row[place].startswith(" ") for place in range(self.width) if place != self._narrative
        )
        return number.isdecimal() and not prose and re.fullmatch(f"({_DATE})?", sent) is not None

    def may_part_records(self, commas_before: Any, commas: Any, first_byte: Any) -> Any:
        """Whether `parts_records` can be true of two lines with so many commas (arrays), by what is cheap to know."""
        may = commas >= self._separators
        if self._opening is not None:
            may |= (commas >= self._narrative) & self._may_be_dated(commas, first_byte)
        return may | (commas_before >= self._end_separators) if self._end is not None else may

    def may_start_record(self, commas: Any, first_byte: Any) -> Any:
        """The same of `starts_record`."""
        others = self._narrative if self._narrative >= _FIRST_HEAD_COLUMN else self._separators
        return (commas >= others) | self._may_be_dated(commas, first_byte)

    def _may_be_dated(self, commas: Any, first_byte: Any) -> Any:
        place = self.columns.index("Date received")
        if place > 0:
            return commas >= place
        return (first_byte == ord('"')) | ((first_byte >= ord("0")) & (first_byte <= ord("9")))

    def _parts(self, end: re.Pattern[str], before: str, line: str) -> bool:
        return self._start.match(line) is not None and end.search(before) is not None

    @cached_property
    def _separators(self) -> int:
        return self.width - 1

    @cached_property
    def _end_separators(self) -> int:
        return self.width - self.columns.index("Date sent to company")

    @cached_property
    def _narrative(self) -> int:
        return self.columns.index("Consumer complaint narrative")

    @cached_property
    def _start(self) -> re.Pattern[str]:
        """A date in its column (and no blank after it, as prose has), or the narrative's opening quote in its own."""
        after_date = r"(?:,(?! )|\r?\n?$)"
        places = [rf'(?:{_FIELD},){{{self.columns.index("Date received")}}}(?:{_DATE}|"{_DATE}"){after_date}']
        if self._narrative >= _FIRST_HEAD_COLUMN:
            places.append(rf'(?:{_FIELD},){{{self._narrative}}}"(?:[^"]|"")')
        return re.compile("|".join(places))

    @cached_property
    def _opening(self) -> re.Pattern[str] | None:
        """The start of a record up to its narrative's opening quote: no narrative ends in a line like this."""
        dated = self.columns.index("Date received")
        if not dated < self._narrative >= _FIRST_HEAD_COLUMN:
            return None
        between = self._narrative - dated - 1
        return re.compile(rf'(?:{_FIELD},){{{dated}}}(?:{_DATE}|"{_DATE}"),(?:{_FIELD},){{{between}}}"(?:[^"]|"")')

    @cached_property
    def _end(self) -> re.Pattern[str] | None:
        """The columns from the date of sending to the last, when the complaint id is among them."""
        tail = (
            self.columns[self.columns.index("Date sent to company") :] if "Date sent to company" in self.columns else ()
        )
        if "Complaint ID" not in tail:
            return None
        kinds = {"Date sent to company": f"(?:{_DATE})?", "Complaint ID": r"\d+"}
        return re.compile("".join("," + kinds.get(name, r'[^",\n]*') for name in tail) + r"\r?\n?$")


_KEYS = ("Date received", "Date sent to company", "Complaint ID")
_SHOWN_NAMES = 5


def read_header(names: Sequence[str], optional: frozenset[str]) -> Layout:
    """The layout of an object with these column names: in any order and case, blanks around them, others among them.

    Raises HeaderError: 'missing-column: NAME' (unless it is optional), 'repeated-column: NAME' (two that read alike).
    """
    columns = tuple(_OFFICIAL.get(_plain(name), name) for name in names)
    counts = Counter(columns)
    if missing := [name for name in COLUMNS if name not in counts and name not in optional]:
        raise HeaderError(f"missing-column: {missing[0]}")
    if repeated := [name for name in COLUMNS if counts[name] > 1]:
        raise HeaderError(f"repeated-column: {repeated[0]}")
    return Layout(columns, tuple(_notes(names, columns)))


def _notes(names: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    known = [name for name in columns if name in COLUMNS]
    kinds = {
        "names written in another way": [name for name, column in zip(names, columns, strict=True) if name != column],
        "further columns, left out": [name for name in columns if name not in COLUMNS],
        "columns that are not there": [name for name in COLUMNS if name not in columns],
    }
    for kind, found in kinds.items():
        if found:
            more = ["..."] if len(found) > _SHOWN_NAMES else []
            yield f"{kind}: {', '.join([*(readable(name) or '(no name)' for name in found[:_SHOWN_NAMES]), *more])}"
    if known != [name for name in COLUMNS if name in columns]:
        yield "columns in another order"


def _plain(name: str) -> str:
    return " ".join(name.removeprefix("\ufeff").casefold().split())


_OFFICIAL = {_plain(name): name for name in COLUMNS}
