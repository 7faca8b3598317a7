"""What reading yields: a record for each well-formed row, a Reject for each piece that is none."""

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "COLUMNS",
    "NOT_UTF_8",
    "NUL_BYTE",
    "OUTCOMES",
    "RECORDS",
    "SEPARATOR",
    "SPARE",
    "Record",
    "Reject",
    "Rows",
    "make_record",
    "readable",
    "tabulate",
    "tabulate_records",
]

NUL_BYTE, NOT_UTF_8 = "nul-byte", "not-utf-8"

SEPARATOR = "\0"
"""Between fields under the content hash. No field can hold it: a NUL byte is a reject."""

COLUMNS = {
    "Date received": "date_received",
    "Product": "product",
    "Sub-product": "sub_product",
    "Issue": "issue",
    "Sub-issue": "sub_issue",
    "Consumer complaint narrative": "narrative",
    "Company public response": "company_public_response",
    "Company": "company",
    "State": "state",
    "ZIP code": "zip_code",
    "Tags": "tags",
    "Consumer consent provided?": "consent",
    "Submitted via": "channel",
    "Date sent to company": "date_sent_to_company",
    "Company response to consumer": "company_response",
    "Timely response?": "timely_response",
    "Consumer disputed?": "disputed",
    "Complaint ID": "complaint_id",
}
"""The bureau's official header and our names for it, in the official order."""

SPARE = frozenset(
    {
        "Company public response",
        "Consumer consent provided?",
        "Company response to consumer",
        "Timely response?",
        "Consumer disputed?",
    }
)
"""Columns that nothing reads: an export without them (the one of 2026 lost two) is accepted, as nulls."""

OUTCOMES = SPARE | {"Product", "Sub-product", "Issue", "Sub-issue", "Date sent to company"}
"""Columns that are not known before a complaint is routed: a file to score may lack them."""


class Record(NamedTuple):
    """One well-formed row, all text; an empty field is None."""

    date_received: str | None
    product: str | None
    sub_product: str | None
    issue: str | None
    sub_issue: str | None
    narrative: str | None
    company_public_response: str | None
    company: str | None
    state: str | None
    zip_code: str | None
    tags: str | None
    consent: str | None
    channel: str | None
    date_sent_to_company: str | None
    company_response: str | None
    timely_response: str | None
    disputed: str | None
    complaint_id: str | None
    line: int
    """The physical line on which the record starts, from 1 (the header); in Parquet the row, from 1."""
    content_hash: str
    """MD5 over the 18 fields, in hex."""


RECORDS = pa.schema([(name, pa.int64() if name == "line" else pa.string()) for name in Record._fields])
"""Records as a table."""


class Reject(NamedTuple):
    """A piece of an object that is no record."""

    line: int
    reason: str
    raw_text: str
    of_object: bool = False
    """Whether the object as a whole, or all from here on, cannot be read."""


@dataclass(frozen=True)
class Rows:
    """A stretch of an object: its records and its rejects, each in the order of their lines."""

    records: pa.Table
    """By the schema RECORDS."""
    rejects: Sequence[Reject] = ()
    notes: Sequence[str] = ()
    """What was accepted though it is not as the official export has it."""

    def __len__(self) -> int:
        return len(self.records) + len(self.rejects)

    def in_order(self) -> Iterator[Record | Reject]:
        """Records and rejects by line."""
        columns = [column.to_pylist() for column in self.records.columns]
        records = map(Record._make, zip(*columns, strict=True))
        return heapq.merge(records, self.rejects, key=lambda row: row.line)


def make_record(fields: Sequence[str], joined: str, line: int) -> Record | str:
    """A record of 18 fields in the official order, or the reason why they are none.

    `joined` is the fields with SEPARATOR between them. Bytes that are not UTF-8 are expected as surrogates
    (`errors="surrogateescape"`).
    """
    if joined.count(SEPARATOR) != len(COLUMNS) - 1:
        return NUL_BYTE
    try:
        content = joined.encode()
    except UnicodeEncodeError:
        return NOT_UTF_8
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Record._make((*[field or None for field in fields], line, digest))


def tabulate_records(records: Sequence[Record]) -> pa.Table:
    """Records as a table by RECORDS."""
    columns = zip(*records, strict=True) if records else [()] * len(RECORDS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RECORDS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=RECORDS)


def tabulate(columns: Mapping[str, pa.Array], lines: pa.Array) -> pa.Table:
    """A table by RECORDS of text columns by their official names, an empty field null; absent columns are null.

    The text has no NUL byte.
    """
    absent = pa.nulls(len(lines), pa.string())
    fields = [columns.get(name, absent) for name in COLUMNS]
    joined = pc.binary_join_element_wise(*fields, SEPARATOR, null_handling="replace", null_replacement="")
    hashes = [hashlib.md5(text, usedforsecurity=False).hexdigest() for text in joined.cast(pa.binary()).to_pylist()]
    return pa.Table.from_arrays([*fields, lines, pa.array(hashes, pa.string())], schema=RECORDS)


def readable(text: str) -> str:
    """Text that can be stored and shown: bytes that are not UTF-8, and NUL bytes, as backslash escapes."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace").replace("\0", "\\x00")
