"""Reads one local file of the official layout, CSV (plain or gzip) or Parquet, by streaming."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.exceptions import SourceError
from assets.ingestion.layout import HeaderError, Layout, read_header
from assets.ingestion.records import OUTCOMES, SEPARATOR, SPARE, Record, Reject, make_record, readable
from assets.ingestion.splitting import DamagedError, split
from assets.settings import IngestionSettings

__all__ = ["FORMATS", "read_object", "read_rows"]

FORMATS = (".csv", ".csv.gz", ".parquet")

_BLOCK = 8 << 20
_COMPRESSED_BLOCK = 1 << 20
_PARQUET_ROWS = 10_000


def read_rows(path: Path, settings: IngestionSettings) -> Iterator[Record | Reject]:
    """Every row of a file to be scored, in order; columns that are outcomes may be missing.

    Raises SourceError, when the first row is asked for, if the file is missing or cannot be read as a whole.
    """
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file")
    for rows in _read(path, path.name, settings, OUTCOMES):
        for row in rows:
            if isinstance(row, Reject) and row.of_object and row.line == 1:
                raise SourceError(f"{path}: {row.reason}; expected the columns of the bureau's official export")
            yield row


def read_object(path: Path, key: str, settings: IngestionSettings) -> Iterator[list[Record | Reject]]:
    """The rows of an object, in order, in lists of at most `settings.batch_records`; `key`'s ending says the format.

    What cannot be read is a Reject, the object as a whole included (`of_object`).
    """
    for rows in _read(path, key, settings, SPARE):
        for start in range(0, len(rows), settings.batch_records):
            yield rows[start : start + settings.batch_records]


def _read(
    path: Path, key: str, settings: IngestionSettings, optional: frozenset[str]
) -> Iterator[list[Record | Reject]]:
    if key.endswith(".parquet") and path.stat().st_size > 0:
        return _parquet_rows(path, optional)
    blocks = _inflated(path) if key.endswith(".gz") else _blocks(path, _BLOCK)
    return split(blocks, settings.max_record_bytes, optional)


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(size):
            yield block


def _inflated(path: Path) -> Iterator[bytes]:
    """The content of a gzip file of one or more members. Raises DamagedError where it is cut or corrupt."""
    inflater = _Inflater()
    for block in _blocks(path, _COMPRESSED_BLOCK):
        yield from inflater.inflate(block)
    if inflater.in_member:
        raise DamagedError("truncated-gzip")


class _Inflater:
    """Zlib over the members of a gzip stream, at most one block of content at a time."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self.in_member = False

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """The content of this much data. Raises DamagedError, after the last byte that could be had."""
        while data:
            if not self.in_member:
                data = data.lstrip(b"\0")
                self.in_member = bool(data)
            before = self._member.copy()
            try:
                content = self._member.decompress(data, _BLOCK)
            except zlib.error:
                yield _salvage(before, data)
                raise DamagedError("corrupt-gzip") from None
            yield content
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._member, self.in_member = self._member.unused_data, zlib.decompressobj(wbits=31), False


def _salvage(member: "zlib._Decompress", data: bytes) -> bytes:
    """What comes before the fault in the last step, which zlib drops when it fails."""
    content = bytearray()
    try:
        for byte in range(len(data)):
            content += member.decompress(data[byte : byte + 1])
    except zlib.error:
        return bytes(content)
    raise AssertionError("the fault went away")


def _parquet_rows(path: Path, optional: frozenset[str]) -> Iterator[list[Record | Reject]]:
    row = 1
    try:
        with pq.ParquetFile(path) as file:
            layout = read_header(file.schema_arrow.names, optional)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield [_parquet_row(layout, fields, row + place) for place, fields in enumerate(_texts(batch))]
                row += batch.num_rows
    except HeaderError as fault:
        yield [Reject(1, str(fault), ", ".join(file.schema_arrow.names), of_object=True)]
    except (pa.ArrowException, OSError) as error:
        yield [Reject(row, "unreadable-parquet", readable(str(error)), of_object=True)]


def _parquet_row(layout: Layout, row: list[str], line: int) -> Record | Reject:
    fields = layout.pick(row)
    made = make_record(fields, SEPARATOR.join(fields), line)
    return Reject(line, made, readable(str(row))) if isinstance(made, str) else made


def _texts(batch: pa.RecordBatch) -> Iterator[list[str]]:
    """The rows of a batch as texts: dates in ISO, nulls empty, bytes that are not UTF-8 as surrogates."""
    for row in zip(*map(_column_texts, batch.columns), strict=True):
        yield list(row)


def _column_texts(column: pa.Array) -> Sequence[str]:
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, format="%Y-%m-%d")
    elif not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        column = column.cast(pa.string())
    binary = column.cast(pa.binary())
    return ["" if value is None else value.decode(errors="surrogateescape") for value in binary.to_pylist()]
