"""The as-of from which an object is known: the day or hour its key names, else the as-of at which it landed."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime

from assets.as_of import at

__all__ = ["Calendar"]


@dataclass(frozen=True)
class Calendar:
    """The day from which an object is known."""

    as_of: str
    history: bool
    pattern: str | None

    def published(self, key: str) -> str | None:
        """The day or hour a key names, or the last day of the month it names; None when it names none."""
        match = re.search(self.pattern, key) if self.pattern else None
        if match is None:
            return None
        try:
            year, month, day = int(match["year"]), int(match["month"]), match.groupdict().get("day")
            hour = match.groupdict().get("hour")
            time = datetime(year, month, int(day) if day else monthrange(year, month)[1], int(hour or 0))
            return at(time, "hour" if hour else "day")
        except (ValueError, OverflowError):
            return None

    def known_from(self, key: str) -> str | None:
        return self.published(key) or (None if self.history else self.as_of)

    def has_come(self, key: str) -> bool:
        published = self.published(key)
        return published is None or published <= self.as_of
