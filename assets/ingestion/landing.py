"""Reads what is new in the sources and publishes it as the table `raw_records`.

A version holds, for every object ever read, `records/<object id>.parquet` and `rejects/<object id>.parquet`, and
`objects.parquet` with the reader's own counts. Files of earlier versions are hard-linked, never copied or changed.

Time has two axes: the date that a record carries, and `known_from`, the day from which its object could be read. What
is known as of a day is what had landed by then. Objects of the first landing are history, known by their records' own
dates, unless the settings say where their day of publication stands.
"""

import errno
import hashlib
import logging
import os
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from assets.exceptions import AuditError, EvergreenError, SourceError
from assets.ingestion.calendar import Calendar
from assets.ingestion.parts import Parts, shown
from assets.ingestion.reading import EXPLAINED, READER, Content, contents, refused
from assets.ingestion.seen import Seen
from assets.ingestion.sources import Listing, SourceObject, list_objects
from assets.lake import Lake, hash_json
from assets.settings import Domain, IngestionSettings

__all__ = [
    *("TABLE", "Imbalance", "Landing", "ObjectRead"),
    *("find_imbalances", "find_object", "ingest", "withdraw", "withdrawn_objects"),
]

TABLE = "raw_records"

_CANDIDATES = 10
"""Objects that are listed when a name fits none, or several."""
_TOLD_NAMES = 5

_log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class ObjectRead:
    """An object that was read, and what the reader counted: a row of `objects.parquet`."""

    object_id: str
    """The first 16 hex digits of SHA-256 over the key, a NUL byte and the content's SHA-256; or over the id of an
    earlier reading of the same, in whose place this one is."""
    key: str
    sha256: str
    bytes: int
    seq: int
    """The order of versions, from 0: by `known_from` (none first), `landed_on`, key (9 before 10) and content."""
    records: int
    rejects: int
    landed: int
    error: str | None
    """Why the object, or its end, cannot be read as a whole."""
    known_from: str | None = None
    """The day (YYYY-MM-DD) from which its records are known: when it was published, as far as the settings tell, else
    when it landed. None for history: its records are known by their own dates."""
    landed_on: str = ""
    """The as-of of the run that read it first."""
    withdrawn: str | None = None
    """Why a person took it and all that it brought out of what follows. It is not read again, and its two files are
    empty; None where it counts."""
    reader: int = 1
    """The version of the reader that read it."""
    last_line: str | None = None
    """Of a last line that has no end: 'refused', or 'taken' since the file did not change from one run to the next."""
    notes: str | None = None
    """What was accepted though it is not as the domain declares it."""
    source: str = ""
    """A hash of the source that the domain declared then."""


_OBJECTS = pa.schema([(f.name, pa.int64() if f.type is int else pa.string()) for f in fields(ObjectRead)])


@dataclass(frozen=True)
class Landing:
    """A published version of the raw table."""

    version: str
    path: Path
    objects: tuple[ObjectRead, ...]
    """Every object ever read, in the order of their versions."""
    new: tuple[ObjectRead, ...]
    """Those that were read this time."""
    reasons: dict[str, int]
    """Rejects by reason, the most frequent first."""
    overwritten: tuple[str, ...]
    """Where an object lay that has another content now; the old one's records are kept."""
    deleted: tuple[str, ...]
    """Where an object lay that the sources do not list any more; its records are kept."""
    not_read: tuple[str, ...]
    """Files in the sources whose endings are none that are read."""

    @property
    def records(self) -> int:
        return sum(read.records for read in self.objects if read.withdrawn is None)

    @property
    def rejects(self) -> int:
        return sum(read.rejects for read in self.objects if read.withdrawn is None)

    @property
    def landed(self) -> int:
        return sum(read.landed for read in self.objects if read.withdrawn is None)


@dataclass(frozen=True)
class Imbalance:
    """An object whose published rows are not what its reader counted."""

    key: str
    landed: int
    records: int
    rejects: int


def ingest(
    sources: Sequence[str],
    lake: Lake,
    settings: IngestionSettings,
    domain: Domain,
    as_of: str,
    *,
    history: bool = False,
) -> Landing:
    """Read each object of the sources once, by key and content, and publish it beside all that was read before.

    An object that lies where it lay, with the same stamp, is not fetched. What an earlier reader refused is read again,
    as is what was refused when the domain declared another source, and a file whose last line has no end, once it is
    the same in two runs.

    What is read lands on `as_of` (YYYY-MM-DD); what was published later is not there yet. `history` takes what does not
    say when it was published as known by its records' own dates, also of the sources' objects that had landed before;
    so does the first landing, when the settings declare nothing. Nothing new publishes nothing. Memory does not grow
    with an object. Raises SourceError for a source that cannot be listed or read, and when all that
    is new is refused for its header, AuditError when the written rows are
    not what was counted, EvergreenError when the disk is full; the previous version then stays as it is.
    """
    listing = list_objects(sources)
    try:
        return _ingest(listing, lake, settings, domain, as_of, history=history)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"{lake.root}: the disk is full; free some space and run again (the last publication is intact)"
        raise EvergreenError(message) from None


def find_object(lake: Lake, name: str) -> ObjectRead:
    """The object of a key or an id. Raises EvergreenError, naming those that come near, unless exactly one has it."""
    reads = _objects(lake.current(TABLE))
    found = [read for read in reads if name in (read.key, read.object_id)]
    if len(found) == 1:
        return found[0]
    near = found or [read for read in reads if name in read.key] or reads
    listed = ", ".join(f"{read.object_id} ({read.key}, landed {read.landed_on})" for read in near[-_CANDIDATES:])
    what = f"{len(found)} objects are called {name}" if found else f"no object is called {name}"
    raise EvergreenError(f"{what}; name one by its id or its key: {listed}")


def withdraw(lake: Lake, object_id: str, reason: str) -> None:
    """Publish the raw table without what an object brought. A second time changes nothing.

    Earlier versions stay as they were. Its content is not read again; other content under its key is.
    """
    with lake.staging(TABLE) as staged:
        known = _objects(lake.current(TABLE))
        reads = [replace(r, withdrawn=r.withdrawn or reason) if r.object_id == object_id else r for r in known]
        for folder in ("records", "rejects"):
            (staged / folder).mkdir()
            part = f"{folder}/{object_id}.parquet"
            pq.write_table(pq.read_schema(lake.current(TABLE) / part).empty_table(), staged / part)
        if reads != known:
            _publish(lake, staged, known, reads)


def withdrawn_objects(lake: Lake) -> set[str]:
    """The ids of the objects that were taken out. Raises NotPublished before the first landing."""
    read = pq.read_table(lake.current(TABLE) / "objects.parquet", columns=["object_id", "withdrawn"]).to_pylist()
    return {row["object_id"] for row in read if row["withdrawn"] is not None}


def find_imbalances(published: Path) -> list[Imbalance]:
    """The objects of a version for which landed = records + rejects does not hold, by counting the published rows.

    The count is SQL of its own: it shares nothing with the reader that wrote `objects.parquet`.
    """
    counts = """
        with landed as (
            select object_id, key, case when withdrawn is null then landed else 0 end as landed, seq
            from read_parquet($objects)
        ),
        records as (select object_id, count(*) as n from read_parquet($records) group by object_id),
        rejects as (select object_id, count(*) as n from read_parquet($rejects) group by object_id)
        select coalesce(key, object_id), coalesce(landed, 0), coalesce(records.n, 0), coalesce(rejects.n, 0)
        from landed full join records using (object_id) full join rejects using (object_id)
        where coalesce(landed, 0) <> coalesce(records.n, 0) + coalesce(rejects.n, 0)
        order by seq
    """
    files = {name: str(published / name / "*.parquet") for name in ("records", "rejects")}
    with duckdb.connect() as connection:
        rows = connection.execute(counts, files | {"objects": str(published / "objects.parquet")}).fetchall()
    return [Imbalance(*row) for row in rows]


def _ingest(
    listing: Listing, lake: Lake, settings: IngestionSettings, domain: Domain, as_of: str, *, history: bool
) -> Landing:
    with lake.staging(TABLE) as staged:
        first = lake.version(TABLE) is None and settings.published_in_key is None
        calendar = Calendar(as_of, history or first, settings.published_in_key)
        known = _objects(lake.current(TABLE)) if lake.version(TABLE) else []
        seen = Seen.load(lake.root / TABLE)
        for folder in ("records", "rejects", "scratch"):
            (staged / folder).mkdir()
        reads = _Reads(known, seen, staged, settings, domain)
        for found in listing.objects:
            if calendar.has_come(found.key):
                reads.take(found, calendar)
        (staged / "scratch").rmdir()
        reads.require_a_header()
        ordered = _in_order(_as_history(reads.all, listing, calendar) if calendar.history else reads.all)
        if _version(ordered) != lake.version(TABLE):
            _publish(lake, staged, known, ordered)
        deleted = seen.forget_deleted(listing)
        seen.save()
    _tell("overwritten since it was read; what was read is kept", reads.overwritten)
    _tell("deleted since it was read; what was read is kept", deleted)
    _tell("not read, as its name ends in nothing that is", listing.not_read)
    version, before = _version(ordered), {read.object_id for read in known}
    path = lake.path(TABLE, version)
    return Landing(
        version,
        path,
        tuple(ordered),
        tuple(read for read in ordered if read.object_id not in before),
        _reasons(path),
        overwritten=tuple(reads.overwritten),
        deleted=deleted,
        not_read=listing.not_read,
    )


def _as_history(reads: Sequence[ObjectRead], listing: Listing, calendar: Calendar) -> list[ObjectRead]:
    """With the sources' objects as history, those that had landed before included."""
    named = {found.key for found in listing.objects}
    return [
        replace(read, known_from=calendar.known_from(read.key))
        if named & {read.key, *map(str, PurePosixPath(read.key).parents)}
        else read
        for read in reads
    ]


class _Reads:
    """All that was ever read, and what is read now."""

    def __init__(
        self, known: Sequence[ObjectRead], seen: Seen, staged: Path, settings: IngestionSettings, domain: Domain
    ) -> None:
        self._reads = {(read.key, read.sha256): read for read in known}
        self._seen, self._staged, self._settings, self._domain = seen, staged, settings, domain
        self._source = hash_json(domain.source.model_dump(mode="json"))[:16]
        self.overwritten: list[str] = []
        self._new = 0
        self._faults: list[str] = []
        """Of new objects that were refused for their headers."""

    @property
    def all(self) -> list[ObjectRead]:
        return list(self._reads.values())

    def require_a_header(self) -> None:
        """Raises SourceError if all that is new was refused for its header: no such source was declared."""
        if self._faults and len(self._faults) == self._new:
            others = f" (and {len(self._faults) - 1} more like it)" if len(self._faults) > 1 else ""
            raise SourceError(f"{self._faults[0]}{others}; {EXPLAINED}")

    def take(self, found: SourceObject, calendar: Calendar) -> None:
        """Read an object, unless it is what it was when it was read, and there is nothing to read again."""
        seen = self._seen.contents(found)
        whole = found.whole or seen is not None
        if seen is not None and not any(self._is_due(*content, whole=whole) for content in seen):
            return
        with ExitStack() as stack:
            stable, opened = self._open(found, stack, whole=whole)
            for content in opened:
                if self._is_due(content.key, content.sha256, whole=whole):
                    self._read(content, calendar)
            held = [(content.key, content.sha256) for content in opened]
            if self._seen.note(found, held, stable=stable):
                self.overwritten.append(found.location)

    def _open(self, found: SourceObject, stack: ExitStack, *, whole: bool) -> tuple[bool, list[Content]]:
        if found.bytes > self._settings.max_object_bytes:
            return True, [refused(found.key, hash_json(found.stamp), found.bytes, self._domain, "object-too-large")]
        fetched = stack.enter_context(found.fetch(self._staged / "scratch"))
        given = (fetched.path, found.key, fetched.sha256, self._settings, self._domain)
        opened = contents(*given, whole=whole and fetched.stable)
        return fetched.stable, stack.enter_context(opened)

    def _is_due(self, key: str, sha256: str, *, whole: bool) -> bool:
        """Whether a content is new, or was refused and may be read now: by another reader or source, or to its end."""
        read = self._reads.get((key, sha256))
        if read is None:
            return True
        if read.withdrawn is not None:
            return False
        read_otherwise = read.reader < READER or read.source != self._source
        return (read.rejects > 0 and read_otherwise) or (read.last_line == "refused" and whole)

    def _read(self, content: Content, calendar: Calendar) -> None:
        """Write a content's rows to its two files; the days of an earlier reading of it stay."""
        before = self._reads.get((content.key, content.sha256))
        name = before.object_id if before else f"{content.key}\0{content.sha256}"
        object_id = hashlib.sha256(name.encode()).hexdigest()[:16]
        known_from, landed_on = calendar.known_from(content.key), calendar.as_of
        if before:
            known_from, landed_on = before.known_from, before.landed_on
        started = time.perf_counter()
        with Parts(self._staged, object_id, content.key, self._settings.batch_records, self._domain) as parts:
            for rows in content.rows():
                parts.write(rows)
        seconds = time.perf_counter() - started
        counts = (parts.records, parts.rejects, parts.landed)
        _log.info("%s: %d records, %d rejects in %.1f s", shown(content.key), *counts[:2], seconds)
        for note in parts.notes:
            _log.warning("%s: %s", shown(content.key), note)
        self._count(content, parts, is_new=before is None)
        taken = "taken" if before and before.last_line else None
        self._supersede(content)
        self._reads[content.key, content.sha256] = ObjectRead(
            *(object_id, content.key, content.sha256, content.bytes, len(self._reads), *counts, parts.error),
            known_from=known_from,
            landed_on=landed_on,
            reader=READER,
            last_line="refused" if parts.unfinished else taken,
            notes="; ".join(parts.notes) or None,
            source=self._source,
        )

    def _count(self, content: Content, parts: Parts, *, is_new: bool) -> None:
        self._new += is_new
        if is_new and parts.header_fault is not None:
            self._faults.append(f"{shown(content.key)}: {parts.header_fault}")

    def _supersede(self, content: Content) -> None:
        """Drop a reading whose last line was taken, and was only the beginning of a line, as is seen now."""
        taken = [read for read in self._reads.values() if read.key == content.key and read.last_line == "taken"]
        for read in taken:
            if content.begins_with(read.sha256, read.bytes):
                del self._reads[read.key, read.sha256]


def _tell(what: str, names: Sequence[str]) -> None:
    """One line that names the first few."""
    if names:
        more = f" and {len(names) - _TOLD_NAMES} more" if len(names) > _TOLD_NAMES else ""
        _log.warning("%s: %s%s", what, ", ".join(map(shown, names[:_TOLD_NAMES])), more)


def _in_order(reads: Sequence[ObjectRead]) -> list[ObjectRead]:
    """In the order of their versions, whatever the order in which they were read."""
    ordered = sorted(
        reads, key=lambda read: (read.known_from or "", read.landed_on, _natural(read.key), read.object_id)
    )
    return [replace(read, seq=seq) for seq, read in enumerate(ordered)]


def _natural(key: str) -> list[str | int]:
    """A key as people order it: texts and numbers in turn."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", key))]


def _publish(lake: Lake, staged: Path, known: Sequence[ObjectRead], reads: Sequence[ObjectRead]) -> None:
    kept = {read.object_id for read in known} & {read.object_id for read in reads}
    for object_id in kept:
        for folder in ("records", "rejects"):
            part = Path(folder) / f"{object_id}.parquet"
            if not (staged / part).exists():
                os.link(lake.current(TABLE) / part, staged / part)
    pq.write_table(pa.Table.from_pylist([asdict(read) for read in reads], schema=_OBJECTS), staged / "objects.parquet")
    if imbalances := find_imbalances(staged):
        raise AuditError(f"{imbalances[0].key}: {imbalances[0]} does not add up; nothing was published")
    lake.publish(TABLE, _version(reads), staged)


def _reasons(published: Path) -> dict[str, int]:
    """Rejects by reason, the most frequent first."""
    if not any((published / "rejects").iterdir()):
        return {}
    counts = "select reason, count(*) from read_parquet($rejects) group by reason order by count(*) desc, reason"
    with duckdb.connect() as connection:
        return dict(connection.execute(counts, {"rejects": str(published / "rejects" / "*.parquet")}).fetchall())


def _objects(published: Path) -> list[ObjectRead]:
    return [ObjectRead(**row) for row in pq.read_table(published / "objects.parquet").to_pylist()]


def _version(reads: Sequence[ObjectRead]) -> str:
    return hash_json([asdict(read) for read in reads])[:16]
