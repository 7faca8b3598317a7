"""What nothing needs, and since when: a run marks it, and a later one sweeps what has stayed unneeded long enough.

The marks are the lake table `unneeded`, so that every machine with the same lake sees the same ones. Only what lies in
the lake is marked: the rest belongs to one machine.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from assets.as_of import shifted
from assets.hashing import hash_json
from assets.lake import Lake
from assets.retention.contents import Removable

__all__ = ["Mark", "Marks", "Reader"]

_TABLE = "unneeded"
_FILE = "marks.json"
_READS = re.compile(r"evergreen-(export-site|score|serve|status)-\w+")
"""What a process is called that makes nothing needed again: it reads what is current, and what it came upon."""


@dataclass(frozen=True)
class Reader:
    """A process at work in a home that machines share."""

    name: str
    since: int | None = None
    """The generation of the marks when it came: what was marked by then it cannot have come upon. None if it may make
    anything needed again, as a run or a rollback does: then it may need everything."""


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
    readers: dict[str, int] = field(default_factory=dict)
    """The generation at which each process came that was at work at the newest marking."""

    @classmethod
    def read(cls, lake: Lake) -> "Marks":
        if lake.version(_TABLE) is None:
            return cls()
        stored = json.loads((lake.current(_TABLE) / _FILE).read_text())
        marks = {path: Mark(**mark) for path, mark in stored["marks"].items()}
        return cls(stored["generation"], marks, stored.get("readers", {}))

    def reader(self, name: str) -> Reader:
        """A process by the name under which it is at work. Whoever was not at work at the newest marking came since."""
        return Reader(name, self.readers.get(name, self.generation) if _READS.fullmatch(name) else None)

    def due(self, item: Removable, as_of: str, grace_days: int, readers: Sequence[Reader]) -> bool:
        """Whether something unneeded may be swept: an earlier run marked it, long enough ago, and no reader has it."""
        if not item.in_lake:
            return not readers
        mark = self.marks.get(item.path)
        return (
            mark is not None
            and mark.as_of <= shifted(as_of, -grace_days)
            and all(reader.since is not None and reader.since >= mark.generation for reader in readers)
        )

    def renewed(self, unneeded: Iterable[Removable], as_of: str, readers: Iterable[str] = ()) -> "Marks":
        """With a mark on all in the lake that is unneeded now, and on nothing else: the rest is needed again.

        `readers`: the names of all processes at work.
        """
        new = Mark(as_of, self.generation + 1)
        marks = {item.path: self.marks.get(item.path, new) for item in unneeded if item.in_lake}
        if new not in marks.values():
            return Marks(self.generation, marks, self.readers)
        return Marks(new.generation, marks, {name: self.readers.get(name, self.generation) for name in readers})

    def save(self, lake: Lake) -> None:
        """Publish them; the first time, only if there are any."""
        if not self.marks and lake.version(_TABLE) is None:
            return
        content = asdict(self)
        with lake.staging(_TABLE) as staged:
            (staged / _FILE).write_text(json.dumps(content, indent=0, sort_keys=True))
            lake.publish_alone(_TABLE, hash_json(content)[:16], staged)
