"""Reads what is new in the sources and publishes it as the table `raw_complaints`.

A version holds, for every object ever read, `records/<object id>.parquet` and `rejects/<object id>.parquet`, and
`objects.parquet` with the reader's own counts. Files of earlier versions are hard-linked, never copied or changed.
"""

import errno
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
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

__all__ = ["TABLE", "Imbalance", "Landing", "ObjectRead", "find_imbalances", "ingest"]

TABLE = "raw_complaints"

_RECORDS = pa.schema([(name, pa.int64() if name == "line" else pa.string()) for name in ("object_id", *Record._fields)])
_REJECTS = pa.schema(
    [("object_id", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("raw_text", pa.string())]
)
_NO_DICTIONARY = {"narrative", "complaint_id", "content_hash", "raw_text", "line"}
_PROGRESS_RECORDS = 250_000

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
    """The order of reading, from 0."""
    records: int
    rejects: int
    landed: int
    error: str | None
    """Why the object, or its end, cannot be read as a whole."""


_OBJECTS = pa.schema([(f.name, pa.int64() if f.type is int else pa.string()) for f in fields(ObjectRead)])


@dataclass(frozen=True)
class Landing:
    """A published version of the raw table."""

    version: str
    path: Path
    objects: tuple[ObjectRead, ...]
    """Every object ever read, in the order of reading."""
    new_objects: int
    """How many of them were read this time."""
    reasons: dict[str, int]
    """Rejects by reason, the most frequent first."""

    @property
    def records(self) -> int:
        return sum(read.records for read in self.objects)

    @property
    def rejects(self) -> int:
        return sum(read.rejects for read in self.objects)

    @property
    def landed(self) -> int:
        return sum(read.landed for read in self.objects)


@dataclass(frozen=True)
class Imbalance:
    """An object whose published rows are not what its reader counted."""

    key: str
    landed: int
    records: int
    rejects: int


def ingest(sources: Sequence[str], lake: Lake, settings: IngestionSettings) -> Landing:
    """Read each object of the sources once, by key and content, and publish it beside all that was read before.

    New objects are read in the order of their keys. Nothing new publishes nothing. Memory does not grow with an
    object. Raises SourceError for a source that cannot be listed or read, AuditError when the written rows are not
    what was counted, EvergreenError when the disk is full; the previous version then stays as it is.
    """
    objects = list_objects(sources)
    try:
        return _ingest(objects, lake, settings)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"{lake.root}: the disk is full; free some space and run again (the last publication is intact)"
        raise EvergreenError(message) from None


def find_imbalances(published: Path) -> list[Imbalance]:
    """The objects of a version for which landed = records + rejects does not hold, by counting the published rows.

    The count is SQL of its own: it shares nothing with the reader that wrote `objects.parquet`.
    """
    counts = """
        with landed as (select object_id, key, landed, seq from read_parquet($objects)),
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


def _ingest(objects: Sequence[SourceObject], lake: Lake, settings: IngestionSettings) -> Landing:
    known = _objects(lake.current(TABLE)) if lake.version(TABLE) else []
    reads = list(known)
    with lake.staging(TABLE) as staged:
        for folder in ("records", "rejects", "scratch"):
            (staged / folder).mkdir()
        for found in objects:
            with found.fetch(staged / "scratch") as fetched:
                if (read := _read(found, fetched, reads, staged, settings)) is not None:
                    reads.append(read)
        (staged / "scratch").rmdir()
        if len(reads) > len(known):
            _publish(lake, staged, known, reads)
    return _landing(lake, reads, len(reads) - len(known))


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
            os.link(lake.current(TABLE) / part, staged / part)
    pq.write_table(pa.Table.from_pylist([asdict(read) for read in reads], schema=_OBJECTS), staged / "objects.parquet")
    if imbalances := find_imbalances(staged):
        raise AuditError(f"{imbalances[0].key}: {imbalances[0]} does not add up; nothing was published")
    lake.publish(TABLE, _version(reads), staged)


def _landing(lake: Lake, reads: Sequence[ObjectRead], new_objects: int) -> Landing:
    path = lake.current(TABLE)
    reasons = Counter[str]()
    for read in reads:
        reasons.update(pq.read_table(path / "rejects" / f"{read.object_id}.parquet", columns=["reason"])[0].to_pylist())
    return Landing(_version(reads), path, tuple(reads), new_objects, dict(reasons.most_common()))


def _objects(published: Path) -> list[ObjectRead]:
    return [ObjectRead(**row) for row in pq.read_table(published / "objects.parquet").to_pylist()]


def _version(reads: Sequence[ObjectRead]) -> str:
    return hash_json([read.object_id for read in reads])[:16]
