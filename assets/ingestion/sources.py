"""Lists and opens the objects of local files, folders and `s3://bucket/prefix`.

An object's key is its path relative to the source, so that a folder and a bucket that hold the same files give the
same keys. S3 is reached through the standard AWS variables, AWS_ENDPOINT_URL included.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from assets.exceptions import SourceError
from assets.ingestion.reading import FORMATS
from assets.lake import hash_file, hash_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = [
    *("Fetched", "SourceObject", "UnreachableError", "configured_sources", "fingerprint", "list_objects"),
    *("s3_client", "s3_errors"),
]

_BLOCK = 8 << 20


class UnreachableError(SourceError):
    """A source that may be back later: asking again can help."""


@dataclass(frozen=True)
class Fetched:
    """An object as a local file."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class SourceObject:
    """One file of a source."""

    key: str
    location: str
    """The path or the s3:// address, for people."""
    stamp: str
    """Changes when the object does, without reading it: size and time, or size and ETag."""
    fetch: Callable[[Path], AbstractContextManager[Fetched]]
    """Give the object as a local file while the context lasts; S3 objects are kept in the folder meanwhile."""


def configured_sources() -> list[str]:
    """What EVERGREEN_SOURCES names, separated by blanks or commas."""
    return os.environ.get("EVERGREEN_SOURCES", "").replace(",", " ").split()


def list_objects(sources: Sequence[str]) -> list[SourceObject]:
    """The objects of all sources by key: local files, folders (searched in depth) and s3:// prefixes.

    Raises SourceError for a source that does not exist, cannot be listed or holds no .csv, .csv.gz or .parquet;
    UnreachableError when an S3 endpoint does not answer (within about 10 s).
    """
    objects = [found for source in sources for found in _list(source)]
    return sorted(objects, key=lambda found: found.key)


def fingerprint(sources: Sequence[str]) -> str:
    """A hash over what the sources list, without reading any object: it changes when one is added or replaced."""
    return hash_json([[found.key, found.stamp] for found in list_objects(sources)])


def _list(source: str) -> list[SourceObject]:
    objects = list(_list_s3(source) if source.startswith("s3://") else _list_local(source))
    if not objects:
        raise SourceError(f"{source}: no {', '.join('*' + ending for ending in FORMATS)} file in it")
    return objects


def _list_local(source: str) -> Iterator[SourceObject]:
    root = Path(source)
    if not root.exists():
        raise SourceError(f"{source}: there is no such file or folder")
    if root.is_file():
        if not root.name.endswith(FORMATS):
            raise SourceError(f"{source}: the name of a source file ends in {', '.join(FORMATS)}")
        yield _local(root, root.name)
    for path in root.rglob("*"):
        if path.name.endswith(FORMATS) and path.is_file():
            yield _local(path, path.relative_to(root).as_posix())


def _local(path: Path, key: str) -> SourceObject:
    stat = path.stat()
    return SourceObject(key, str(path), f"{stat.st_size} {stat.st_mtime_ns}", partial(_open_local, path))


@contextmanager
def _open_local(path: Path, _scratch: Path) -> Iterator[Fetched]:
    try:
        fetched = Fetched(path, hash_file(path), path.stat().st_size)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    yield fetched


def _list_s3(source: str) -> Iterator[SourceObject]:
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise SourceError(f"{source}: expected s3://bucket/prefix")
    folder = prefix.rstrip("/") + "/" if prefix.rstrip("/") else ""
    with s3_errors(source):
        client = s3_client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                name = entry["Key"]
                if name.endswith(FORMATS) and (name == prefix or name.startswith(folder)):
                    key = name.rsplit("/", 1)[-1] if name == prefix else name.removeprefix(folder)
                    fetch = partial(_open_s3, client, bucket, name)
                    yield SourceObject(key, f"s3://{bucket}/{name}", f"{entry['Size']} {entry['ETag']}", fetch)


@contextmanager
def _open_s3(client: "S3Client", bucket: str, name: str, scratch: Path) -> Iterator[Fetched]:
    """Copies the body to a file and hashes it on the way, so that it crosses the network once."""
    spooled, digest, size = scratch / "spooled", hashlib.sha256(), 0
    with s3_errors(f"s3://{bucket}/{name}"), spooled.open("wb") as file:
        for block in client.get_object(Bucket=bucket, Key=name)["Body"].iter_chunks(_BLOCK):
            digest.update(block)
            size += file.write(block)
    try:
        yield Fetched(spooled, digest.hexdigest(), size)
    finally:
        spooled.unlink()


def s3_client() -> "S3Client":
    """A client by the standard AWS variables that gives up on an endpoint within about 10 s."""
    import boto3
    from botocore.config import Config

    patience = Config(connect_timeout=2, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("s3", config=patience)


@contextmanager
def s3_errors(what: str) -> Iterator[None]:
    """Turns what boto3 raises into a SourceError: one line that names the object and the endpoint."""
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, IncompleteReadError

    try:
        yield
    except ClientError as error:
        raise SourceError(f"{what}: {error.response['Error'].get('Message', error)}{_endpoint()}") from None
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise UnreachableError(f"{what}: no answer{_endpoint()}: {type(error).__name__}") from None
    except BotoCoreError as error:
        raise SourceError(f"{what}: {str(error).rstrip('.')}{_endpoint()}") from None


def _endpoint() -> str:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f" (S3 endpoint {endpoint})" if endpoint else ""
