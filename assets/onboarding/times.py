"""Recognises the format of days and instants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

__all__ = ["TimeForm", "time_form"]

_DAYS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_LOOKED_AT = 500
_SHARE = 0.98
"""The share of values that must fit a format: a few may be broken."""


@dataclass(frozen=True)
class TimeForm:
    type: Literal["day", "instant"]
    format: str | None
    """As strptime codes; None for ISO 8601."""
    others: tuple[str, ...] = ()
    """Formats that read the values just as well."""

    def read(self, value: str) -> datetime | None:
        """The instant in UTC without zone, or None."""
        return _iso(value) if self.format is None else _strptime(self.format)(value)


def time_form(values: Sequence[str]) -> TimeForm | None:
    """The format of values, if they are days or instants."""
    looked_at = values[:: max(1, len(values) // _LOOKED_AT)]
    if not looked_at or not all(any(c.isdigit() for c in value) for value in looked_at):
        return None
    if _fits(looked_at, _iso) and not all(value.isdecimal() for value in looked_at):
        return TimeForm("instant" if any(len(value) > 10 for value in looked_at) else "day", None)
    formats = [day + clock for day in _DAYS for clock in _CLOCKS]
    fitting = [form for form in formats if _fits(looked_at, _strptime(form))]
    if not fitting:
        return None
    return TimeForm("instant" if "%H" in fitting[0] else "day", fitting[0], tuple(fitting[1:]))


def _fits(values: Sequence[str], read: Callable[[str], datetime | None]) -> bool:
    return sum(read(value) is not None for value in values) >= _SHARE * len(values)


def _iso(value: str) -> datetime | None:
    try:
        return _utc(datetime.fromisoformat(value))
    except ValueError:
        return None


def _strptime(form: str) -> Callable[[str], datetime | None]:
    def read(value: str) -> datetime | None:
        try:
            return _utc(datetime.strptime(value, form))
        except ValueError:
            return None

    return read


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant
