"""Remembers what each location held when it was last read, so that unchanged objects are not fetched or read again.

Only a cache: without it every object is fetched once more and recognised by its content.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assets.ingestion.sources import Listing, SourceObject
from assets.writing import write_atomically

__all__ = ["Seen"]

_Contents = list[tuple[str, str]]


@dataclass
class Seen:
    """By location: the stamp of the object there, and the key and SHA-256 of everything in it."""

    path: Path
    entries: dict[str, tuple[str, _Contents]]

    @classmethod
    def load(cls, folder: Path) -> "Seen":
        path = folder / "seen.json"
        try:
            stored = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            stored = {}
        return cls(path, {where: (stamp, [(k, s) for k, s in pairs]) for where, (stamp, pairs) in stored.items()})

    def contents(self, source: SourceObject) -> _Contents | None:
        """The contents of an object that has not changed since it was read, else None."""
        stamp, contents = self.entries.get(source.location, ("", []))
        return contents if stamp == source.stamp else None

    def note(self, source: SourceObject, contents: _Contents, *, stable: bool) -> bool:
        """Remember an object's contents; returns whether they replaced others. `stable`: it is still as listed."""
        _, before = self.entries.get(source.location, ("", []))
        self.entries[source.location] = (source.stamp if stable else "", contents)
        return not set(before) <= set(contents)

    def forget_deleted(self, listing: Listing) -> tuple[str, ...]:
        """Forget, and return, the locations in these sources whose objects are no longer listed."""
        listed = {source.location for source in listing.objects}
        gone = tuple(sorted(where for where in self.entries if where not in listed and listing.covers(where)))
        for where in gone:
            del self.entries[where]
        return gone

    def drop(self, locations: Iterable[str]) -> None:
        """Forget locations whose objects are about to go, at once: nobody then misses them."""
        for location in locations:
            self.entries.pop(location, None)
        self.save()

    def save(self) -> None:
        """Write the file if anything changed."""
        text = json.dumps(self.entries, sort_keys=True)
        if not self.path.exists() or self.path.read_text() != text:
            write_atomically(self.path, text)
