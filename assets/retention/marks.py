"""What nothing needs, and since when: a run marks it, and a later one sweeps what has stayed unneeded long enough.

The marks are the lake table `unneeded`, so that every machine with the same lake sees the same ones. Only what lies in
the lake is marked: the rest belongs to one machine, whose locks tell who is at work there.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol

from assets.as_of import shifted
from assets.hashing import hash_json
from assets.home import Home
from assets.lake import Lake
from assets.retention.removable import Removable

__all__ = ["Locks", "Mark", "Marks", "Reader", "Readers"]

_TABLE = "unneeded"
_FILE = "marks.json"


@dataclass(frozen=True)
class Reader:
    """A process at work in a home."""

    name: str
    since: int | None = None
    """The generation of the marks when it came: what was marked by then it cannot have come upon. None if that is
    unknown, or if it may make anything needed again, as a run or a rollback does: then it may need everything."""


class Readers(Protocol):
    """Who is at work in a home, and since when."""

    def shut(self, own: str | None) -> AbstractContextManager[tuple[Reader, ...]]:
        """Those at work, but for the caller's `own` name. Whoever comes within the context comes after the marks."""


@dataclass(frozen=True)
class Locks:
    """The readers of a home on one machine, by the locks that they hold: nobody comes in while it is shut."""

    home: Home

    @contextmanager
    def shut(self, own: str | None) -> Iterator[tuple[Reader, ...]]:
        with self.home.closed(own) as names:
            yield tuple(map(Reader, names))


@dataclass(frozen=True)
class Mark:
    """When something was first seen unneeded."""

    as_of: str
    generation: int
    """The number of the marking, from 1."""


@dataclass(frozen=True)
class Marks:
    """The marks of a home's lake, by path relative to the home."""

    generation: int = 0
    marks: dict[str, Mark] = field(default_factory=dict)

    @classmethod
    def read(cls, lake: Lake) -> "Marks":
        if lake.version(_TABLE) is None:
            return cls()
        stored = json.loads((lake.current(_TABLE) / _FILE).read_text())
        return cls(stored["generation"], {path: Mark(**mark) for path, mark in stored["marks"].items()})

    def due(self, item: Removable, as_of: str, grace_days: int, readers: Sequence[Reader]) -> bool:
        """Whether something unneeded may be swept: an earlier run marked it, long enough ago, and no reader has it."""
        if not _is_shared(item):
            return not readers
        mark = self.marks.get(item.path)
        return (
            mark is not None
            and mark.as_of <= shifted(as_of, -grace_days)
            and all(reader.since is not None and reader.since >= mark.generation for reader in readers)
        )

    def renewed(self, unneeded: Iterable[Removable], as_of: str) -> "Marks":
        """With a mark on everything shared that is unneeded now, and on nothing else: the rest is needed again."""
        new = Mark(as_of, self.generation + 1)
        marks = {item.path: self.marks.get(item.path, new) for item in unneeded if _is_shared(item)}
        return Marks(new.generation, marks) if new in marks.values() else Marks(self.generation, marks)

    def save(self, lake: Lake) -> None:
        """Publish them; the first time, only if there are any."""
        if not self.marks and lake.version(_TABLE) is None:
            return
        content = asdict(self)
        with lake.staging(_TABLE) as staged:
            (staged / _FILE).write_text(json.dumps(content, indent=0, sort_keys=True))
            lake.publish_alone(_TABLE, hash_json(content)[:16], staged)


def _is_shared(item: Removable) -> bool:
    """Whether other machines may be reading it; what a killed process of this one has left, none reads."""
    return item.path.startswith("lake/") and item.setting != "leftover"
