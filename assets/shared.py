"""The versions and pointers of a lake on S3, which several machines write.

<table>/<version>/<SHA-256>/<file>    by content, so that two who write a version never change each other's bytes
<table>/<version>/MANIFEST.json       written last, and once: a version exists when this does
<table>/CURRENT                       the version that readers see, and the moves that led to it

CURRENT is moved by a write on condition that it still is what its mover read (If-Match): of two who build on the same
publication one wins, and the other is told. No lock is shared, and no clock is asked.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from assets.exceptions import ObjectsError, Superseded
from assets.hashing import hash_bytes, hash_file
from assets.objects import Objects, Stored

__all__ = ["MANIFEST", "Pointer", "SharedStore", "superseded"]

_POINTER, MANIFEST = "CURRENT", "MANIFEST.json"
_AT_ONCE = 8
"""Files of a version that are read or written at the same time."""
_MOVES = 50
"""The newest moves that a pointer remembers: a mover whose answer was lost finds its own among them."""


class Move(NamedTuple):
    """A version that a pointer was moved to, and a mark of its mover's own."""

    version: str
    mark: str


@dataclass(frozen=True)
class Pointer:
    """A table's pointer as it was read."""

    version: str | None = None
    mark: str = "none"
    """Another after every move."""
    moves: tuple[Move, ...] = ()
    """The newest moves; the last one is where it points."""
    generation: int = 0
    """How many moves there ever were."""
    stored: Stored | None = None

    def at(self, mark: str) -> str | None:
        """The version that it had at a mark, if it remembers."""
        return next((move.version for move in self.moves if move.mark == mark), None)


@dataclass(frozen=True)
class SharedStore:
    """What decides about a lake on S3. Every method raises ObjectsError when S3 does not answer, or refuses."""

    objects: Objects

    def pointer(self, table: str) -> Pointer:
        """Where a table's pointer is."""
        if (stored := self.objects.read(name := f"{table}/{_POINTER}")) is None:
            return Pointer()
        with self._sound(name):
            content = json.loads(stored.content)
            moves = tuple(Move(_inside(version), _inside(mark)) for version, mark in content["moves"])
            return Pointer(*moves[-1], moves, int(content["generation"]), stored)

    def move(self, table: str, version: str, upon: Pointer) -> None:
        """Move a pointer from where it was read, unless it is there. Raises Superseded if others have moved it."""
        own = Move(version, uuid4().hex)
        content = {"version": version, "generation": upon.generation + 1, "moves": [*upon.moves, own][-_MOVES:]}
        name = f"{table}/{_POINTER}"
        if upon.version == version or self.objects.replace(name, _json(content), upon.stored):
            return
        now = self.pointer(table)
        if own not in now.moves and now.version != version:
            raise superseded(table, upon.version, now.version)

    def send(self, table: str, version: str, folder: Path) -> bool:
        """Make the files in a folder a version; false if it exists, and has other bytes."""
        manifest = _describe(folder)

        def upload(name: str) -> None:
            self.objects.upload(_key(table, version, name, manifest), folder / name, manifest["files"][name]["sha256"])

        _for_each(upload, manifest["files"])
        name = f"{table}/{version}/{MANIFEST}"
        return self.objects.create(name, _json(manifest)) or self._manifest(table, version) == manifest

    def exists(self, table: str, version: str) -> bool:
        return self._manifest(table, version) is not None

    def fetch(self, table: str, version: str, folder: Path) -> bool:
        """Fill a new folder with the files of a version; false if there is none.

        What other versions in the folder's own folder have is linked. Every file is verified by its hash.
        """
        if (manifest := self._manifest(table, version)) is None:
            return False
        here = {(name, path.stat().st_size): path for name, path in _files_beside(folder)}
        for inner in (".", *manifest["folders"]):
            (folder / inner).mkdir(parents=True, exist_ok=True)

        def bring(name: str) -> None:
            described = manifest["files"][name]
            if not _linked(here.get((name, described["bytes"])), folder / name, described["sha256"]):
                self._download(_key(table, version, name, manifest), folder / name, described["sha256"])

        _for_each(bring, manifest["files"])
        return True

    def read(self, table: str, version: str, name: str) -> bytes | None:
        """A small file of a version; None if there is no such file or version."""
        manifest = self._manifest(table, version) or {"files": {}}
        if name not in manifest["files"]:
            return None
        key = _key(table, version, name, manifest)
        stored = self.objects.read(key)
        if stored is None or hash_bytes(stored.content) != manifest["files"][name]["sha256"]:
            raise ObjectsError(f"{self.objects.address(key)} is not what was written; restore it")
        return stored.content

    def tables(self, prefix: str) -> list[str]:
        """The tables directly under a prefix that have a pointer, sorted."""
        return sorted({parts[0] for parts in self._parts(prefix) if parts[1:] == [_POINTER]})

    def versions_of(self, table: str) -> list[str]:
        """The versions of a table, sorted."""
        return sorted({parts[0] for parts in self._parts(table) if parts[1:] == [MANIFEST]})

    def kept(self, prefix: str) -> list[tuple[str, str]]:
        """The tables directly under a prefix with their versions, sorted."""
        return sorted({(parts[0], parts[1]) for parts in self._parts(prefix) if parts[2:] == [MANIFEST]})

    def _parts(self, folder: str) -> Iterator[list[str]]:
        return (name.removeprefix(f"{folder}/").split("/") for name in self.objects.names(f"{folder}/"))

    def _manifest(self, table: str, version: str) -> dict[str, Any] | None:
        if (stored := self.objects.read(name := f"{table}/{version}/{MANIFEST}")) is None:
            return None
        with self._sound(name):
            manifest: dict[str, Any] = json.loads(stored.content)
            for named in (*manifest["files"], *manifest["folders"]):
                _inside(named)
            return manifest

    @contextmanager
    def _sound(self, name: str) -> Iterator[None]:
        """Raises ObjectsError where the content of an object is not what is written here."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ObjectsError(
                f"{self.objects.address(name)} is damaged; restore it, or remove it and run again"
            ) from None

    def _download(self, name: str, path: Path, sha256: str) -> None:
        if not self.objects.download(name, path, sha256):
            raise ObjectsError(f"{self.objects.address(name)} is gone, although its version is not; restore it")


def superseded(table: str, upon: str | None, now: str | None) -> Superseded:
    """What the loser of two who build upon the same publication is told."""
    return Superseded(f"{table}: another run has replaced {upon} by {now} in the meantime; run again")


def _describe(folder: Path) -> dict[str, Any]:
    """A version's manifest: the size and hash of every file, and the folders, of which one may be empty."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    files = {
        name: {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        for name, path in paths.items()
        if path.is_file()
    }
    return {"files": files, "folders": [name for name, path in paths.items() if path.is_dir()]}


def _key(table: str, version: str, name: str, manifest: dict[str, Any]) -> str:
    return f"{table}/{version}/{manifest['files'][name]['sha256']}/{name}"


def _inside(name: str) -> str:
    """A name that stays in its folder. Raises ValueError for another."""
    if not all(part.strip(".") for part in name.split("/")):
        raise ValueError(name)
    return name


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()


def _files_beside(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of the versions beside a folder, by their names within a version."""
    for version in folder.parent.glob("[!.]*/"):
        yield from ((path.relative_to(version).as_posix(), path) for path in version.rglob("*") if path.is_file())


def _linked(source: Path | None, path: Path, sha256: str) -> bool:
    """Link a file that has this content; false without one."""
    with suppress(FileNotFoundError):  # another process may remove what is beside
        if source is not None and hash_file(source) == sha256:
            os.link(source, path)
            return True
    return False


def _for_each(act: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(act, names))
