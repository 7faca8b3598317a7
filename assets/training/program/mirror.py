"""Copies a run's newest checkpoints to S3, laid out as on disk, so that the run outlives its machine.

<prefix>/<run>/step-00000120/   an object per file; MANIFEST.json is written last
<prefix>/<run>/CURRENT          the name of the newest: writing it publishes the copy
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from assets.exceptions import SourceError
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

    def newest(self) -> str | None:
        """The name of the current copy; None without one."""
        with s3_errors(str(self)):
            return self._read_pointer().decode() if POINTER in self._list().get("", []) else None

    def fetch(self, checkpoints: Checkpoints) -> int | None:
        """Publish the newest complete copy in the run's folder; None if that has one as new, or no copy is complete."""
        have = checkpoints.newest() or 0
        with s3_errors(str(self)):
            files = self._list()
            pointer = self._read_pointer() if POINTER in files.get("", []) else b""
            newer = [name for name in files if name and step_of(name) > have]
            brought = (step_of(n) for n in newest_first(newer, pointer) if self._bring(n, files[n], checkpoints))
            return next(brought, None)

    def fetch_step(self, step: int, checkpoints: Checkpoints) -> None:
        """Publish the copy of a step in the run's folder. Raises SourceError when it is not complete."""
        name = checkpoints.path(step).name
        with s3_errors(str(self)):
            if not self._bring(name, self._list().get(name, []), checkpoints):
                raise SourceError(f"{self}: {name} is no longer complete")

    def put(self, name: str, files: Mapping[str, BinaryIO]) -> None:
        """Copy a complete checkpoint from its open files, make it the current copy, and prune."""
        self.put_part(name, {file: opened for file, opened in files.items() if file != MANIFEST})
        with s3_errors(str(self)):
            self._upload(name, MANIFEST, files[MANIFEST])
            self._make_current(name)

    def put_part(self, name: str, files: Mapping[str, BinaryIO]) -> None:
        """Copy some files of a checkpoint, which is not complete before `put_manifest`."""
        with s3_errors(str(self)):
            for file, opened in files.items():
                self._upload(name, file, opened)

    def put_manifest(self, name: str, parts: Sequence[str]) -> None:
        """Make a checkpoint complete and current whose ranks have copied their files, and, last, these lists of them.

        Raises SourceError when a file is missing.
        """
        with s3_errors(str(self)):
            hashes: dict[str, str] = {}
            for part in parts:
                key = self._key(name, part)
                hashes |= json.loads(self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read())
            if missing := sorted(hashes.keys() - set(self._list().get(name, []))):
                raise SourceError(f"{self}: {name} has no {missing[0]}")
            manifest = json.dumps(hashes, indent=1, sort_keys=True).encode()
            self._client.put_object(Bucket=self.bucket, Key=self._key(name, MANIFEST), Body=manifest)
            self._make_current(name, removes_newer=False)  # the ranks may be copying one
            self._remove(name, parts)

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

    def _upload(self, name: str, file: str, opened: BinaryIO) -> None:
        from boto3.s3.transfer import TransferConfig

        alone = TransferConfig(use_threads=False)  # the cores belong to the training
        self._client.upload_fileobj(opened, self.bucket, self._key(name, file), Config=alone)

    def _make_current(self, name: str, removes_newer: bool = True) -> None:
        self._client.put_object(Bucket=self.bucket, Key=self._key("", POINTER), Body=name.encode())
        copies = self._list()
        for old in outdated([each for each in copies if each and (removes_newer or each <= name)], name, self.kept):
            self._remove(old, copies[old])

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

    def _remove(self, name: str, files: Iterable[str]) -> None:
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

    def begin_manifest(self, name: str, parts: Sequence[str]) -> None:
        """Make a checkpoint current whose ranks have copied their own files; says so once it is."""
        self._running = self._thread.submit(self._complete, name, parts)

    def finish(self) -> None:
        """Wait for the copy in progress, if there is one."""
        if self._running is not None:
            self._running.result()

    def _copy(self, name: str, files: Mapping[str, BinaryIO], opened: ExitStack) -> None:
        """Open files outlive their folder, which a later checkpoint may remove."""
        with opened, self._told(name):
            self._mirror.put(name, files)

    def _complete(self, name: str, parts: Sequence[str]) -> None:
        with self._told(name):
            self._mirror.put_manifest(name, parts)
            self._say(f"{name} is saved in {self._mirror}")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Report a failure inside on one line."""
        try:
            yield
        except Exception as error:
            self._say(f"{name} could not be copied, the copy before it stays: {error}")
