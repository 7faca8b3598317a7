"""Reads the beginning of a file of unknown layout: its columns and their values."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets.exceptions import SourceError
from assets.ingestion.unpacking import DamagedError, file_blocks, unpacker
from assets.onboarding.times import TimeForm, time_form

__all__ = ["ENDINGS", "Column", "Sample", "read_sample"]

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")
"""The endings of a file's name, before .gz or .zst."""

_BYTES = 16 << 20
"""The most bytes read of a file, unpacked."""
_ROWS = 20_000
_BLOCK = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_NOT_UTF8 = "\ufffd"
"""What bytes that are no UTF-8 are read as: a sample leaves out such rows, as ingestion quarantines them."""


@dataclass(frozen=True)
class Column:
    """A column of the sample, by its name in the file; in JSON Lines, nested keys joined by dots."""

    name: str
    values: tuple[str, ...]
    """One per row; an empty string is a missing value."""

    @cached_property
    def filled(self) -> tuple[str, ...]:
        return tuple(value for value in self.values if value)

    @cached_property
    def distinct(self) -> int:
        return len(set(self.filled))

    @cached_property
    def words(self) -> float:
        """The mean number of words per value."""
        return sum(len(value.split()) for value in self.filled) / max(len(self.filled), 1)

    @cached_property
    def time(self) -> TimeForm | None:
        """The format of its days or instants, if it holds any."""
        return time_form(self.filled)

    @property
    def is_number(self) -> bool:
        return bool(self.filled) and all(value.isdecimal() for value in self.filled)


@dataclass(frozen=True)
class Sample:
    path: Path
    columns: tuple[Column, ...]
    rows: int
    whole: bool
    """Whether these are all rows of the file."""
    delimiter: str | None = None
    """The delimiter of a CSV file."""


def read_sample(path: Path) -> Sample:
    """The first rows, at most 20,000, of a CSV file with a header (plain, .gz, .zst), of JSON Lines or of Parquet.

    Raises SourceError for a file that is missing, has another ending, or has no readable row.
    """
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file")
    if not name.endswith(ENDINGS):
        raise SourceError(
            f"{path}: its name must end in {', '.join(ENDINGS)}; text files may be compressed as .gz or .zst"
        )
    try:
        sample = _parquet(path) if name.endswith(".parquet") else _lines(path, is_csv=name.endswith(".csv"))
    except (DamagedError, pa.ArrowException, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    if not sample.rows:
        raise SourceError(f"{path}: no row in it can be read")
    return sample


def _lines(path: Path, *, is_csv: bool) -> Sample:
    text, whole = _beginning(path)
    return _csv(path, text, whole=whole) if is_csv else _json_lines(path, text, whole=whole)


def _beginning(path: Path) -> tuple[str, bool]:
    """Whole lines from the start of a file, and whether they are all of it."""
    unpack, held = unpacker(path.name), bytearray()
    for block in unpack(path) if unpack else file_blocks(path, _BLOCK):
        held += block
        if len(held) > _BYTES:
            return bytes(held[: held.rfind(b"\n") + 1]).decode("utf-8-sig", "replace"), False
    return bytes(held).decode("utf-8-sig", "replace"), True


def _csv(path: Path, text: str, *, whole: bool) -> Sample:
    delimiter = max(_DELIMITERS, key=text.split("\n", 1)[0].count)
    csv.field_size_limit(max(csv.field_size_limit(), _BYTES))
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    head = next(reader, [])
    if _NOT_UTF8 in "".join(head):
        raise SourceError(f"{path}: its header is not UTF-8; convert the file")
    rows, more = _first(row for row in reader if len(row) == len(head) and _NOT_UTF8 not in "".join(row))
    columns = [
        Column(name, tuple(row[place].strip() for row in rows)) for place, name in enumerate(head) if name.strip()
    ]
    return Sample(path, tuple(columns), len(rows), whole and not more, delimiter)


def _json_lines(path: Path, text: str, *, whole: bool) -> Sample:
    rows, more = _first(_objects(text))
    return _of_rows(path, rows, whole=whole and not more)


def _objects(text: str) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        if _NOT_UTF8 in line:
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield dict(_flat(value))


def _parquet(path: Path) -> Sample:
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(_ROWS), None)
        rows = [dict(_flat(row)) for row in batch.to_pylist()] if batch is not None else []
        return _of_rows(path, rows, whole=file.metadata.num_rows == len(rows))


def _flat(fields: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    return value.isoformat() if hasattr(value, "isoformat") else json.dumps(value, ensure_ascii=False, default=str)


def _of_rows(path: Path, rows: list[dict[str, str]], *, whole: bool) -> Sample:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [Column(name, tuple(row.get(name, "") for row in rows)) for name in names]
    return Sample(path, tuple(columns), len(rows), whole)


def _first(rows: Iterable[Any]) -> tuple[list[Any], bool]:
    """The first rows, up to the size of a sample, and whether there are more."""
    first: list[Any] = []
    for row in rows:
        if len(first) == _ROWS:
            return first, True
        first.append(row)
    return first, False
