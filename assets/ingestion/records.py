"""What reading yields: a Record for each well-formed row, a Reject for each piece that is not one."""

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from assets.settings import Domain

__all__ = [
    *("NOT_UTF_8", "NUL_BYTE", "SEPARATOR", "TOO_LONG", "Record", "Reject", "Rows"),
    *("make_record", "no_records", "readable", "record_schema", "tabulate", "tabulate_records"),
]

NUL_BYTE, NOT_UTF_8, TOO_LONG = "nul-byte", "not-utf-8", "too-long"

SEPARATOR = "\0"
"""Between fields under the content hash. No field can hold it: a NUL byte is a reject."""


class Record(NamedTuple):
    """One well-formed row."""

    fields: Mapping[str, str | None]
    """The fields as text, in the domain's order; an empty field is None."""
    line: int
    """The physical line on which the record starts, counted from 1 (the header); in Parquet the row, from 1."""
    content_hash: str
    """MD5 over the fields, in hex."""


class Reject(NamedTuple):
    """A piece of an object that is not a record."""

    line: int
    reason: str
    raw_text: str
    of_object: bool = False
    """Whether the whole object, or all of it from here on, cannot be read."""


@dataclass(frozen=True)
class Rows:
    """A stretch of an object: its records and its rejects, each in the order of their lines."""

    records: pa.Table
    """By `record_schema`."""
    rejects: Sequence[Reject] = ()
    notes: Sequence[str] = ()
    """What was accepted although it differs from what the domain declares."""
    header_fault: str | None = None
    """For an object that is refused for its header: what is missing, and what was found."""

    def __len__(self) -> int:
        return len(self.records) + len(self.rejects)

    def in_order(self) -> Iterator[Record | Reject]:
        """Records and rejects by line."""
        names = self.records.schema.names[:-2]
        *fields, lines, hashes = (column.to_pylist() for column in self.records.columns)
        mappings = (dict(zip(names, row, strict=True)) for row in zip(*fields, strict=True))
        return heapq.merge(map(Record, mappings, lines, hashes), self.rejects, key=lambda row: row.line)


def record_schema(domain: Domain) -> pa.Schema:
    """Records as a table: the source's fields, line and content_hash."""
    fields = [(name, pa.string()) for name in domain.source.fields]
    return pa.schema([*fields, ("line", pa.int64()), ("content_hash", pa.string())])


def no_records(domain: Domain) -> pa.Table:
    return record_schema(domain).empty_table()


def make_record(domain: Domain, fields: Sequence[str], line: int) -> Record | str:
    """A record of the source's fields, in their order, or the reason why they are not one.

    Expects bytes that are not UTF-8 as surrogates (`errors="surrogateescape"`).
    """
    joined = SEPARATOR.join(fields)
    if joined.count(SEPARATOR) != len(domain.source.fields) - 1:
        return NUL_BYTE
    try:
        content = joined.encode()
    except UnicodeEncodeError:
        return NOT_UTF_8
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    values = (field or None for field in fields)
    return Record(dict(zip(domain.source.fields, values, strict=True)), line, digest)


def tabulate_records(domain: Domain, records: Sequence[Record]) -> pa.Table:
    """Records as a table by `record_schema`."""
    columns: list[list[str | int | None]] = [[row.fields[name] for row in records] for name in domain.source.fields]
    columns += [[row.line for row in records], [row.content_hash for row in records]]
    schema = record_schema(domain)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def tabulate(domain: Domain, columns: Mapping[str, pa.Array], lines: pa.Array) -> pa.Table:
    """A table by `record_schema` from text columns whose empty fields are null; absent columns are null.

    The text must have no NUL byte.
    """
    absent = pa.nulls(len(lines), pa.string())
    fields = [columns.get(name, absent) for name in domain.source.fields]
    joined = pc.binary_join_element_wise(*fields, SEPARATOR, null_handling="replace", null_replacement="")
    hashes = [hashlib.md5(text, usedforsecurity=False).hexdigest() for text in joined.cast(pa.binary()).to_pylist()]
    return pa.Table.from_arrays([*fields, lines, pa.array(hashes, pa.string())], schema=record_schema(domain))


def readable(text: str) -> str:
    """Text that can be stored and shown: NUL bytes and bytes that are not UTF-8 become backslash escapes."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace").replace("\0", "\\x00")
