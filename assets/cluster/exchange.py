"""What work on a cluster takes and makes, as objects in S3: folders and files that its machines exchange.

<address>/<folder>/...    an object per file
<address>/<folder>.json   the SHA-256 of every file, written last: without it the folder is not there
<address>/<file>          a small text
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from assets.exceptions import ObjectsError
from assets.hashing import hash_file
from assets.objects import Objects

__all__ = ["Exchange", "files_under"]


@dataclass(frozen=True)
class Exchange:
    """Everything of one piece of work under an s3://bucket/prefix.

    Every method raises ObjectsError, one line that names the address, when S3 does not answer or refuses.
    """

    address: str

    def put(self, name: str, files: Mapping[str, Path]) -> None:
        """Make a folder of some files, by their names in it."""
        hashes = {file: hash_file(path) for file, path in files.items()}
        for file, path in files.items():
            self._objects.upload(f"{name}/{file}", path, hashes[file])
        self.write(f"{name}.json", json.dumps(hashes))

    def get(self, name: str, target: Path) -> None:
        """Make a folder's files in an empty folder. Raises ObjectsError when one is missing or not as it was put."""
        for file, sha256 in self._hashes(name).items():
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._objects.download(f"{name}/{file}", path, sha256):
                raise ObjectsError(f"{self.address}: {name}/{file} is gone")

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

    def folders(self, name: str) -> list[str]:
        """The names of the complete folders in a folder, sorted."""
        names = (other for other in self.texts(name) if "/" not in other)
        return [other.removesuffix(".json") for other in names if other.endswith(".json")]

    def texts(self, name: str) -> list[str]:
        """The names of the texts and files in a folder, sorted."""
        return [other.removeprefix(f"{name}/") for other in self._objects.names(f"{name}/")]

    def join(self, name: str, parts: Iterable[str]) -> None:
        """Make a folder of some complete folders in it. Raises ObjectsError when one is not there."""
        found = {part: self._hashes(f"{name}/{part}") for part in parts}
        hashes = {f"{part}/{file}": sha256 for part, files in found.items() for file, sha256 in files.items()}
        self.write(f"{name}.json", json.dumps(hashes))

    def write(self, name: str, text: str) -> None:
        """Make or replace a text."""
        self._objects.write(name, text.encode())

    def read(self, name: str) -> str | None:
        """A text; None if it is not there."""
        stored = self._objects.read(name)
        return stored.content.decode() if stored else None

    def remove(self, name: str) -> None:
        """Remove a text, if it is there."""
        self._objects.remove([name])

    def clear(self, name: str = "") -> None:
        """Remove everything, or all in a folder."""
        self._objects.remove(self._objects.names(name and f"{name}/"))

    def _hashes(self, name: str) -> dict[str, str]:
        """The SHA-256 of each file of a folder."""
        hashes: dict[str, str] | None = json.loads(self.read(f"{name}.json") or "null")
        if hashes is None:
            raise ObjectsError(f"{self.address}: there is no {name}")
        return hashes

    @cached_property
    def _objects(self) -> Objects:
        return Objects.at(self.address)


def files_under(folder: Path) -> dict[str, Path]:
    """All files under a folder, by their names in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
