"""The as-of: a date or, in a domain whose cadence is the hour, an hour in UTC.

It is text that sorts by time and can be part of a path: `2024-07-01`, `2024-07-01T13`. A date means its midnight. Every
domain understands both forms, since days also come from records and from the keys of objects.
"""

from datetime import date, datetime, timedelta
from typing import Literal

__all__ = [
    "FORMATS",
    "PERIODS",
    "Cadence",
    "at",
    "date_of",
    "days_between",
    "instant",
    "instant_sql",
    "parse",
    "shifted",
]

Cadence = Literal["day", "hour"]

FORMATS: dict[Cadence, str] = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
"""The formats of as-ofs, for strptime."""
PERIODS: dict[Cadence, timedelta] = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
"""The time from one as-of to the next."""

_LENGTHS: dict[Cadence, int] = {"day": 10, "hour": 13}
_WRITE: dict[Cadence, str] = {"day": "not a date; write YYYY-MM-DD", "hour": "no hour; write YYYY-MM-DDTHH"}


def parse(text: str, cadence: Cadence) -> str:
    """The as-of that a person wrote. Raises ValueError, which says what to write."""
    try:
        if at(datetime.fromisoformat(text), cadence) != text:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is {_WRITE[cadence]}") from None
    return text


def at(time: date, cadence: Cadence) -> str:
    """The as-of of the day or hour of a time in UTC; a date counts as its midnight."""
    return f"{time.isoformat()}T00"[: _LENGTHS[cadence]]  # a date has no hour


def instant(as_of: str) -> datetime:
    """The instant that an as-of means, in UTC and naive, as are the instants in the marts."""
    return datetime.fromisoformat(as_of)


def date_of(as_of: str) -> date:
    """The day of an as-of."""
    return instant(as_of).date()


def shifted(as_of: str, days: int) -> str:
    """The as-of so many days later, or earlier if negative, in the same form."""
    return (instant(as_of) + timedelta(days)).isoformat()[: len(as_of)]


def days_between(start: str, end: str) -> int:
    """Whole days from one as-of to a later one."""
    return (instant(end) - instant(start)).days


def instant_sql(column: str) -> str:
    """SQL for the instant that a column's as-of means."""
    return f"strptime({column}, {list(FORMATS.values())})"
