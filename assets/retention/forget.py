"""Forgets records: removes every row of theirs from a home, and keeps them out.

0. What a server has written and closed goes to the lake (`assets.ingestion.served`), where the rest finds it.
1. Their tombstones are published: from then on no ingestion brings them back.
2. The ledger says how many they are, and which training sets and versions had learned from them.
3. MLflow's copies are written again without them; all that is derived is removed, and made again when it is needed.
4. In the lake each version with rows of them is replaced by one without, to which its name leads; the raw table last.
5. Where machines share the home, the others are told: each drops its copies of all this before it reads anything.

An open segment is its server's: once closed, it goes to the lake without these records.

Rows are found by the tombstones, never by a list of what should be there: a call after a kill goes on where it is.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.exceptions import EvergreenError
from assets.features.snapshot import count_again as count_training_set
from assets.hashing import hash_json, hash_tree
from assets.home import Home
from assets.ingestion.forgotten import Forgotten
from assets.ingestion.landing import TABLE as RAW
from assets.ingestion.landing import count_again as count_objects
from assets.ingestion.landing import objects as objects_of
from assets.ingestion.served import KEY as SERVED
from assets.ingestion.served import OPEN, drop_read, land, record_id_of, served_files
from assets.locks import is_alive
from assets.registry.ledger import Entry
from assets.registry.registry import Registry
from assets.registry.tracking import ADDRESSES
from assets.retention.prune import alone, finish
from assets.warehouse.marts import seal
from assets.writing import replacing

__all__ = ["ENTRY", "Forgetting", "Found", "forget", "look"]

ENTRY = "forgetting"
"""The kind of the ledger's entries."""

_TRAINING_SET = "training_set/"
_EXCHANGED = ("checkpoints/", "training/", "scoring/")
"""Objects of trainings and scorings that have not ended, where machines share the home."""


@dataclass(frozen=True)
class Found:
    """A file of the home with rows of forgotten records."""

    path: str
    """Relative to the home; what an MLflow server keeps has its address."""
    rows: int
    table: str = ""
    """Its table in the lake, and its version there; empty for a file elsewhere."""
    version: str = ""
    is_open: bool = False
    """Whether a running server writes it; the rows then leave when it is closed."""


@dataclass(frozen=True)
class Forgetting:
    """What was found of some records, and what had been made of them."""

    records: int
    """The ids that were given."""
    found: tuple[Found, ...]
    objects: tuple[str, ...]
    """The source objects that hold them, by id; they are not the home's, and stay as they are."""
    training_sets: dict[str, dict[str, int]]
    """Rows lost by part of each training set, named <as-of>/<id> as it was."""
    versions: tuple[str, ...]
    """The model versions that were trained on them."""
    unknown: tuple[str, ...]
    """The model versions whose training sets are gone."""
    sources: tuple[str, ...] = ()
    """The keys of these objects, but for those of served records, which are gone."""
    entry: int | None = None
    """The number of the ledger's entry; None if there is none."""

    @property
    def sentence(self) -> str:
        """The result on one line, without an id."""
        files = [found.rows for found in self.found if not found.is_open]
        line = f"{self.records} forgotten: {sum(files)} rows in {len(files)} files"
        if waiting := sum(found.rows for found in self.found if found.is_open):
            line += f"; {waiting} more in what `evergreen serve` is writing: it drops them within segment_seconds, or "
            line += "when it is stopped"
        if self.versions:
            line += f"; trained on them: version {', '.join(self.versions)}, whose training can no longer be reproduced"
        if self.unknown:
            line += f"; unknown for version {', '.join(self.unknown)}, whose training set is gone"
        return line


def look(home: Home, record_ids: Iterable[str]) -> Forgetting:
    """What `forget` would remove. Raises EvergreenError for an id that no record of the home has or had."""
    done, _ = _look(home, _cleaned(record_ids), Forgotten.read(home))
    return replace(done, sources=_keys(home, done.objects))


def forget(home: Home, record_ids: Iterable[str]) -> Forgetting:
    """Remove every row of some records from a home, and keep them out. Again, it changes nothing.

    After a kill the same call finishes it. Raises EvergreenError for an id that no record of the home has or had, and
    while others are at work in the home.
    """
    ids = _cleaned(record_ids)
    with alone(home), home.closed() as others:
        if others:
            place = home.objects or home.root
            raise EvergreenError(f"{place}: others are at work: {', '.join(others)}; run again when they are done")
        finish(home)
        land(home)
        drop_read(home)
        done, forgotten = _look(home, ids, Forgotten.read(home))
        forgotten.save(home)
        entry = _record(home, hash_json(sorted(map(forgotten.tombstone, ids)))[:16], done)
        _clean(home, forgotten, done.found, entry)
        home.tell_forgotten(forgotten.version)
        home.catch_up()
    if entry:  # what was found before a kill counts
        objects, versions, unknown = (tuple(entry.body[name]) for name in ("objects", "versions", "unknown"))
        done = replace(done, objects=objects, versions=versions, unknown=unknown, entry=entry.seq)
        done = replace(done, training_sets=entry.body["training_sets"])
    return replace(done, sources=_keys(home, done.objects))


def _keys(home: Home, object_ids: Collection[str]) -> tuple[str, ...]:
    """The keys of source objects that are not the home's."""
    reads = objects_of(home.lake.current(RAW)) if home.lake.version(RAW) else []
    return tuple(read.key for read in reads if read.object_id in object_ids and not read.key.startswith(f"{SERVED}/"))


def _cleaned(record_ids: Iterable[str]) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(record_id.strip() for record_id in record_ids))
    if not ids or not all(ids):
        raise EvergreenError("name the records to forget by their ids, none of them empty")
    return ids


def _look(home: Home, ids: Sequence[str], before: Forgotten) -> tuple[Forgetting, Forgotten]:
    """What is there of some records and of all that were forgotten `before`; and the tombstones of all of them."""
    forgotten = before.with_ids(ids)
    search = _Search(home, forgotten)
    found = tuple(search.found())
    known = search.seen | before.tombstones
    if strangers := [record_id for record_id in ids if forgotten.tombstone(record_id) not in known]:
        more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
        raise EvergreenError(f"no record in {home.root} has the id {strangers[0]!r}{more}; nothing was forgotten")
    sets = _training_sets(found)
    ours = [version for version in Registry(home).versions() if version.training_id]
    learned = {v.version: home.lake.path(f"training_set/{v.as_of}", v.snapshot_id) for v in ours}
    whole = Forgetting(
        records=len(ids),
        found=found,
        objects=tuple(sorted({Path(each.path).stem for each in found if each.table == RAW})),
        training_sets=sets,
        versions=tuple(version for version, path in learned.items() if "train" in sets.get(_set_name(path), ())),
        unknown=tuple(version for version, path in learned.items() if not path.exists()),
    )
    return whole, forgotten


@dataclass
class _Search:
    """Looks into every Parquet file of a home, once whatever its links, and into what was served."""

    home: Home
    forgotten: Forgotten
    seen: set[str] = field(default_factory=set)
    """The tombstones of the records that were found."""
    _rows: dict[tuple[int, int], int] = field(default_factory=dict)

    def found(self) -> Iterator[Found]:
        """The files with rows of forgotten records: those of the raw table last, so that it is known where they are."""
        lake = self.home.lake
        for table, version in sorted(lake.versions(), key=lambda named: (named[0] == RAW, named)):
            yield from self._in(lake.path(table, version), table, version)
        yield from self._in(self.home.mlflow)
        yield from self._on_server()
        for path in served_files(self.home):
            if rows := self._lines(path):
                yield Found(path.relative_to(self.home.root).as_posix(), rows, is_open=_is_open(path))

    def _on_server(self) -> Iterator[Found]:
        tracking = Registry(self.home).tracking
        for address in tracking.files(".parquet"):
            with tracking.opened(address) as path:
                rows = sum(self._look(path))
            if rows:
                yield Found(address, rows)

    def _lines(self, path: Path) -> int:
        count = 0
        with suppress(FileNotFoundError), path.open("rb") as file:  # its server has closed it: its other name follows
            for line in (line for line in file if line.endswith(b"\n")):
                tombstones = self.forgotten.of(record_id_of(self.home.domain, line))
                self.seen |= tombstones
                count += len(tombstones)
        return count

    def _in(self, folder: Path, table: str = "", version: str = "") -> Iterator[Found]:
        for path in sorted(folder.rglob("*.parquet")):
            if rows := self._count(path):
                yield Found(path.relative_to(self.home.root).as_posix(), rows, table, version)

    def _count(self, path: Path) -> int:
        file = path.stat()
        key = file.st_dev, file.st_ino
        if key not in self._rows:
            self._rows[key] = sum(self._look(path))
        return self._rows[key]

    def _look(self, path: Path) -> Iterator[int]:
        with pq.ParquetFile(path) as file:
            columns = self.forgotten.columns(file.schema_arrow.names)
            for group in range(file.num_row_groups if columns else 0):
                rows, tombstones = self.forgotten.among(file.read_row_group(group, columns))
                self.seen |= tombstones
                yield pc.sum(rows).as_py() or 0


def _is_open(path: Path) -> bool:
    return path.name.endswith(OPEN) and is_alive(path)


def _training_sets(found: Iterable[Found]) -> dict[str, dict[str, int]]:
    """The rows that each training set loses, by part."""
    sets: dict[str, dict[str, int]] = {}
    for each in found:
        if each.table.startswith(_TRAINING_SET):
            parts = sets.setdefault(f"{each.table.removeprefix(_TRAINING_SET)}/{each.version}", {})
            parts[Path(each.path).stem] = each.rows
    return sets


def _set_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _record(home: Home, key: str, done: Forgetting) -> Entry | None:
    """The ledger's entry on these records, written before anything is removed; None if there is nothing to tell."""
    ledger = Registry(home).ledger
    if not done.found:
        return next((entry for entry in ledger.entries(ENTRY) if entry.key == key), None)
    reads = objects_of(home.lake.current(RAW)) if home.lake.version(RAW) else []
    day = max([ledger.newest_day(), *(read.landed_on for read in reads)])
    told = {name: getattr(done, name) for name in ("records", "objects", "training_sets", "versions", "unknown")}
    return ledger.append(ENTRY, key, day, {**told, "reason": done.sentence})


def _clean(home: Home, forgotten: Forgotten, found: Sequence[Found], entry: Entry | None) -> None:
    """Remove all rows that were found, and everything that may have some of them in another form."""
    home.drop_derived()
    if home.lake.shared:
        home.shared.remove([name for under in _EXCHANGED for name in home.shared.names(under)])
        home.lake.shared.drop_abandoned()
    for each in found:
        if each.path.endswith(".jsonl"):
            _drop_lines(home, home.root / each.path, forgotten)
        elif each.path.startswith(ADDRESSES):
            _write_on_server(home, each.path, forgotten)
        elif not each.table:
            with replacing(home.root / each.path) as file:
                _write_without(home.root / each.path, file, forgotten)
    because = {"as_of": entry.as_of, "ledger": entry.seq} if entry else {}
    for (table, version), files in groupby((each for each in found if each.table), lambda e: (e.table, e.version)):
        _replace(home, forgotten, table, version, {home.root / each.path for each in files}, because)


def _write_on_server(home: Home, address: str, forgotten: Forgotten) -> None:
    """Write a file that an MLflow server keeps again, without forgotten records."""
    tracking = Registry(home).tracking
    with tracking.opened(address) as path:
        with replacing(path) as file:
            _write_without(path, file, forgotten)
        tracking.replace(address, path)


def _drop_lines(home: Home, path: Path, forgotten: Forgotten) -> None:
    """Write a file of what was served again, without forgotten records, or remove it if it has no others."""
    if path.name.endswith(OPEN):
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not forgotten.of(record_id_of(home.domain, line))]
    if kept:
        with replacing(path) as file:
            file.writelines(kept)
    else:
        path.unlink()


def _replace(
    home: Home, forgotten: Forgotten, table: str, version: str, losing: Collection[Path], because: dict[str, Any]
) -> None:
    """Put a version without the rows in the place of one in the lake; its other files are linked."""
    before = home.lake.path(table, version)
    with home.lake.staging(table) as staged:
        for path in sorted(path for path in before.rglob("*") if path.is_file()):
            target = staged / path.relative_to(before)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in losing:
                with target.open("wb") as file:
                    _write_without(path, file, forgotten)
            elif path.suffix == ".parquet":
                os.link(path, target)
            else:
                shutil.copy2(path, target)
        home.lake.replace(table, version, _name_again(table, version, staged, before, because), staged)


def _name_again(table: str, version: str, staged: Path, before: Path, because: dict[str, Any]) -> str:
    """The name of a version that has lost rows, once its own files say what it has now."""
    if table == RAW:
        return count_objects(staged)
    if table == "marts":
        return seal(staged, before)
    if table.startswith(_TRAINING_SET):
        return count_training_set(staged, because)
    return hash_json([version, hash_tree(staged)])[:16]


def _write_without(path: Path, target: IO[bytes], forgotten: Forgotten) -> None:
    """Write a Parquet file again, without the rows of forgotten records."""
    with pq.ParquetFile(path) as file:
        codec = file.metadata.row_group(0).column(0).compression
        with pq.ParquetWriter(target, file.schema_arrow, compression=codec) as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                writer.write_table(rows.filter(pc.invert(forgotten.among(rows)[0])))
