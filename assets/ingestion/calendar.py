"""From when on an object is known: the day that its key names, else the day on which it landed."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date

__all__ = ["Calendar"]


@dataclass(frozen=True)
class Calendar:
    """From when on an object is known."""

    as_of: str
    history: bool
    pattern: str | None

    def published(self, key: str) -> str | None:
        """The day that a key names, or the last day of its month; None when it names none."""
        found = re.search(self.pattern, key) if self.pattern else None
        if found is None:
            return None
        try:
            year, month, day = int(found["year"]), int(found["month"]), found.groupdict().get("day")
            return date(year, month, int(day) if day else monthrange(year, month)[1]).isoformat()
        except (ValueError, OverflowError):
            return None

    def known_from(self, key: str) -> str | None:
        return self.published(key) or (None if self.history else self.as_of)

    def has_come(self, key: str) -> bool:
        published = self.published(key)
        return published is None or published <= self.as_of
