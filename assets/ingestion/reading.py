"""Reads one local file as the domain declares its source: CSV or JSON Lines, plain or compressed, or Parquet."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from assets.exceptions import SourceError
from assets.ingestion.jsonlines import json_rows
from assets.ingestion.layout import may_lack
from assets.ingestion.parquet import parquet_rows
from assets.ingestion.records import Record, Reject, Rows, no_records
from assets.ingestion.splitting import split
from assets.ingestion.unpacking import (
    DamagedError,
    bounded,
    file_blocks,
    member_blocks,
    open_zip,
    unpacker,
)
from assets.ingestion.windows import Limits
from assets.settings import Domain, IngestionSettings

__all__ = ["EXPLAINED", "FORMATS", "READER", "Content", "contents", "is_read", "read_rows", "refused"]

_JSON = (".jsonl", ".ndjson")
_TEXT_FORMATS = (".csv", *_JSON)
FORMATS = (*_TEXT_FORMATS, *(f"{ending}.gz" for ending in _TEXT_FORMATS), ".zst", ".zip", ".parquet")
"""File endings that are read, in any case. A zip holds .csv, .jsonl or .ndjson; .zst is one of them, by default CSV."""

READER = 3
"""Raised whenever this package reads something differently: what an earlier version refused is then read again."""

EXPLAINED = "configs/domain.yaml declares a source's fields; docs/your-own-data.md explains how"

_MAC_FORK = "__MACOSX/"


def is_read(name: str) -> bool:
    """Whether a file with this name is read."""
    return name.lower().endswith(FORMATS)


@dataclass(frozen=True)
class Content:
    """The unit that is read as one object: a file, or a member of a zip."""

    key: str
    sha256: str
    bytes: int
    rows: Callable[[], Iterator[Rows]]
    """In order, a stretch at a time. What cannot be read is a Reject, even the whole object (`of_object`)."""
    path: Path | None = None
    """The file, if the object is a file."""

    def begins_with(self, sha256: str, size: int) -> bool:
        """Whether the first `size` bytes have this hash."""
        if self.path is None or self.bytes <= size:
            return False
        with self.path.open("rb") as file:
            return hashlib.sha256(file.read(size)).hexdigest() == sha256


def refused(key: str, sha256: str, size: int, domain: Domain, reason: str) -> Content:
    """An object that is refused for this reason."""
    rows = Rows(no_records(domain), [Reject(1, reason, "", of_object=True)])
    return Content(key, sha256, size, lambda: iter([rows]))


@contextmanager
def contents(
    path: Path, key: str, sha256: str, settings: IngestionSettings, domain: Domain, *, whole: bool
) -> Iterator[list[Content]]:
    """The contents of a file, while the context lasts; the ending of `key` gives the format, `sha256` is the file's.

    `whole` says that the file is known to be complete. Compressed files and Parquet show that themselves.
    """
    if key.lower().endswith(".zip"):
        with _zipped(path, key, sha256, settings, domain) as members:
            yield members
    else:
        rows = partial(_read, path, key, settings, domain, may_lack(domain.source), whole=whole)
        yield [Content(key, sha256, path.stat().st_size, rows, path)]


def read_rows(
    path: Path, settings: IngestionSettings, domain: Domain, *, outcomes: bool = False
) -> Iterator[Record | Reject]:
    """Every row of a file, in order; outcomes may be missing, as in a file to be scored, unless `outcomes` is set.

    Raises SourceError, when the first row is asked for, if the file is missing or cannot be read as a whole.
    """
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file")
    if path.name.lower().endswith(".zip"):
        raise SourceError(f"{path}: a zip may hold several files; unpack it and name one of them")
    optional = may_lack(domain.source, outcomes=not outcomes)
    for rows in _read(path, path.name, settings, domain, optional, whole=True):
        if rows.header_fault is not None:
            raise SourceError(f"{path}: {rows.header_fault}; {EXPLAINED}")
        for row in rows.in_order():
            if isinstance(row, Reject) and row.of_object and row.line == 1:
                raise SourceError(f"{path}: {row.reason}; {EXPLAINED}")
            yield row


def _read(
    path: Path, key: str, settings: IngestionSettings, domain: Domain, optional: frozenset[str], *, whole: bool
) -> Iterator[Rows]:
    name, size = key.lower(), path.stat().st_size
    limits = Limits(settings.max_record_bytes, settings.chunk_bytes)
    if name.endswith(".parquet") and size > 0:
        return parquet_rows(path, limits, _expanded(size, settings), domain, optional)
    unpack = unpacker(name)
    if unpack is None:
        return _rows_of(name)(file_blocks(path, limits.chunk), limits, domain, optional, whole=whole)
    return _rows_of(name)(bounded(unpack(path), _expanded(size, settings)), limits, domain, optional, whole=True)


def _rows_of(name: str) -> Callable[..., Iterator[Rows]]:
    """The reader for a text file with this name: `split` or `json_rows`."""
    inner = name.lower().removesuffix(".gz").removesuffix(".zst")
    return json_rows if inner.endswith(_JSON) else split


def _expanded(size: int, settings: IngestionSettings) -> int:
    """The most bytes that a file of this size may expand to."""
    return min(settings.max_expanded_bytes, settings.max_expansion * size + settings.chunk_bytes)


@contextmanager
def _zipped(path: Path, key: str, sha256: str, settings: IngestionSettings, domain: Domain) -> Iterator[list[Content]]:
    size = path.stat().st_size
    try:
        opened = open_zip(path)
    except DamagedError as damage:
        yield [refused(key, sha256, size, domain, str(damage))]
        return
    with opened as archive:
        members = [info for info in archive.infolist() if _is_member(info.filename)]
        read, left = list[Content](), _expanded(size, settings)
        for info in members:
            read.append(_member(archive, info, key, left, settings, domain))
            left = max(0, left - read[-1].bytes)
        yield read or [refused(key, sha256, size, domain, "no-data-in-zip")]


def _is_member(name: str) -> bool:
    return name.lower().endswith(_TEXT_FORMATS) and not name.startswith(_MAC_FORK)


def _member(
    archive: ZipFile, info: ZipInfo, key: str, left: int, settings: IngestionSettings, domain: Domain
) -> Content:
    """A member; what it expands to counts against `left`. It is unpacked twice: once to hash it, once to read it."""

    def blocks() -> Iterator[bytes]:
        return bounded(member_blocks(archive, info), left)

    limits = Limits(settings.max_record_bytes, settings.chunk_bytes)
    digest, size = hashlib.sha256(), 0
    try:
        for block in blocks():
            digest.update(block)
            size += len(block)
    except DamagedError as damage:
        digest.update(str(damage).encode())
    read = partial(_rows_of(info.filename), limits=limits, domain=domain, optional=may_lack(domain.source), whole=True)
    return Content(f"{key}/{info.filename}", digest.hexdigest(), size, lambda: read(blocks()))
