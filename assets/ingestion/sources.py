"""Lists and opens the objects of local files, folders and `s3://bucket/prefix`.

An object's key is its path relative to the source, so that a folder and a bucket that hold the same files give the
same keys. S3 is reached through the standard AWS variables, AWS_ENDPOINT_URL included.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from assets.exceptions import SourceError
from assets.hashing import hash_json
from assets.home import Home
from assets.ingestion.reading import FORMATS, is_read
from assets.ingestion.records import readable
from assets.s3 import s3_client, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

__all__ = [
    *("Fetched", "Listing", "SourceObject", "configured_sources", "fingerprint", "list_objects"),
]

_BLOCK = 1 << 20
_ENDINGS = ", ".join(f"*{ending}" for ending in FORMATS)


@dataclass(frozen=True)
class Fetched:
    """An object as a local file that no other process writes to."""

    path: Path
    sha256: str
    stable: bool
    """Whether the object stayed as listed the whole time."""


@dataclass(frozen=True)
class SourceObject:
    """One file of a source."""

    key: str
    location: str
    """The path or the s3:// URL."""
    stamp: str
    """Changes when the object does and is known without reading it: size and times, or size, ETag and time."""
    bytes: int
    whole: bool
    """Whether it can only appear complete, as objects in S3 do, unlike a file that is still being written."""
    fetch: Callable[[Path], AbstractContextManager[Fetched]]
    """Copy the object into a folder while the context lasts, hashing it on the way: the bytes read are those hashed."""


@dataclass(frozen=True)
class Listing:
    """The contents of the sources."""

    objects: tuple[SourceObject, ...]
    """By key."""
    not_read: tuple[str, ...]
    """Other files in the sources, whose endings are not supported."""
    roots: tuple[str, ...]

    def covers(self, location: str) -> bool:
        """Whether an object at this location would have been listed."""
        return any(location == root or location.startswith(f"{root.rstrip('/')}/") for root in self.roots)


def configured_sources() -> list[str]:
    """The sources in EVERGREEN_SOURCES, separated by blanks or commas; without it, what was simulated into the home."""
    named = os.environ.get("EVERGREEN_SOURCES", "").replace(",", " ").split()
    simulated = Home.from_environment().source
    return named or ([str(simulated)] if simulated.is_dir() else [])


def list_objects(sources: Sequence[str]) -> Listing:
    """The objects of all sources: local files, folders (searched recursively) and s3:// prefixes.

    Raises SourceError for a source that does not exist, cannot be listed or has no supported file;
    UnreachableError when an S3 endpoint does not answer (within about 10 s).
    """
    listings = [_list(source) for source in sources]
    objects = {source.location: source for listing in listings for source in listing.objects}
    return Listing(
        tuple(sorted(objects.values(), key=lambda source: (source.key, source.location))),
        tuple(sorted({name for listing in listings for name in listing.not_read})),
        tuple(root for listing in listings for root in listing.roots),
    )


def fingerprint(sources: Sequence[str]) -> str:
    """A hash over the listing of the sources, without reading any object: it changes when one is added or replaced."""
    return hash_json([[source.key, source.stamp] for source in list_objects(sources).objects])


def _list(source: str) -> Listing:
    listing = _list_s3(source) if source.startswith("s3://") else _list_local(source)
    if not listing.objects:
        raise SourceError(f"{readable(source)}: no {_ENDINGS} file in it")
    return listing


def _list_local(source: str) -> Listing:
    root = Path(source).absolute()
    if not root.exists():
        raise SourceError(f"{readable(source)}: there is no such file or folder")
    if root.is_file():
        if not is_read(root.name):
            raise SourceError(f"{readable(source)}: the name of a source file ends in {_ENDINGS.replace('*', '')}")
        return Listing((_local(root, root.name),), (), (str(root),))
    files = [path for path in root.rglob("*") if path.is_file()]
    objects = tuple(_local(path, path.relative_to(root).as_posix()) for path in files if is_read(path.name))
    return Listing(objects, tuple(readable(str(path)) for path in files if not is_read(path.name)), (str(root),))


def _local(path: Path, key: str) -> SourceObject:
    stat = path.stat()
    fetch = partial(_open_local, path, stat.st_size, _stamp(stat))
    return SourceObject(readable(key), readable(str(path)), _stamp(stat), stat.st_size, False, fetch)


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


@contextmanager
def _open_local(path: Path, size: int, stamp: str, scratch: Path) -> Iterator[Fetched]:
    try:
        with path.open("rb") as file, _spooled(_read_blocks(file, size), scratch) as (spooled, digest):
            yield Fetched(spooled, digest, _stamp(path.stat()) == stamp)
    except OSError as error:
        if error.filename != str(path):
            raise
        raise SourceError(f"{readable(str(path))}: cannot be read: {error.strerror}") from None


def _read_blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first bytes of a file, up to a size, even if it has grown since."""
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        size -= len(block)
        yield block


@contextmanager
def _spooled(blocks: Iterable[bytes], scratch: Path) -> Iterator[tuple[Path, str]]:
    spooled, digest = scratch / "spooled", hashlib.sha256()
    try:
        with spooled.open("wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
        yield spooled, digest.hexdigest()
    finally:
        spooled.unlink(missing_ok=True)


def _list_s3(source: str) -> Listing:
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise SourceError(f"{source}: expected s3://bucket/prefix")
    folder = prefix.rstrip("/") + "/" if prefix.rstrip("/") else ""
    objects, not_read = [], []
    with s3_errors(source):
        client = s3_client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                name = entry["Key"]
                if name != prefix and not name.startswith(folder):
                    continue
                if is_read(name):
                    objects.append(_in_s3(client, bucket, entry, prefix, folder))
                elif not name.endswith("/"):
                    not_read.append(f"s3://{bucket}/{name}")
    return Listing(tuple(objects), tuple(not_read), (f"s3://{bucket}/{prefix}",))


def _in_s3(client: "S3Client", bucket: str, entry: "ObjectTypeDef", prefix: str, folder: str) -> SourceObject:
    name, etag, size = entry["Key"], entry["ETag"], entry["Size"]
    key = name.rsplit("/", 1)[-1] if name == prefix else name.removeprefix(folder)
    stamp = f"{size} {etag} {entry['LastModified'].isoformat()}"
    fetch = partial(_open_s3, client, bucket, name, etag)
    return SourceObject(key, f"s3://{bucket}/{name}", stamp, size, True, fetch)


@contextmanager
def _open_s3(client: "S3Client", bucket: str, name: str, etag: str, scratch: Path) -> Iterator[Fetched]:
    with ExitStack() as stack:
        with s3_errors(f"s3://{bucket}/{name}"):
            response = client.get_object(Bucket=bucket, Key=name)
            spooled, digest = stack.enter_context(_spooled(response["Body"].iter_chunks(_BLOCK), scratch))
        yield Fetched(spooled, digest, response["ETag"] == etag)
