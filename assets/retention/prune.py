"""Removes what nothing needs: it is marked, and what a later run still finds unneeded is swept.

What is swept is listed, moved out of sight, recorded in the ledger, and only then deleted:

    <home>/pruned/<batch>/batch.json     the list of what is to be removed, written first
    <home>/pruned/<batch>/<path>         the new place of each file or folder, moved by one rename
    <home>/running/.door                 held while files are selected and moved: no other process is at work

Nothing is moved that another process at work may be using, as `Readers` tell. A batch left by a kill is recorded and
deleted by the next call; files it had not moved yet are considered again.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from assets.exceptions import EvergreenError
from assets.hashing import hash_json
from assets.home import Home
from assets.locks import locked
from assets.registry.registry import Registry
from assets.registry.removed import ENTRY
from assets.retention.folders import folders
from assets.retention.marks import Locks, Marks, Reader, Readers
from assets.retention.needed import find_needed
from assets.retention.removable import Removable, find_removable, sized
from assets.settings import RetentionSettings
from assets.writing import write_atomically

__all__ = ["Pruned", "finish", "plan", "preview", "prune", "size"]

_BATCH = "batch.json"
_UNNAMED = ("leftover", "served_days")
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
    registry = Registry(home)
    needed = find_needed(registry, settings)
    return find_removable(registry, as_of or _newest_day(registry), settings, needed)


def preview(home: Home, settings: RetentionSettings, *, now: bool = False) -> Pruned:
    """What `prune` would remove and mark now, if no other process is at work. Raises the same errors."""
    day = _newest_day(Registry(home))
    return _sorted(home, plan(home, settings, day), day, settings, now=now)


def prune(
    home: Home,
    settings: RetentionSettings,
    as_of: str | None = None,
    own: str | None = None,
    *,
    now: bool = False,
    readers: Readers | None = None,
) -> Pruned:
    """Mark what nothing needs as of a day, by default the newest in the home, and sweep what has been marked for long.

    `now`: sweep all of it, unless another process is at work. `own`: the id of the run that this is part of. `readers`:
    who is at work, by default according to the home's locks. While one may need everything, nothing is done. Symbolic
    links are neither followed nor removed. Where machines share a home, only this machine's copies beyond `copies_gb`
    go: its folder does not say what the others need. Raises RegistryError when the ledger is not as it was written, or
    MLflow lacks the champion.
    """
    with locked(home.root / ".prune.lock", "removing what nothing needs"):
        earlier = finish(home)
        with (readers or Locks(home)).shut(own) as others:
            done = _mark_and_move(home, settings, as_of, others, now=now)
        return replace(done, removed=(*earlier, *finish(home)))


def _mark_and_move(
    home: Home, settings: RetentionSettings, as_of: str | None, others: Sequence[Reader], *, now: bool
) -> Pruned:
    names = tuple(reader.name for reader in others)
    if any(now or reader.since is None for reader in others):
        return Pruned((), at_work=names)
    day = as_of or _newest_day(Registry(home))
    planned = [] if home.objects else plan(home, settings, day)
    done = _sorted(home, planned, day, settings, others, now=now)
    if done.removed:
        _move(home, day, done.removed)
    Marks.read(home.lake).renewed(done.marked, day).save(home.lake)
    if not others:
        home.lake.trim(settings.copies_gb * 1e9)
    return replace(done, at_work=names)


def _sorted(
    home: Home,
    planned: Sequence[Removable],
    as_of: str,
    settings: RetentionSettings,
    others: Sequence[Reader] = (),
    *,
    now: bool,
) -> Pruned:
    """What is unneeded, in two: what may go, and what is only marked."""
    marks = Marks.read(home.lake)
    due = {item for item in planned if now or marks.due(item, as_of, settings.grace_days, others)}
    one_by_one = sized(home.root, sorted(planned, key=lambda item: item not in due))
    return Pruned(tuple(one_by_one[: len(due)]), tuple(one_by_one[len(due) :]))


def size(count: float) -> str:
    """Bytes in readable units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def _newest_day(registry: Registry) -> str:
    audited = folders(registry.home.lake.root / "mart_audit")
    return max([registry.ledger.newest_day(), *audited])


def _move(home: Home, as_of: str, items: Sequence[Removable]) -> None:
    fields = [asdict(item) for item in items]
    place = len(Registry(home).ledger.entries())
    batch = _pruned(home) / f"{place:06}-{hash_json(fields)[:8]}"
    write_atomically(batch / _BATCH, json.dumps({"as_of": as_of, "items": fields}))
    for item in items:
        target = batch / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        (home.root / item.path).rename(target)


def finish(home: Home) -> tuple[Removable, ...]:
    """Record every batch in the ledger and delete it; returns their items. A batch without a list is recorded."""
    done: list[Removable] = []
    for name in folders(_pruned(home)):
        batch = _pruned(home) / name
        if (batch / _BATCH).exists():
            listed = json.loads((batch / _BATCH).read_text())
            moved = [item for item in (Removable(**item) for item in listed["items"]) if _is_in(batch, item)]
            if moved:
                _record(home, name, listed["as_of"], moved)
            done += moved
            (batch / _BATCH).unlink()
        shutil.rmtree(batch)
    return tuple(done)


def _is_in(batch: Path, item: Removable) -> bool:
    return (batch / item.path).exists()


def _record(home: Home, batch: str, as_of: str, moved: Sequence[Removable]) -> None:
    by_setting: dict[str, list[Removable]] = defaultdict(list)
    for item in moved:
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
    reason = f"{counted}; {size(sum(item.bytes for item in moved))} freed"
    Registry(home).ledger.append(ENTRY, batch, as_of, {"removed": removed, "reason": reason})


def _pruned(home: Home) -> Path:
    """The folder that files are moved to. Raises EvergreenError when it is a symbolic link."""
    path = home.root / "pruned"
    if path.is_symlink():
        raise EvergreenError(f"{path} is a symbolic link; delete it, and prune again")
    return path
