"""Removes what nothing needs: it is marked, and what a later run still finds unneeded is swept.

What is swept is listed, put out of sight (`assets.retention.bins`), recorded in the ledger, and only then deleted.
Nobody comes in while things are selected and put out of sight, and nothing is that a process at work may be using
(`assets.retention.marks`). A batch left by a kill is recorded and deleted by the next call; what was not out of sight
yet is considered again.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

from assets.hashing import hash_json
from assets.home import Home
from assets.registry.registry import Registry
from assets.registry.removed import ENTRY
from assets.retention.bins import Batch, bins_of
from assets.retention.contents import Contents, Removable, contents_of
from assets.retention.marks import Marks, Reader
from assets.retention.needed import find_needed
from assets.retention.removable import find_removable
from assets.settings import RetentionSettings

__all__ = ["Pruned", "alone", "finish", "plan", "preview", "prune", "size"]

_UNNAMED = ("leftover", "abandoned", "served_days")
"""Settings for which the ledger has only counts."""
_SHOWN = 3


@dataclass(frozen=True)
class Pruned:
    """What was removed, what is to follow, and which processes prevented more."""

    removed: tuple[Removable, ...]
    marked: tuple[Removable, ...] = ()
    """What nothing needs, to be removed by a later run if that is still so then."""
    at_work: tuple[str, ...] = ()
    """Other processes at work in the home, runs by their ids: nothing is moved in the meantime."""

    @property
    def bytes(self) -> int:
        """The bytes freed."""
        return sum(item.bytes for item in self.removed)

    @property
    def sentence(self) -> str:
        """The result on one line."""
        counts = f"{len(self.removed)} removed, {size(self.bytes)} freed"
        if self.marked:
            counts += f"; {len(self.marked)} marked, {size(sum(item.bytes for item in self.marked))} to follow"
        others = ", ".join(self.at_work[:_SHOWN])
        return f"{counts}; nothing more is removed while others are at work: {others}" if others else counts


def plan(home: Home, settings: RetentionSettings, as_of: str | None = None) -> list[Removable]:
    """All that nothing needs now. Raises RegistryError when the ledger cannot say what is needed."""
    return _planned(home, settings, as_of or _newest_day(home), contents_of(home))


def _planned(
    home: Home, settings: RetentionSettings, as_of: str, contents: Contents, *, nobody_else: bool = True
) -> list[Removable]:
    registry = Registry(home)
    needed = find_needed(registry, settings)
    return find_removable(registry, as_of, settings, needed, contents, alone=nobody_else)


def preview(home: Home, settings: RetentionSettings, *, now: bool = False) -> Pruned:
    """What `prune` would remove and mark now, if no other process is at work. Raises the same errors."""
    return _sorted(home, settings, _newest_day(home), Marks.read(home.lake), (), now=now)


def prune(
    home: Home, settings: RetentionSettings, as_of: str | None = None, own: str | None = None, *, now: bool = False
) -> Pruned:
    """Mark what nothing needs as of a day, by default the newest in the home, and sweep what has been marked for long.

    `now`: sweep all of it, unless another process is at work. `own`: the id of the run that this is part of. Symbolic
    links are neither followed nor removed. In a home on one machine nothing is done while others are at work. Where
    machines share it, what is in the lake is then marked, and it is swept once the processes of that time are gone and
    only such are at work as make nothing needed again. Raises RegistryError when the ledger is not as it was written,
    or MLflow lacks the champion.
    """
    with alone(home):
        earlier = finish(home)
        with home.closed(own) as others:
            done = _mark_and_move(home, settings, as_of or _newest_day(home), others, now=now)
        return replace(done, removed=(*earlier, *finish(home)))


def alone(home: Home) -> AbstractContextManager[None]:
    """Let one process at a time, of any machine, remove something from a home."""
    return home.exclusively("removal", "removing what nothing needs")


def _mark_and_move(home: Home, settings: RetentionSettings, as_of: str, others: Sequence[str], *, now: bool) -> Pruned:
    if others and (now or home.objects is None):
        return Pruned((), at_work=tuple(others))
    marks = Marks.read(home.lake)
    done = _sorted(home, settings, as_of, marks, [marks.reader(name) for name in others], now=now)
    if done.removed:
        _move(home, as_of, done.removed)
    marks.renewed(done.marked, as_of, others).save(home.lake)
    if not others:
        home.lake.trim(settings.copies_gb * 1e9)
    return replace(done, at_work=tuple(others))


def _sorted(
    home: Home, settings: RetentionSettings, as_of: str, marks: Marks, readers: Sequence[Reader], *, now: bool
) -> Pruned:
    """What is unneeded, in two: what may go, and what is only marked."""
    contents = contents_of(home)
    planned = _planned(home, settings, as_of, contents, nobody_else=not readers)
    due = {item for item in planned if now or marks.due(item, as_of, settings.grace_days, readers)}
    one_by_one = contents.sized(sorted(planned, key=lambda item: item not in due))
    return Pruned(tuple(one_by_one[: len(due)]), tuple(one_by_one[len(due) :]))


def size(count: float) -> str:
    """Bytes in readable units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def _newest_day(home: Home) -> str:
    audited = (table.rpartition("/")[2] for table in home.lake.tables("mart_audit"))
    return max([Registry(home).ledger.newest_day(), *audited])


def _move(home: Home, as_of: str, items: Sequence[Removable]) -> None:
    place = len(Registry(home).ledger.entries())
    for a_bin in bins_of(home):
        if taken := [item for item in items if a_bin.takes(item)]:
            a_bin.put(f"{place:06}-{hash_json([asdict(item) for item in taken])[:8]}", as_of, taken)


def finish(home: Home) -> tuple[Removable, ...]:
    """Record every batch in the ledger and delete it; returns their items. One without any is not recorded."""
    done: list[Removable] = []
    for a_bin in bins_of(home):
        for batch in a_bin.batches():
            if batch.items:
                _record(home, batch)
            done += batch.items
            a_bin.empty(batch.name)
    return tuple(done)


def _record(home: Home, batch: Batch) -> None:
    by_setting: dict[str, list[Removable]] = defaultdict(list)
    for item in batch.items:
        by_setting[item.setting].append(item)
    removed: dict[str, Any] = {
        setting: {
            "count": len(items),
            "bytes": sum(item.bytes for item in items),
            "names": [] if setting in _UNNAMED else [item.path for item in items],
        }
        for setting, items in by_setting.items()
    }
    counted = ", ".join(f"{len(items)} by {setting}" for setting, items in by_setting.items())
    reason = f"{counted}; {size(sum(item.bytes for item in batch.items))} freed"
    Registry(home).ledger.append(ENTRY, batch.name, batch.as_of, {"removed": removed, "reason": reason})
