"""Reads what is new in the sources and publishes it as the table `raw_complaints`.

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
from calendar import monthrange
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from assets.exceptions import AuditError, EvergreenError
from assets.ingestion.reading import read_object
from assets.ingestion.records import Record, Reject
from assets.ingestion.sources import Fetched, SourceObject, list_objects
from assets.lake import Lake, hash_json
from assets.settings import IngestionSettings

__all__ = [
    *("TABLE", "Imbalance", "Landing", "ObjectRead"),
    *("find_imbalances", "find_object", "ingest", "withdraw"),
]

TABLE = "raw_complaints"

_RECORDS = pa.schema([(name, pa.int64() if name == "line" else pa.string()) for name in ("object_id", *Record._fields)])
_REJECTS = pa.schema(
    [("object_id", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("raw_text", pa.string())]
)
_NO_DICTIONARY = {"narrative", "complaint_id", "content_hash", "raw_text", "line"}
_PROGRESS_RECORDS = 250_000
_CANDIDATES = 10
"""Objects that are listed when a name fits none, or several."""

_log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class ObjectRead:
    """An object that was read, and what the reader counted: a row of `objects.parquet`."""

    object_id: str
    """The first 16 hex digits of SHA-256 over the key, a NUL byte and the content's SHA-256."""
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
    """The as-of of the run that read it."""
    withdrawn: str | None = None
    """Why a person took it and all that it brought out of what follows. It is not read again, and its two files are
    empty; None where it counts."""


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
    sources: Sequence[str], lake: Lake, settings: IngestionSettings, as_of: str, *, history: bool = False
) -> Landing:
    """Read each object of the sources once, by key and content, and publish it beside all that was read before.

    What is read lands on `as_of` (YYYY-MM-DD); what was published later is not there yet. `history` takes what does not
    say when it was published as known by its records' own dates; so does the first landing, when the settings declare
    nothing. Nothing new publishes nothing. Memory does not grow with an object. Raises SourceError for a source that
    cannot be listed or read, AuditError when the written rows are not what was counted, EvergreenError when the disk is
    full; the previous version then stays as it is.
    """
    objects = list_objects(sources)
    first = lake.version(TABLE) is None and settings.published_in_key is None
    try:
        return _ingest(objects, lake, settings, _Calendar(as_of, history or first, settings.published_in_key))
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
        for folder, schema in (("records", _RECORDS), ("rejects", _REJECTS)):
            (staged / folder).mkdir()
            pq.write_table(schema.empty_table(), staged / folder / f"{object_id}.parquet")
        if reads != known:
            _publish(lake, staged, known, reads)


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


@dataclass(frozen=True)
class _Calendar:
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


def _ingest(objects: Sequence[SourceObject], lake: Lake, settings: IngestionSettings, calendar: _Calendar) -> Landing:
    known = _objects(lake.current(TABLE)) if lake.version(TABLE) else []
    reads = list(known)
    with lake.staging(TABLE) as staged:
        for folder in ("records", "rejects", "scratch"):
            (staged / folder).mkdir()
        for found in objects:
            if not calendar.has_come(found.key):
                continue
            with found.fetch(staged / "scratch") as fetched:
                if (read := _read(found, fetched, reads, staged, settings)) is not None:
                    known_from = calendar.known_from(read.key)
                    reads.append(replace(read, known_from=known_from, landed_on=calendar.as_of))
        (staged / "scratch").rmdir()
        ordered = _in_order(reads)
        if _version(ordered) != lake.version(TABLE):
            _publish(lake, staged, known, ordered)
    return _landing(lake, ordered, {read.object_id for read in known})


def _in_order(reads: Sequence[ObjectRead]) -> list[ObjectRead]:
    """In the order of their versions, whatever the order in which they were read."""
    ordered = sorted(
        reads, key=lambda read: (read.known_from or "", read.landed_on, _natural(read.key), read.object_id)
    )
    return [replace(read, seq=seq) for seq, read in enumerate(ordered)]


def _natural(key: str) -> list[str | int]:
    """A key as people order it: texts and numbers in turn."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", key))]


def _read(
    found: SourceObject, fetched: Fetched, reads: Sequence[ObjectRead], staged: Path, settings: IngestionSettings
) -> ObjectRead | None:
    """Write an object's rows to its two files; None when it was read before."""
    object_id = hashlib.sha256(f"{found.key}\0{fetched.sha256}".encode()).hexdigest()[:16]
    if any(read.object_id == object_id for read in reads):
        return None
    started = time.perf_counter()
    with _Parts(staged, object_id, found.key) as parts:
        for rows in read_object(fetched.path, found.key, settings):
            parts.write(rows)
    seconds = time.perf_counter() - started
    _log.info("%s: %d records, %d rejects in %.1f s", found.key, parts.records, parts.rejects, seconds)
    counts = (parts.records, parts.rejects, parts.landed, parts.error)
    return ObjectRead(object_id, found.key, fetched.sha256, fetched.bytes, len(reads), *counts)


class _Parts:
    """The two files of one object, written batch by batch; both exist even when they hold no row."""

    def __init__(self, staged: Path, object_id: str, key: str) -> None:
        self.records = self.rejects = self.landed = 0
        self.error: str | None = None
        self._object_id, self._key = object_id, key
        self._open = ExitStack()
        self._records = self._writer(staged / "records" / f"{object_id}.parquet", _RECORDS)
        self._rejects = self._writer(staged / "rejects" / f"{object_id}.parquet", _REJECTS)

    def __enter__(self) -> "_Parts":
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def write(self, rows: Sequence[Record | Reject]) -> None:
        records = [row for row in rows if isinstance(row, Record)]
        rejects = [row for row in rows if isinstance(row, Reject)]
        self._write(self._records, _RECORDS, records)
        self._write(self._rejects, _REJECTS, [reject[:3] for reject in rejects])
        self.error = next((reject.reason for reject in rejects if reject.of_object), self.error)
        if (self.landed + len(rows)) // _PROGRESS_RECORDS > self.landed // _PROGRESS_RECORDS:
            _log.info("%s: %d rows so far", self._key, self.landed + len(rows))
        self.landed += len(rows)
        self.records += len(records)
        self.rejects += len(rejects)

    def _write(self, writer: pq.ParquetWriter, schema: pa.Schema, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            columns = [[self._object_id] * len(rows), *zip(*rows, strict=True)]
            arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

    def _writer(self, path: Path, schema: pa.Schema) -> pq.ParquetWriter:
        dictionary = [name for name in schema.names if name not in _NO_DICTIONARY]
        return self._open.enter_context(pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=dictionary))


def _publish(lake: Lake, staged: Path, known: Sequence[ObjectRead], reads: Sequence[ObjectRead]) -> None:
    for read in known:
        for folder in ("records", "rejects"):
            part = Path(folder) / f"{read.object_id}.parquet"
            if not (staged / part).exists():
                os.link(lake.current(TABLE) / part, staged / part)
    pq.write_table(pa.Table.from_pylist([asdict(read) for read in reads], schema=_OBJECTS), staged / "objects.parquet")
    if imbalances := find_imbalances(staged):
        raise AuditError(f"{imbalances[0].key}: {imbalances[0]} does not add up; nothing was published")
    lake.publish(TABLE, _version(reads), staged)


def _landing(lake: Lake, reads: Sequence[ObjectRead], before: set[str]) -> Landing:
    path = lake.current(TABLE)
    reasons = Counter[str]()
    for read in reads:
        reasons.update(pq.read_table(path / "rejects" / f"{read.object_id}.parquet", columns=["reason"])[0].to_pylist())
    new = tuple(read for read in reads if read.object_id not in before)
    return Landing(_version(reads), path, tuple(reads), new, dict(reasons.most_common()))


def _objects(published: Path) -> list[ObjectRead]:
    return [ObjectRead(**row) for row in pq.read_table(published / "objects.parquet").to_pylist()]


def _version(reads: Sequence[ObjectRead]) -> str:
    return hash_json([asdict(read) for read in reads])[:16]
