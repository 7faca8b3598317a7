"""Adds faults to a record: in a field's value, or in how the line is written."""

import csv
import io
from collections.abc import Sequence

from complaints.simulation.grammar import Draw
from complaints.simulation.world import COLUMNS, Record, World

__all__ = ["LINE_FAULTS", "REPEATS", "line", "spoiled", "spoiled_line"]

REPEATS = ("duplicate", "changed_version")
"""These have no fault themselves, but are followed by another row of the same complaint."""

LINE_FAULTS = ("broken_quote", "not_utf8", "too_few_fields", "too_many_fields")

_NARRATIVE = COLUMNS.index("Consumer complaint narrative")
_COMPANY = COLUMNS.index("Company")

_BAD_BYTE = "\udcff"
"""A lone surrogate: `surrogateescape` encodes it as the byte FF, which never occurs in UTF-8."""

_IMPOSSIBLE = ("02-30", "13-05", "04-31", "00-00")


def line(fields: Sequence[str]) -> str:
    """A row as CSV, including its line break."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(fields)
    return buffer.getvalue()


def spoiled(kind: str, record: Record, world: World, draw: Draw) -> Record:
    """A record with a fault in what a field says."""
    match kind:
        case "impossible_date":
            year = record.field("Date received")[:4]
            return record.replaced("Date received", f"{year}-{_IMPOSSIBLE[int(draw() * len(_IMPOSSIBLE))]}")
        case "empty_complaint_id":
            return record.replaced("Complaint ID", "")
        case "missing_state":
            return record.replaced("State", "")
        case "lost_zero":
            state, zip_code = world.zero_place(draw)
            return record.replaced("State", state).replaced("ZIP code", zip_code)
        case "unmapped_product":
            return record.filed_under(world.unmapped(draw))
    raise AssertionError(f"no such fault: {kind}")


def spoiled_line(kind: str, fields: Sequence[str], draw: Draw) -> str:
    """A row as CSV with a fault in how it is written. It ends with a line break, so the next row starts a line."""
    place = _NARRATIVE if fields[_NARRATIVE] else _COMPANY
    text = fields[place]
    match kind:
        case "broken_quote":
            marked = line([*fields[:place], "\0", *fields[place + 1 :]])
            return marked.replace("\0", '"' + text.replace('"', ""))
        case "not_utf8":
            cut = int(draw() * len(text))
            return line([*fields[:place], text[:cut] + _BAD_BYTE + text[cut:], *fields[place + 1 :]])
        case "too_few_fields":
            return line(fields[: len(fields) - 1 - int(draw() * 8)])
        case "too_many_fields":
            unquoted = f"{fields[_COMPANY]}, Inc., formerly XXXX".split(",")[: 2 + int(draw() * 2)]
            return line([*fields[:_COMPANY], *unquoted, *fields[_COMPANY + 1 :]])
    raise AssertionError(f"no such fault: {kind}")
