"""What a training on a cluster takes and makes, as objects in S3: folders and files that its machines exchange.

<address>/<folder>/...    an object per file
<address>/<folder>.json   the SHA-256 of every file, written last: without it the folder is not there
<address>/<file>          a small text
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from assets.exceptions import SourceError
from assets.hashing import hash_file
from assets.s3 import s3_client, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Exchange", "files_under"]


@dataclass(frozen=True)
class Exchange:
    """Everything of one training under an s3://bucket/prefix.

    Every method raises SourceError, one line that names the address, when S3 does not answer or refuses.
    """

    address: str

    def put(self, name: str, files: Mapping[str, Path]) -> None:
        """Make a folder of some files, by their names in it."""
        with s3_errors(self.address):
            for file, path in files.items():
                self._client.upload_file(str(path), self._bucket, self._key(f"{name}/{file}"))
        self.write(f"{name}.json", json.dumps({file: hash_file(path) for file, path in files.items()}))

    def get(self, name: str, target: Path) -> None:
        """Make a folder's files in an empty folder. Raises SourceError when one is missing or not as it was put."""
        hashes = json.loads(self.read(f"{name}.json") or "null")
        if hashes is None:
            raise SourceError(f"{self.address}: there is no {name}")
        for file, sha256 in hashes.items():
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with s3_errors(self.address):
                self._client.download_file(self._bucket, self._key(f"{name}/{file}"), str(path))
            if hash_file(path) != sha256:
                raise SourceError(f"{self.address}: {name}/{file} is not what was put there")

    def fetch(self, name: str, target: Path) -> None:
        """Make a folder here, unless it is: it appears when it is complete."""
        if target.is_dir():
            return
        beside = target.with_name(f".{target.name}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        self.get(name, beside)
        beside.replace(target)

    def has(self, name: str) -> bool:
        """Whether a folder is there, complete."""
        return self.read(f"{name}.json") is not None

    def write(self, name: str, text: str) -> None:
        """Make or replace a text."""
        with s3_errors(self.address):
            self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=text.encode())

    def read(self, name: str) -> str | None:
        """A text; None if it is not there."""
        with s3_errors(self.address):
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
            except self._client.exceptions.NoSuchKey:
                return None
            return found["Body"].read().decode()

    def remove(self, name: str) -> None:
        """Remove a text, if it is there."""
        with s3_errors(self.address):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def clear(self) -> None:
        """Remove everything of the training."""
        with s3_errors(self.address):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._key(""))
            for entry in (entry for page in pages for entry in page.get("Contents", [])):
                self._client.delete_object(Bucket=self._bucket, Key=entry["Key"])

    @cached_property
    def _client(self) -> "S3Client":
        return s3_client()

    @property
    def _bucket(self) -> str:
        return self.address.removeprefix("s3://").partition("/")[0]

    def _key(self, name: str) -> str:
        prefix = self.address.removeprefix("s3://").partition("/")[2]
        return "/".join(filter(None, [*prefix.split("/"), *name.split("/")])) + ("" if name else "/")


def files_under(folder: Path) -> dict[str, Path]:
    """All files under a folder, by their names in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
