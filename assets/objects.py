"""Objects under a prefix of an S3 bucket, which several machines write: what decides is written conditionally.

A request that fails is repeated with growing waits; an answer of which only a part came is asked for again. What then
still fails is an ObjectsError, one line that names the object and the endpoint.
"""

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from assets.exceptions import ObjectsError
from assets.s3 import s3_client, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Listed", "Objects", "Stored"]

_ATTEMPTS = 8
"""Of a request: botocore waits up to 1, 2, 4, 8, 16, 20 and 20 s between them."""
_WAITS = (0.5, 1, 2, 4, 8)
"""At most these seconds pass between answers of which only a part came."""
_ONE_REQUEST = 64 << 20
"""Bytes from which on a file is uploaded in parts."""
_REMOVED_AT_ONCE = 1000
"""The most that S3 removes by one request."""

_Result = TypeVar("_Result")


class _CutShortError(ObjectsError):
    """Only part of an answer came, or another writer was in the way: another try can help."""


@dataclass(frozen=True)
class Stored:
    """A small object as it was read."""

    content: bytes
    etag: str
    written: float = 0.0
    """When, by the server's clock, in seconds since 1970; 0 where it was not read."""


class Listed(NamedTuple):
    """An object as S3 lists it."""

    name: str
    bytes: int
    written: float
    """When, by the server's clock, in seconds since 1970."""


@dataclass(frozen=True)
class Objects:
    """The objects whose keys begin with a prefix; their names are what follows it."""

    bucket: str
    prefix: str
    attempts: int | None = None
    """How often a request is made at most; None for as often as it takes to outlast a restart."""

    @classmethod
    def at(cls, address: str, attempts: int | None = None) -> "Objects":
        """Those of an s3://bucket/prefix."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        return cls(bucket, prefix, attempts)

    def under(self, folder: str) -> "Objects":
        """Those whose names begin with a folder."""
        return replace(self, prefix=self._key(folder))

    def address(self, name: str) -> str:
        return f"s3://{self.bucket}/{self._key(name)}"

    def read(self, name: str) -> Stored | None:
        """A small object; None if there is none."""

        def ask() -> Stored | None:
            if (found := self._open(name)) is None:
                return None
            with self._cut_short(name):
                return Stored(found["Body"].read(), found["ETag"], found["LastModified"].timestamp())

        return self._patiently(name, ask)

    def download(self, name: str, path: Path, sha256: str) -> bool:
        """Write an object to a file; false if there is none. Raises ObjectsError unless it has that SHA-256."""

        def ask() -> bool:
            if (found := self._open(name)) is None:
                return False
            digest = hashlib.sha256()
            with self._cut_short(name), path.open("wb") as file:
                for chunk in found["Body"].iter_chunks(1 << 20):
                    file.write(chunk)
                    digest.update(chunk)
            if digest.hexdigest() != sha256:
                raise _CutShortError(f"{self.address(name)}: its content is not what was written; restore it")
            return True

        return self._patiently(name, ask)

    def sha256(self, name: str) -> str | None:
        """The SHA-256 with which an object was uploaded; None if there is none."""
        from botocore.exceptions import ClientError

        with self._errors(name):
            try:
                found = self._client.head_object(Bucket=self.bucket, Key=self._key(name))
            except ClientError as error:
                if error.response["Error"].get("Code") != "404":
                    raise
                return None
        return found["Metadata"].get("sha256", "")

    def upload(self, name: str, path: Path, sha256: str) -> None:
        """Write a file's bytes, and their SHA-256, to an object, whatever it held."""
        from boto3.s3.transfer import TransferConfig

        whole = TransferConfig(multipart_threshold=_ONE_REQUEST, multipart_chunksize=_ONE_REQUEST, use_threads=False)
        with path.open("rb") as file, self._errors(name):
            described = {"Metadata": {"sha256": sha256}}
            self._client.upload_fileobj(file, self.bucket, self._key(name), ExtraArgs=described, Config=whole)

    def write(self, name: str, content: bytes) -> None:
        """Write an object, whatever it held."""
        self._written(name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one.

        False also if a repeated request finds what the first one wrote: compare what is there.
        """
        return self._written(name, content, IfNoneMatch="*")

    def replace(self, name: str, content: bytes, upon: Stored | None) -> bool:
        """Write an object if it still is what was read, or still is not there; false also as for `create`."""
        return self.create(name, content) if upon is None else self._written(name, content, IfMatch=upon.etag)

    def names(self, under: str = "") -> Iterator[str]:
        """The names that begin with this text, sorted by their bytes."""
        return (listed.name for listed in self.listed(under))

    def listed(self, under: str = "") -> Iterator[Listed]:
        """The objects whose names begin with this text, sorted by the bytes of the names."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(under))
        start = len(self._key(""))
        with self._errors(under):
            for page in pages:
                for entry in page.get("Contents", []):
                    yield Listed(entry["Key"][start:], entry["Size"], entry["LastModified"].timestamp())

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there count as removed. Raises ObjectsError if one could not be."""
        keys = [self._key(name) for name in names]
        for start in range(0, len(keys), _REMOVED_AT_ONCE):
            some = keys[start : start + _REMOVED_AT_ONCE]
            with self._errors(some[0][len(self._key("")) :]):
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in some], "Quiet": True}
                )
            for left in answer.get("Errors", []):
                raise ObjectsError(f"s3://{self.bucket}/{left['Key']} could not be removed: {left['Code']}; run again")

    def _open(self, name: str) -> Any:
        try:
            return self._client.get_object(Bucket=self.bucket, Key=self._key(name))
        except self._client.exceptions.NoSuchKey:
            return None

    def _written(self, name: str, content: bytes, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        def ask() -> bool:
            try:
                self._client.put_object(Bucket=self.bucket, Key=self._key(name), Body=content, **condition)  # type: ignore[arg-type]
            except ClientError as error:
                code = error.response["Error"].get("Code")
                if code == "ConditionalRequestConflict":
                    raise _CutShortError(f"{self.address(name)}: others write it at the same time; run again") from None
                if code not in ("PreconditionFailed", "NoSuchKey"):
                    raise
                return False
            return True

        return self._patiently(name, ask)

    def _patiently(self, name: str, ask: Callable[[], _Result]) -> _Result:
        for wait in _WAITS:
            try:
                with self._errors(name):
                    return ask()
            except _CutShortError:
                time.sleep(wait * random.random())  # noqa: S311 - so that writers do not meet again
        with self._errors(name):
            return ask()

    def _errors(self, name: str) -> AbstractContextManager[None]:
        return s3_errors(self.address(name), ObjectsError, ObjectsError)

    def _cut_short(self, name: str) -> AbstractContextManager[None]:
        return s3_errors(self.address(name), ObjectsError, _CutShortError)

    @property
    def _client(self) -> "S3Client":
        variables = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
        return _client_of(self.attempts or _ATTEMPTS, variables)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


@cache
def _client_of(attempts: int, variables: tuple[tuple[str, str], ...]) -> "S3Client":  # noqa: ARG001 - it reads them
    """One per process: it takes a tenth of a second to make, and keeps its connections."""
    return s3_client(attempts)
