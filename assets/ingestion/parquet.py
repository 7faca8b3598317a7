"""Reads a Parquet file of the official columns, in batches that are bounded before they are decoded."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.ingestion.doubtful import TOO_LONG
from assets.ingestion.layout import HeaderError, Layout, read_header
from assets.ingestion.records import (
    COLUMNS,
    SEPARATOR,
    Record,
    Reject,
    Rows,
    make_record,
    readable,
    tabulate,
    tabulate_records,
)
from assets.ingestion.splitting import Limits
from assets.ingestion.unpacking import DamagedError

__all__ = ["parquet_rows"]

_MAX_FOOTER_TEXT, _MAX_FOOTER_ITEMS = 16 << 20, 1 << 20
_BATCH_ROWS = 10_000


def parquet_rows(path: Path, limits: Limits, max_expanded: int, optional: frozenset[str]) -> Iterator[Rows]:
    """The rows of a file; what cannot be read is a reject, of the whole file if need be.

    Text is counted by the lengths in its dictionaries before it is decoded: a row that is longer than a record may be
    is a reject, about a chunk is decoded at a time, and after `max_expanded` bytes in all, with a comma per column as
    in CSV, the file is refused from there on: 'expands-too-far'. A page is held whole.
    """
    row, names = 1, ""
    try:
        with _open(path) as file:
            names, schema, metadata = ", ".join(file.schema_arrow.names), file.schema_arrow, file.metadata
            layout = read_header(schema.names, optional)
        if layout.notes:
            yield Rows(tabulate_records([]), (), layout.notes)
        known = {field.name: name for field, name in zip(schema, layout.columns, strict=True) if name in COLUMNS}
        _require_flat([schema.field(name) for name in known])
        if sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups)) > max_expanded:
            raise DamagedError("expands-too-far")
        texts = [name for name in known if _is_text(schema.field(name).type)]
        with _open(path, buffer_size=limits.chunk, read_dictionary=texts) as file:
            for found in file.iter_batches(_batch_rows(metadata, limits.chunk), columns=[*known], use_threads=False):
                batch = found.rename_columns([known[name] for name in found.schema.names])
                sizes = _sizes(batch) + layout.width
                max_expanded -= int(np.where(sizes > limits.record, 0, sizes).sum())
                if max_expanded < 0:
                    raise DamagedError("expands-too-far")
                yield from _batch_pieces(batch, sizes, row, limits)
                row += batch.num_rows
    except HeaderError as fault:
        yield _refused(1, str(fault), names)
    except DamagedError as damage:
        yield _refused(row, str(damage), "")
    except (pa.ArrowException, OSError) as error:
        yield _refused(row, "unreadable-parquet", str(error))


def _open(path: Path, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(
        path,
        thrift_string_size_limit=_MAX_FOOTER_TEXT,
        thrift_container_size_limit=_MAX_FOOTER_ITEMS,
        **options,
    )


def _refused(row: int, reason: str, text: str) -> Rows:
    return Rows(tabulate_records([]), [Reject(row, reason, readable(text), of_object=True)])


def _require_flat(fields: Sequence[pa.Field]) -> None:
    for field in fields:
        if pa.types.is_nested(field.type):
            raise pa.ArrowInvalid(f"{field.name}: {field.type} is no text, number or date")


def _is_text(kind: pa.DataType) -> bool:
    is_kind = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return any(test(kind) for test in is_kind)


def _batch_rows(metadata: pq.FileMetaData, chunk: int) -> int:
    """So many rows that a chunk holds them, by the averages of the fullest row group."""
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1)
    return int(np.clip(chunk / max(widest, 1), 1, _BATCH_ROWS))


def _sizes(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """The bytes of text in each row."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
            lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
        elif _is_text(column.type):
            lengths = pc.binary_length(column)
        else:
            continue
        sizes += lengths.fill_null(0).to_numpy(zero_copy_only=False)
    return sizes


def _batch_pieces(batch: pa.RecordBatch, sizes: npt.NDArray[np.int64], row: int, limits: Limits) -> Iterator[Rows]:
    long = sizes > limits.record
    rejects = [Reject(row + int(place), TOO_LONG, "") for place in np.flatnonzero(long)]
    if rejects:
        yield Rows(tabulate_records([]), rejects)
    kept = np.flatnonzero(~long)
    chunks = np.cumsum(sizes[kept]) // limits.chunk
    for piece in np.split(kept, np.flatnonzero(np.diff(chunks)) + 1):
        if len(piece):
            yield _rows({name: _text(column) for name, column in _taken(batch, piece)}, row + piece)


def _taken(batch: pa.RecordBatch, places: npt.NDArray[np.int64]) -> Iterator[tuple[str, pa.Array]]:
    taken = batch.take(pa.array(places))
    return zip(taken.schema.names, taken.columns, strict=True)


def _text(column: pa.Array) -> pa.Array:
    """A column as bytes: dates in ISO, an empty field null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, format="%Y-%m-%d")
    elif not _is_text(column.type):
        column = column.cast(pa.string())
    column = column.cast(pa.binary())
    return pc.if_else(pc.equal(column, b""), pa.scalar(None, pa.binary()), column)


def _rows(columns: Mapping[str, pa.Array], lines: npt.NDArray[np.int64]) -> Rows:
    """The rows of text columns; one by one where a byte is in them that no text has."""
    try:
        texts = {name: column.cast(pa.string()) for name, column in columns.items()}
    except pa.ArrowInvalid:
        return _single_rows(columns, lines)
    if any(pc.any(pc.match_substring(text, SEPARATOR)).as_py() for text in texts.values()):
        return _single_rows(columns, lines)
    return Rows(tabulate(texts, pa.array(lines)))


def _single_rows(columns: Mapping[str, pa.Array], lines: npt.NDArray[np.int64]) -> Rows:
    names = list(columns)
    layout, records, rejects = Layout(tuple(names)), list[Record](), list[Reject]()
    for line, row in zip(lines.tolist(), zip(*(columns[name].to_pylist() for name in names), strict=True), strict=True):
        texts = ["" if value is None else value.decode(errors="surrogateescape") for value in row]
        fields = layout.pick(texts)
        made = make_record(fields, SEPARATOR.join(fields), line)
        if isinstance(made, Record):
            records.append(made)
        else:
            rejects.append(Reject(line, made, readable(str(texts))))
    return Rows(tabulate_records(records), rejects)
