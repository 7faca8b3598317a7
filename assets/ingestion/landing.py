"""Reads what is new in the sources and publishes it as the table `raw_records`.

A version holds, for every object ever read, `records/<object id>.parquet` and `rejects/<object id>.parquet`, and
`objects.parquet` with the reader's own counts. Files of earlier versions are hard-linked, never copied or changed.

Time has two axes: the date that a record carries, and `known_from`, the day from which its object could be read. Known
as of a day is what had landed by then. Objects of the first landing are history, known by their records' own dates,
unless the settings say where a key holds the day of publication.
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

import pyarrow as pa
import pyarrow.parquet as pq

from assets.duck import connect
from assets.exceptions import AuditError, EvergreenError, SourceError
from assets.hashing import hash_json
from assets.ingestion.calendar import Calendar
from assets.ingestion.forgotten import Forgotten
from assets.ingestion.parts import Parts, shown
from assets.ingestion.reading import EXPLAINED, READER, Content, contents, refused
from assets.ingestion.seen import Seen
from assets.ingestion.sources import Listing, SourceObject, list_objects
from assets.lake import Lake
from assets.settings import Domain, IngestionSettings

__all__ = [
    *("TABLE", "Imbalance", "Landing", "ObjectRead"),
    *("count_again", "find_imbalances", "find_object", "ingest", "objects", "withdraw", "withdrawn_objects"),
]

TABLE = "raw_records"

_CANDIDATES = 10
"""The most objects listed when a name fits none, or several."""
_SHOWN_NAMES = 5

_log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class ObjectRead:
    """An object that was read, and what the reader counted: a row of `objects.parquet`."""

    object_id: str
    """The first 16 hex digits of SHA-256 over the key, a NUL byte and the content's SHA-256; or over the id of the
    earlier reading of the same content that this one replaces."""
    key: str
    sha256: str
    bytes: int
    seq: int
    """The order of versions, from 0: by `known_from` (none first), `landed_on`, key (9 before 10) and content."""
    records: int
    rejects: int
    landed: int
    error: str | None
    """Why the object, or the end of it, cannot be read."""
    known_from: str | None = None
    """The as-of from which its records are known: when it was published, if the settings say how to tell,
    else when it landed. None for history: its records are known by their own dates."""
    landed_on: str = ""
    """The as-of of the run that first read it."""
    withdrawn: str | None = None
    """Why a person withdrew it and everything it brought; None if nobody did. It is not read again, and its two files
    are empty."""
    reader: int = 1
    """The version of the reader that read it."""
    last_line: str | None = None
    """For a last line without an end: 'refused', or 'taken' since the file did not change from one run to the next."""
    notes: str | None = None
    """What was accepted although it differs from what the domain declares."""
    source: str = ""
    """A hash of the source that the domain declared at the time."""
    forgotten: int = 0
    """Records and rejects that were taken out because they are of forgotten records: they count nowhere else."""


_OBJECTS = pa.schema([(f.name, pa.int64() if f.type is int else pa.string()) for f in fields(ObjectRead)])


@dataclass(frozen=True)
class Landing:
    """A published version of the raw table."""

    version: str
    path: Path
    objects: tuple[ObjectRead, ...]
    """Every object ever read, in the order of their versions."""
    new: tuple[ObjectRead, ...]
    """The objects read this time."""
    reasons: dict[str, int]
    """Rejects by reason, most frequent first."""
    overwritten: tuple[str, ...]
    """Locations whose object has new content; the old content's records are kept."""
    deleted: tuple[str, ...]
    """Locations of objects that the sources no longer list; their records are kept."""
    not_read: tuple[str, ...]
    """Files in the sources whose endings are not supported."""

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
    """An object whose published rows differ from what its reader counted."""

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
    forgotten: Forgotten | None = None,
) -> Landing:
    """Read each object of the sources once, by key and content, and publish it with everything read before.

    An object at the same location with the same stamp is not fetched. Content that an earlier reader refused is read
    again, as is content refused when the domain declared another source, and a file whose last line has no end, once
    it is the same in two runs.

    New objects land on `as_of`; those published later are left for later runs. With `history`, objects
    that do not say when they were published are known by their records' own dates, including the sources' objects that
    had landed before; so are those of the first landing, when the settings declare nothing. Rows of `forgotten` records
    are left out. Nothing new publishes nothing. Memory does not grow with the size of an object. Raises SourceError for
    a source that cannot be listed or read and when every new object is refused for its header, AuditError when the
    written rows are not what was counted, EvergreenError when the disk is full; the previous version then stays as it
    is.
    """
    listing = list_objects(sources)
    try:
        return _ingest(listing, lake, settings, domain, as_of, history=history, forgotten=forgotten)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"{lake.root}: the disk is full; free some space and run again (the last publication is intact)"
        raise EvergreenError(message) from None


def find_object(lake: Lake, name: str) -> ObjectRead:
    """The object with this key or id. Raises EvergreenError, which lists close matches, unless exactly one has it."""
    reads = objects(lake.current(TABLE))
    matches = [read for read in reads if name in (read.key, read.object_id)]
    if len(matches) == 1:
        return matches[0]
    near = matches or [read for read in reads if name in read.key] or reads
    listed = ", ".join(f"{read.object_id} ({read.key}, landed {read.landed_on})" for read in near[-_CANDIDATES:])
    what = f"{len(matches)} objects are called {name}" if matches else f"no object is called {name}"
    raise EvergreenError(f"{what}; name one by its id or its key: {listed}")


def withdraw(lake: Lake, object_id: str, reason: str) -> None:
    """Publish the raw table without an object's records and rejects. A second call changes nothing.

    Earlier versions are unchanged. Its content is not read again; other content under its key is.
    """
    with lake.staging(TABLE) as staged:
        known = objects(lake.current(TABLE))
        reads = [replace(r, withdrawn=r.withdrawn or reason) if r.object_id == object_id else r for r in known]
        for folder in ("records", "rejects"):
            (staged / folder).mkdir()
            part = f"{folder}/{object_id}.parquet"
            pq.write_table(pq.read_schema(lake.current(TABLE) / part).empty_table(), staged / part)
        if reads != known:
            _publish(lake, staged, known, reads)


def withdrawn_objects(lake: Lake) -> set[str]:
    """The ids of the withdrawn objects. Raises NotPublished before the first landing."""
    read = pq.read_table(lake.current(TABLE) / "objects.parquet", columns=["object_id", "withdrawn"]).to_pylist()
    return {row["object_id"] for row in read if row["withdrawn"] is not None}


def count_again(folder: Path) -> str:
    """The name of a version whose files have lost rows of forgotten records, once `objects.parquet` says so."""
    reads = [_counted(folder, read) for read in objects(folder)]
    _write_objects(folder, reads)
    return _version(reads)


def _counted(folder: Path, read: ObjectRead) -> ObjectRead:
    records, rejects = (
        pq.read_metadata(folder / part / f"{read.object_id}.parquet").num_rows for part in ("records", "rejects")
    )
    if read.withdrawn is not None or (lost := read.landed - records - rejects) == 0:
        return read
    return replace(read, records=records, rejects=rejects, landed=records + rejects, forgotten=read.forgotten + lost)


def find_imbalances(published: Path) -> list[Imbalance]:
    """The objects of a version for which landed = records + rejects does not hold, from counts of the published rows.

    The SQL shares no code with the reader that wrote `objects.parquet`.
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
    with connect() as connection:
        rows = connection.execute(counts, files | {"objects": str(published / "objects.parquet")}).fetchall()
    return [Imbalance(*row) for row in rows]


def _ingest(
    listing: Listing,
    lake: Lake,
    settings: IngestionSettings,
    domain: Domain,
    as_of: str,
    *,
    history: bool,
    forgotten: Forgotten | None,
) -> Landing:
    with lake.staging(TABLE) as staged:
        first = lake.version(TABLE) is None and settings.published_in_key is None
        calendar = Calendar(as_of, history or first, settings.published_in_key)
        known = objects(lake.current(TABLE)) if lake.version(TABLE) else []
        seen = Seen.load(lake.root / TABLE)
        for folder in ("records", "rejects", "scratch"):
            (staged / folder).mkdir()
        reads = _Reads(known, seen, staged, settings, domain, forgotten)
        for source in listing.objects:
            if calendar.has_come(source.key):
                reads.add(source, calendar)
        (staged / "scratch").rmdir()
        reads.require_a_header()
        ordered = _in_order(_as_history(reads.all, listing, calendar) if calendar.history else reads.all)
        if _version(ordered) != lake.version(TABLE):
            _publish(lake, staged, known, ordered)
        deleted = seen.forget_deleted(listing)
        seen.save()
    _warn("overwritten since it was read; its records are kept", reads.overwritten)
    _warn("deleted since it was read; its records are kept", deleted)
    _warn("not read: unsupported file ending", listing.not_read)
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
    """With the sources' objects as history, including those that had landed before."""
    named = {source.key for source in listing.objects}
    return [
        replace(read, known_from=calendar.known_from(read.key))
        if named & {read.key, *map(str, PurePosixPath(read.key).parents)}
        else read
        for read in reads
    ]


class _Reads:
    """Every object ever read, and those read in this run."""

    def __init__(
        self,
        known: Sequence[ObjectRead],
        seen: Seen,
        staged: Path,
        settings: IngestionSettings,
        domain: Domain,
        forgotten: Forgotten | None,
    ) -> None:
        self._reads = {(read.key, read.sha256): read for read in known}
        self._seen, self._staged, self._settings, self._domain = seen, staged, settings, domain
        self._forgotten = forgotten
        self._source = hash_json(domain.source.model_dump(mode="json"))[:16]
        self.overwritten: list[str] = []
        self._new = 0
        self._faults: list[str] = []
        """The faults of new objects that were refused for their headers."""

    @property
    def all(self) -> list[ObjectRead]:
        return list(self._reads.values())

    def require_a_header(self) -> None:
        """Raises SourceError if every new object was refused for its header: no such source was declared."""
        if self._faults and len(self._faults) == self._new:
            others = f" (and {len(self._faults) - 1} more like it)" if len(self._faults) > 1 else ""
            raise SourceError(f"{self._faults[0]}{others}; {EXPLAINED}")

    def add(self, source: SourceObject, calendar: Calendar) -> None:
        """Read an object, unless it is unchanged and none of its content is due to be read again."""
        unchanged = self._seen.contents(source)
        whole = source.whole or unchanged is not None
        if unchanged is not None and not any(self._is_due(*content, whole=whole) for content in unchanged):
            return
        with ExitStack() as stack:
            stable, opened = self._open(source, stack, whole=whole)
            for content in opened:
                if self._is_due(content.key, content.sha256, whole=whole):
                    self._read(content, calendar)
            contents = [(content.key, content.sha256) for content in opened]
            if self._seen.note(source, contents, stable=stable):
                self.overwritten.append(source.location)

    def _open(self, source: SourceObject, stack: ExitStack, *, whole: bool) -> tuple[bool, list[Content]]:
        if source.bytes > self._settings.max_object_bytes:
            return True, [refused(source.key, hash_json(source.stamp), source.bytes, self._domain, "object-too-large")]
        fetched = stack.enter_context(source.fetch(self._staged / "scratch"))
        args = (fetched.path, source.key, fetched.sha256, self._settings, self._domain)
        opened = contents(*args, whole=whole and fetched.stable)
        return fetched.stable, stack.enter_context(opened)

    def _is_due(self, key: str, sha256: str, *, whole: bool) -> bool:
        """Whether content is new, or was refused but may be read now: by a newer reader, another source, or in full."""
        read = self._reads.get((key, sha256))
        if read is None:
            return True
        if read.withdrawn is not None:
            return False
        reads_differently = read.reader < READER or read.source != self._source
        return (read.rejects > 0 and reads_differently) or (read.last_line == "refused" and whole)

    def _read(self, content: Content, calendar: Calendar) -> None:
        """Write the rows of some content to its two files; it keeps the days of an earlier reading."""
        before = self._reads.get((content.key, content.sha256))
        name = before.object_id if before else f"{content.key}\0{content.sha256}"
        object_id = hashlib.sha256(name.encode()).hexdigest()[:16]
        known_from, landed_on = calendar.known_from(content.key), calendar.as_of
        if before:
            known_from, landed_on = before.known_from, before.landed_on
        started = time.perf_counter()
        batch = self._settings.batch_records
        with Parts(self._staged, object_id, content.key, batch, self._domain, self._forgotten) as parts:
            for rows in content.rows():
                parts.write(rows)
        seconds = time.perf_counter() - started
        counts = (parts.records, parts.rejects, parts.landed)
        _log.info("%s: %d records, %d rejects in %.1f s", shown(content.key), *counts[:2], seconds)
        for note in parts.notes:
            _log.warning("%s: %s", shown(content.key), note)
        self._count(content, parts, is_new=before is None)
        last_line = "taken" if before and before.last_line else None
        self._supersede(content)
        self._reads[content.key, content.sha256] = ObjectRead(
            *(object_id, content.key, content.sha256, content.bytes, len(self._reads), *counts, parts.error),
            known_from=known_from,
            landed_on=landed_on,
            reader=READER,
            last_line="refused" if parts.unfinished else last_line,
            notes="; ".join(parts.notes) or None,
            source=self._source,
            forgotten=parts.forgotten,
        )

    def _count(self, content: Content, parts: Parts, *, is_new: bool) -> None:
        self._new += is_new
        if is_new and parts.header_fault is not None:
            self._faults.append(f"{shown(content.key)}: {parts.header_fault}")

    def _supersede(self, content: Content) -> None:
        """Drop an earlier reading that took the beginning of a line for its last line, as this content shows."""
        unended = [read for read in self._reads.values() if read.key == content.key and read.last_line == "taken"]
        for read in unended:
            if content.begins_with(read.sha256, read.bytes):
                del self._reads[read.key, read.sha256]


def _warn(what: str, names: Sequence[str]) -> None:
    """Log one line that names the first few."""
    if names:
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        _log.warning("%s: %s%s", what, ", ".join(map(shown, names[:_SHOWN_NAMES])), more)


def _in_order(reads: Sequence[ObjectRead]) -> list[ObjectRead]:
    """In the order of their versions, whatever order they were read in."""
    ordered = sorted(
        reads, key=lambda read: (read.known_from or "", read.landed_on, _natural(read.key), read.object_id)
    )
    return [replace(read, seq=seq) for seq, read in enumerate(ordered)]


def _natural(key: str) -> list[str | int]:
    """A sort key with numbers in numeric order: text and numbers in turn."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", key))]


def _publish(lake: Lake, staged: Path, known: Sequence[ObjectRead], reads: Sequence[ObjectRead]) -> None:
    carried_over = {read.object_id for read in known} & {read.object_id for read in reads}
    for object_id in carried_over:
        for folder in ("records", "rejects"):
            part = Path(folder) / f"{object_id}.parquet"
            if not (staged / part).exists():
                os.link(lake.current(TABLE) / part, staged / part)
    _write_objects(staged, reads)
    if imbalances := find_imbalances(staged):
        raise AuditError(f"{imbalances[0].key}: {imbalances[0]} does not add up; nothing was published")
    lake.publish(TABLE, _version(reads), staged)


def _write_objects(folder: Path, reads: Sequence[ObjectRead]) -> None:
    pq.write_table(pa.Table.from_pylist([asdict(read) for read in reads], schema=_OBJECTS), folder / "objects.parquet")


def _reasons(published: Path) -> dict[str, int]:
    """Rejects by reason, most frequent first."""
    if not any((published / "rejects").iterdir()):
        return {}
    counts = "select reason, count(*) from read_parquet($rejects) group by reason order by count(*) desc, reason"
    with connect() as connection:
        return dict(connection.execute(counts, {"rejects": str(published / "rejects" / "*.parquet")}).fetchall())


def objects(published: Path) -> list[ObjectRead]:
    """The objects of a version, in the order of their versions."""
    return [ObjectRead(**row) for row in pq.read_table(published / "objects.parquet").to_pylist()]


def _version(reads: Sequence[ObjectRead]) -> str:
    return hash_json([asdict(read) for read in reads])[:16]
