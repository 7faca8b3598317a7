"""The two files of an object: its records and its rejects."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.ingestion.forgotten import Forgotten
from assets.ingestion.records import Reject, Rows, record_schema
from assets.ingestion.windows import UNFINISHED
from assets.settings import Domain

__all__ = ["Parts", "shown"]

_REJECTS = pa.schema(
    [("object_id", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("raw_text", pa.string())]
)
_NO_DICTIONARY = {"content_hash", "raw_text", "line"}
_PROGRESS_RECORDS = 250_000

_log = logging.getLogger("evergreen")


class Parts:
    """The two files of one object, written batch by batch; both exist even when empty."""

    def __init__(
        self, staged: Path, object_id: str, key: str, batch: int, domain: Domain, forgotten: Forgotten | None = None
    ) -> None:
        self.records = self.rejects = self.forgotten = 0
        self.error: str | None = None
        self.unfinished = False
        self.header_fault: str | None = None
        self.notes: list[str] = []
        self._object_id, self._key, self._batch = object_id, key, batch
        self._forgotten = forgotten if forgotten and forgotten.tombstones else None
        self._open = ExitStack()
        records = record_schema(domain).insert(0, pa.field("object_id", pa.string()))
        varied = {domain.id, *domain.text.fields}
        self._records = self._writer(staged / "records" / f"{object_id}.parquet", records, varied)
        self._rejects = self._writer(staged / "rejects" / f"{object_id}.parquet", _REJECTS, set())
        self._held: list[pa.Table] = []

    @property
    def landed(self) -> int:
        return self.records + self.rejects

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            if kind is None:
                self._write_records()

    def write(self, rows: Rows) -> None:
        """Add rows, except those of forgotten records; records are written a batch at a time."""
        if self._forgotten:
            kept = _without(rows, self._forgotten)
            self.forgotten += len(rows) - len(kept)
            rows = kept
        before = self.landed
        self.records += len(rows.records)
        self.rejects += len(rows.rejects)
        self.notes += rows.notes
        self.header_fault = self.header_fault or rows.header_fault
        self._held.append(rows.records)
        if sum(map(len, self._held)) >= self._batch:
            self._write_records()
        if rows.rejects:
            self._write_rejects(rows.rejects)
        if self.landed // _PROGRESS_RECORDS > before // _PROGRESS_RECORDS:
            _log.info("%s: %d rows so far", shown(self._key), self.landed)

    def _write_records(self) -> None:
        if any(map(len, self._held)):
            self._write(self._records, pa.concat_tables(self._held))
        self._held = []

    def _write_rejects(self, rejects: Sequence[Reject]) -> None:
        self.error = next((reject.reason for reject in rejects if reject.of_object), self.error)
        self.unfinished |= any(reject.reason == UNFINISHED for reject in rejects)
        names = _REJECTS.names[1:]
        columns = [pa.array([getattr(reject, name) for reject in rejects], _REJECTS.field(name).type) for name in names]
        self._write(self._rejects, pa.table(columns, names=names))

    def _write(self, writer: pq.ParquetWriter, table: pa.Table) -> None:
        writer.write_table(table.add_column(0, "object_id", pa.repeat(self._object_id, len(table))))

    def _writer(self, path: Path, schema: pa.Schema, varied: set[str]) -> pq.ParquetWriter:
        dictionary = [name for name in schema.names if name not in _NO_DICTIONARY | varied]
        return self._open.enter_context(pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=dictionary))


def _without(rows: Rows, forgotten: Forgotten) -> Rows:
    records = rows.records.filter(pc.invert(forgotten.among(rows.records)[0]))
    rejects = [reject for reject in rows.rejects if not forgotten.named_in(reject.raw_text)]
    return replace(rows, records=records, rejects=rejects)


def shown(name: str) -> str:
    """A name on one line, whatever characters it has."""
    return name if name.isprintable() else repr(name)
