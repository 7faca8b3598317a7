"""What lay where when it was last read, so that what has not changed since is not read again, nor fetched from S3.

Only a memory: without it every object is fetched once more, and known by its content.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from assets.ingestion.sources import Listing, SourceObject
from assets.lake import write_atomically

__all__ = ["Seen"]

_Contents = list[tuple[str, str]]


@dataclass
class Seen:
    """By location: the stamp of what lay there, and key and SHA-256 of all that was in it."""

    path: Path
    entries: dict[str, tuple[str, _Contents]]

    @classmethod
    def load(cls, folder: Path) -> "Seen":
        path = folder / "seen.json"
        try:
            stored = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            stored = {}
        return cls(path, {where: (stamp, [(k, s) for k, s in found]) for where, (stamp, found) in stored.items()})

    def contents(self, found: SourceObject) -> _Contents | None:
        """What is in an object, if it has not changed since it was read."""
        stamp, contents = self.entries.get(found.location, ("", []))
        return contents if stamp == found.stamp else None

    def note(self, found: SourceObject, contents: _Contents, *, stable: bool) -> bool:
        """Keep what was found in an object; whether something else lay there. `stable`: it is what was listed."""
        _, before = self.entries.get(found.location, ("", []))
        self.entries[found.location] = (found.stamp if stable else "", contents)
        return not set(before) <= set(contents)

    def forget_deleted(self, listing: Listing) -> tuple[str, ...]:
        """Where something lay in these sources that is not listed any more."""
        listed = {found.location for found in listing.objects}
        gone = tuple(sorted(where for where in self.entries if where not in listed and listing.covers(where)))
        for where in gone:
            del self.entries[where]
        return gone

    def save(self) -> None:
        """Write what changed."""
        text = json.dumps(self.entries, sort_keys=True)
        if not self.path.exists() or self.path.read_text() != text:
            write_atomically(self.path, text)
