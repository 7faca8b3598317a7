"""Reads a Parquet file in batches whose size is bounded before decoding; dotted names reach into structs."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.ingestion.layout import HeaderError, plain, read_header
from assets.ingestion.records import (
    SEPARATOR,
    TOO_LONG,
    Record,
    Reject,
    Rows,
    make_record,
    no_records,
    readable,
    tabulate,
    tabulate_records,
)
from assets.ingestion.unpacking import DamagedError
from assets.ingestion.windows import Limits
from assets.settings import Domain
from assets.settings.domain import Source

__all__ = ["parquet_rows"]

_MAX_FOOTER_TEXT, _MAX_FOOTER_ITEMS = 16 << 20, 1 << 20
_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class _Column:
    """A column that is a field of the domain."""

    field: str
    path: tuple[str, ...]
    """Its name, or the names on the way to it through structs."""
    type: pa.DataType

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        top, *inner = self.path
        return pc.struct_field(batch[top], inner) if inner else batch[top]


def parquet_rows(
    path: Path, limits: Limits, max_expanded: int, domain: Domain, optional: frozenset[str]
) -> Iterator[Rows]:
    """The rows of a file; what cannot be read is a reject, of the whole file if need be.

    Text is measured by the lengths in its dictionaries before it is decoded. A row longer than a record may be is a
    reject, about one chunk is decoded at a time, and after `max_expanded` bytes in all, counting a comma per column as
    in CSV, the rest of the file is refused: 'expands-too-far'. Each page is held in memory whole.
    """
    row, names = 1, ""
    try:
        with _open(path) as file:
            nodes, metadata = _nodes(file.schema_arrow, domain.source), file.metadata
            heads = [".".join(path) for path, _ in nodes]
            names = ", ".join(heads)
            layout = read_header(heads, domain, optional)
        if layout.notes:
            yield Rows(no_records(domain), (), layout.notes)
        pairs = zip(layout.columns, nodes, strict=True)
        columns = [_Column(field, *node) for field, node in pairs if field is not None]
        _require_flat(columns)
        if sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups)) > max_expanded:
            raise DamagedError("expands-too-far")
        texts, chosen = [c.name for c in columns if _is_text(c.type)], [c.name for c in columns]
        with _open(path, buffer_size=limits.chunk, read_dictionary=texts) as file:
            for whole in file.iter_batches(_batch_rows(metadata, limits.chunk), columns=chosen, use_threads=False):
                batch = pa.RecordBatch.from_arrays([c.of(whole) for c in columns], names=[c.field for c in columns])
                sizes = _sizes(batch) + layout.width
                max_expanded -= int(np.where(sizes > limits.record, 0, sizes).sum())
                if max_expanded < 0:
                    raise DamagedError("expands-too-far")
                yield from _batch_pieces(domain, batch, sizes, row, limits)
                row += batch.num_rows
    except HeaderError as fault:
        yield _refused(domain, 1, str(fault), names, fault.fault)
    except DamagedError as damage:
        yield _refused(domain, row, str(damage), "")
    except (pa.ArrowException, OSError) as error:
        yield _refused(domain, row, "unreadable-parquet", str(error))


def _open(path: Path, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(
        path,
        thrift_string_size_limit=_MAX_FOOTER_TEXT,
        thrift_container_size_limit=_MAX_FOOTER_ITEMS,
        **options,
    )


def _refused(domain: Domain, row: int, reason: str, text: str, fault: str | None = None) -> Rows:
    return Rows(no_records(domain), [Reject(row, reason, readable(text), of_object=True)], header_fault=fault)


def _nodes(schema: pa.Schema, source: Source) -> list[tuple[tuple[str, ...], pa.DataType]]:
    """Columns, and nested fields by path; a column whose name contains dots takes precedence over a nested field."""
    wanted = {plain(name) for field in source.fields for name in source.names(field)}
    tops = {plain(field.name) for field in schema}
    leaves = [leaf for field in schema for leaf in _leaves(field, (), wanted)]
    return [(path, kind) for path, kind in leaves if len(path) == 1 or plain(".".join(path)) not in tops]


def _leaves(
    field: pa.Field, above: tuple[str, ...], wanted: Container[str]
) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
    path = (*above, field.name)
    if pa.types.is_struct(field.type) and plain(".".join(path)) not in wanted:
        for inner in field.type:
            yield from _leaves(inner, path, wanted)
    else:
        yield path, field.type


def _require_flat(columns: Sequence[_Column]) -> None:
    for column in columns:
        if pa.types.is_nested(column.type):
            raise pa.ArrowInvalid(f"{column.name}: {column.type} is not text, a number or a date")


def _is_text(kind: pa.DataType) -> bool:
    is_kind = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return any(test(kind) for test in is_kind)


def _batch_rows(metadata: pq.FileMetaData, chunk: int) -> int:
    """The number of rows that fit in a chunk, by the average row size of the fullest row group."""
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


def _batch_pieces(
    domain: Domain, batch: pa.RecordBatch, sizes: npt.NDArray[np.int64], row: int, limits: Limits
) -> Iterator[Rows]:
    long = sizes > limits.record
    rejects = [Reject(row + int(place), TOO_LONG, "") for place in np.flatnonzero(long)]
    if rejects:
        yield Rows(no_records(domain), rejects)
    short = np.flatnonzero(~long)
    chunks = np.cumsum(sizes[short]) // limits.chunk
    for places in np.split(short, np.flatnonzero(np.diff(chunks)) + 1):
        if len(places):
            piece = batch.take(pa.array(places))
            kinds = [domain.source.fields[name].type for name in piece.schema.names]
            texts = map(_text, piece.columns, kinds)
            yield _rows(domain, dict(zip(piece.schema.names, texts, strict=True)), row + places)


def _text(column: pa.Array, kind: str) -> pa.Array:
    """A column as bytes: times in ISO 8601 (in UTC if they have a zone), empty fields null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, format="%Y-%m-%d") if kind == "day" else _instant(column)
    elif pa.types.is_floating(column.type):
        column = _number(column.cast(pa.float64()))
    elif not _is_text(column.type):
        column = column.cast(pa.string())
    column = column.cast(pa.binary())
    return pc.if_else(pc.equal(column, b""), pa.scalar(None, pa.binary()), column)


def _instant(column: pa.Array) -> pa.Array:
    zone = "Z" if column.type.tz else ""
    if zone:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    text = pc.strftime(column, format=f"%Y-%m-%dT%H:%M:%S{zone}")
    return pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")


def _number(column: pa.Array) -> pa.Array:
    """Numbers as text, whole ones without a fraction: a column of ids with nulls in it is stored as floats."""
    whole = pc.and_(pc.equal(column, pc.trunc(column)), pc.less(pc.abs(column), float(1 << 63)))
    integers = pc.if_else(whole, column, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(integers, column.cast(pa.string()))


def _rows(domain: Domain, columns: Mapping[str, pa.Array], lines: npt.NDArray[np.int64]) -> Rows:
    """The rows of text columns; one by one where they contain a byte that text cannot have."""
    try:
        texts = {name: column.cast(pa.string()) for name, column in columns.items()}
    except pa.ArrowInvalid:
        return _single_rows(domain, columns, lines)
    if any(pc.any(pc.match_substring(text, SEPARATOR)).as_py() for text in texts.values()):
        return _single_rows(domain, columns, lines)
    return Rows(tabulate(domain, texts, pa.array(lines)))


def _single_rows(domain: Domain, columns: Mapping[str, pa.Array], lines: npt.NDArray[np.int64]) -> Rows:
    records, rejects = list[Record](), list[Reject]()
    absent = [None] * len(lines)
    values = [columns[name].to_pylist() if name in columns else absent for name in domain.source.fields]
    for line, row in zip(lines.tolist(), zip(*values, strict=True), strict=True):
        texts = ["" if value is None else value.decode(errors="surrogateescape") for value in row]
        outcome = make_record(domain, texts, line)
        if isinstance(outcome, Record):
            records.append(outcome)
        else:
            rejects.append(Reject(line, outcome, readable(str(texts))))
    return Rows(tabulate_records(domain, records), rejects)
