"""Copies a run's newest checkpoints to S3, laid out as on disk, so that the run outlives its machine.

<prefix>/<run>/step-00000120/   an object per file; MANIFEST.json is written last
<prefix>/<run>/CURRENT          the name of the newest: writing it publishes the copy
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from assets.s3 import s3_client, s3_errors
from assets.training.plan import TrainingPlan
from assets.training.program.checkpoints import (
    MANIFEST,
    POINTER,
    Checkpoints,
    newest_first,
    outdated,
    read_manifest,
    step_of,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Mirror", "Uploads"]


@dataclass(frozen=True)
class Mirror:
    """The copies of one run's checkpoints under s3://<bucket>/<prefix>, of which the newest `kept` are kept.

    Every method raises SourceError, one line that names the address, when S3 does not answer or refuses.
    """

    bucket: str
    prefix: str
    kept: int

    @classmethod
    def of(cls, plan: TrainingPlan) -> "Mirror | None":
        """The mirror of a run's checkpoints; None if the settings name none."""
        if plan.settings.storage.checkpoints is None:
            return None
        bucket, _, prefix = plan.settings.storage.checkpoints.removeprefix("s3://").partition("/")
        prefix = "/".join(filter(None, [*prefix.split("/"), plan.checkpoints.name]))
        return cls(bucket, prefix, plan.settings.storage.checkpoints_kept)

    def fetch(self, checkpoints: Checkpoints) -> int | None:
        """Publish the newest complete copy in the run's folder; None if that has one as new, or no copy is complete."""
        have = checkpoints.newest() or 0
        with s3_errors(str(self)):
            files = self._list()
            pointer = self._read_pointer() if POINTER in files.get("", []) else b""
            newer = [name for name in files if name and step_of(name) > have]
            brought = (step_of(n) for n in newest_first(newer, pointer) if self._bring(n, files[n], checkpoints))
            return next(brought, None)

    def put(self, name: str, files: Mapping[str, BinaryIO]) -> None:
        """Copy a complete checkpoint from its open files, make it the current copy, and prune."""
        from boto3.s3.transfer import TransferConfig

        alone = TransferConfig(use_threads=False)  # the cores belong to the training
        with s3_errors(str(self)):
            for file in sorted(files, key=lambda file: file == MANIFEST):
                self._client.upload_fileobj(files[file], self.bucket, self._key(name, file), Config=alone)
            self._client.put_object(Bucket=self.bucket, Key=self._key("", POINTER), Body=name.encode())
            copies = self._list()
            for old in outdated([each for each in copies if each], name, self.kept):
                self._remove(old, copies[old])

    def clear(self) -> None:
        """Remove everything of the run, including parts of interrupted uploads."""
        with s3_errors(str(self)):
            for name, files in self._list().items():
                self._remove(name, files)
            begun = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=f"{self.prefix}/")
            for upload in begun.get("Uploads", []):
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @cached_property
    def _client(self) -> "S3Client":
        return s3_client()

    def _key(self, name: str, file: str) -> str:
        return "/".join(filter(None, [self.prefix, name, file]))

    def _read_pointer(self) -> bytes:
        return self._client.get_object(Bucket=self.bucket, Key=self._key("", POINTER))["Body"].read()

    def _list(self) -> dict[str, list[str]]:
        """The file names of each checkpoint; the pointer's under the empty name."""
        listed: dict[str, list[str]] = {}
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/")
        for entry in (entry for page in pages for entry in page.get("Contents", [])):
            name, _, file = entry["Key"].removeprefix(f"{self.prefix}/").rpartition("/")
            listed.setdefault(name, []).append(file)
        return listed

    def _bring(self, name: str, files: list[str], checkpoints: Checkpoints) -> bool:
        """Download a checkpoint to its temporary folder, and publish it if it is complete."""
        folder = checkpoints.beside(step_of(name))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._download(name, {MANIFEST} & set(files), folder)
        self._download(name, read_manifest(folder).keys() & set(files), folder)
        whole = checkpoints.accept(step_of(name))
        if not whole:
            shutil.rmtree(folder)
        return whole

    def _download(self, name: str, files: Iterable[str], folder: Path) -> None:
        for file in files:
            self._client.download_file(self.bucket, self._key(name, file), str(folder / file))

    def _remove(self, name: str, files: list[str]) -> None:
        for file in files:
            self._client.delete_object(Bucket=self.bucket, Key=self._key(name, file))


class Uploads:
    """Copies one checkpoint at a time, in a thread: no step waits for it, and its failure does not end the run."""

    def __init__(self, mirror: Mirror, say: Callable[[str], None]):
        self._mirror, self._say = mirror, say
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def begin(self, folder: Path) -> None:
        """Copy a published checkpoint, unless the previous one is still being copied: a later one will follow."""
        if self._running is not None and not self._running.done():
            return
        with ExitStack() as opened, self._told(folder.name):
            files = {path.name: opened.enter_context(path.open("rb")) for path in folder.iterdir()}
            self._running = self._thread.submit(self._copy, folder.name, files, opened.pop_all())

    def finish(self) -> None:
        """Wait for the copy in progress, if there is one."""
        if self._running is not None:
            self._running.result()

    def _copy(self, name: str, files: Mapping[str, BinaryIO], opened: ExitStack) -> None:
        """Open files outlive their folder, which a later checkpoint may remove."""
        with opened, self._told(name):
            self._mirror.put(name, files)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Report a failure inside on one line."""
        try:
            yield
        except Exception as error:
            self._say(f"{name} could not be copied, the copy before it stays: {error}")
