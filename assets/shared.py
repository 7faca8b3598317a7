"""The versions and pointers of a lake on S3, which several machines write.

<table>/<version>/.<upload>/<file>    in a folder of one upload's own, so that nobody changes another's bytes
<table>/<version>/MANIFEST.json       written last, and once: a version exists when this does, and has what it names
<table>/.replaced/<version>           the version that took the place of another
<table>/CURRENT                       the version that readers see, and the moves that led to it

CURRENT is moved by a write on condition that it still is what its mover read (If-Match): of two who build on the same
publication one wins, and the other is told. No lock is shared, and no clock is asked. A file that the current version
has too is not written again: the manifest says where it is. A version is removed by its manifest; whoever writes it
again does so in another folder, so that the objects of the first can go at any time later, once no manifest of the
table names them.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from assets.exceptions import ObjectsError, Superseded
from assets.hashing import hash_bytes, hash_file
from assets.objects import Listed, Objects, Stored

__all__ = ["MANIFEST", "POINTER", "REPLACED", "File", "Listing", "Pointer", "SharedStore", "Written", "superseded"]

POINTER, MANIFEST, REPLACED = "CURRENT", "MANIFEST.json", ".replaced"
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
        if (stored := self.objects.read(name := f"{table}/{POINTER}")) is None:
            return Pointer()
        with self._sound(name):
            content = json.loads(stored.content)
            moves = tuple(Move(_inside(version), _inside(mark)) for version, mark in content["moves"])
            return Pointer(*moves[-1], moves, int(content["generation"]), stored)

    def move(self, table: str, version: str, upon: Pointer) -> None:
        """Move a pointer from where it was read, unless it is there. Raises Superseded if others have moved it."""
        own = Move(version, uuid4().hex)
        content = {"version": version, "generation": upon.generation + 1, "moves": [*upon.moves, own][-_MOVES:]}
        name = f"{table}/{POINTER}"
        if upon.version == version or self.objects.replace(name, _json(content), upon.stored):
            return
        now = self.pointer(table)
        if own not in now.moves and now.version != version:
            raise superseded(table, upon.version, now.version)

    def send(self, table: str, version: str, folder: Path, since: int | None = None) -> bool:
        """Make the files in a folder a version; false if it exists, and has other bytes.

        `since`: the time that counts as its own, in nanoseconds since 1970, if it takes the place of another.
        """
        manifest = _describe(folder) | {"upload": uuid4().hex, "since": since}
        upon = self.pointer(table).version
        if upon:
            self._share(table, upon, manifest)
        own = [name for name, described in manifest["files"].items() if "at" not in described]

        def upload(name: str) -> None:
            self.objects.upload(_key(table, version, name, manifest), folder / name, manifest["files"][name]["sha256"])

        _for_each(upload, own)
        while not self.objects.create(f"{table}/{version}/{MANIFEST}", _json(manifest)):
            found = self._manifest(table, version)
            if found and found["upload"] != manifest["upload"]:
                self.objects.remove(_key(table, version, name, manifest) for name in own)
            if found:
                return _contents(found) == _contents(manifest)
        if upon and not self.exists(table, upon):
            self._own(table, version, manifest, upload)
        return True

    def _share(self, table: str, upon: str, manifest: dict[str, Any]) -> None:
        """Let a manifest name another version's objects of the files that are the same."""
        _, there = self._stored(table, upon)
        before = _contents(there)
        for name, content in _contents(manifest).items():
            if before.get(name) == content:
                manifest["files"][name]["at"] = _place(upon, name, there)

    def _own(self, table: str, version: str, manifest: dict[str, Any], upload: Callable[[str], None]) -> None:
        """Write what a version shares with one that is gone: who removed that one may not have seen that it does.

        Had it still been there once the manifest was, whoever removes it later would.
        """
        shared = [name for name, described in manifest["files"].items() if described.pop("at", None)]
        _for_each(upload, shared)
        if shared:
            self.objects.write(f"{table}/{version}/{MANIFEST}", _json(manifest))

    def remove(self, table: str, version: str) -> None:
        """Remove a version, from its manifest on: it is never there in part."""
        if manifest := self._manifest(table, version):
            self.objects.remove([f"{table}/{version}/{MANIFEST}"])
            self.discard(table, [_key(table, version, name, manifest) for name in manifest["files"]])

    def discard(self, table: str, objects: Iterable[str]) -> None:
        """Remove objects of a table, except for those that a version still has."""
        named = self._named(table, [version for whose, version in self.versions(table) if whose == table])
        self.objects.remove(name for name in objects if name not in named)

    def _named(self, table: str, versions: Iterable[str]) -> set[str]:
        """The objects that some versions of a table have."""
        return {file.object for version in versions for file in self.files(table, version).values()}

    def drop(self, table: str, version: str, name: str) -> None:
        """Remove a file that a version can do without. Raises ObjectsError when others change the version meanwhile."""
        stored, manifest = self._stored(table, version)
        if stored is None:
            return
        if name in manifest["files"]:
            left = manifest | {"files": {each: what for each, what in manifest["files"].items() if each != name}}
            if not self.objects.replace(f"{table}/{version}/{MANIFEST}", _json(left), stored):
                raise ObjectsError(f"{self.objects.address(table)}/{version} is changed by others; run again")
        self.discard(table, [_key(table, version, name, manifest)])

    def replaced(self, table: str, version: str) -> str | None:
        """The version that took the place of one; None if none did."""
        stored = self.objects.read(name := f"{table}/{REPLACED}/{version}")
        with self._sound(name):
            return _inside(stored.content.decode()) if stored else None

    def lead(self, table: str, version: str, by: str) -> None:
        """Let a version's name lead to the one that takes its place."""
        name, content = f"{table}/{REPLACED}/{version}", by.encode()
        self.objects.replace(name, content, self.objects.read(name))

    def since(self, table: str, version: str) -> int:
        """When a version was written, or the one whose place it took, in nanoseconds since 1970 by the server's clock.

        0 for one that is not there.
        """
        stored, manifest = self._stored(table, version)
        return int(manifest.get("since") or (stored.written * 1e9 if stored else 0))

    def files(self, table: str, version: str) -> dict[str, "File"]:
        """The files of a version by their names; empty for one that is not there."""
        _, manifest = self._stored(table, version)
        return {
            name: File(_key(table, version, name, manifest), described["bytes"], described["sha256"])
            for name, described in manifest["files"].items()
        }

    def listing(self) -> "Listing":
        """All that is stored."""
        return Listing.of(self.objects.listed())

    def abandoned(self, listing: "Listing") -> Iterator[tuple[str, str, "Written"]]:
        """What no manifest names, as (table, version, upload): of uploads that go on, too."""
        for table, uploads in groupby(sorted(listing.uploads), lambda key: key[0]):
            several = [(version, each) for _, version in uploads for each in listing.uploads[table, version]]
            if len(several) == 1 and (table, several[0][0]) in listing.written:  # then it can only be this one's
                continue
            named = self._named(table, listing.versions[table])
            for version, (upload, files) in several:
                at = f"{table}/{version}/.{upload}"
                if left := {name: size for name, size in files.items() if f"{at}/{name}" not in named}:
                    yield table, version, Written(upload, left)

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
        manifest = self._stored(table, version)[1]
        if name not in manifest["files"]:
            return None
        key = _key(table, version, name, manifest)
        stored = self.objects.read(key)
        if stored is None or hash_bytes(stored.content) != manifest["files"][name]["sha256"]:
            raise ObjectsError(f"{self.objects.address(key)} is not what was written; restore it")
        return stored.content

    def drop_abandoned(self) -> None:
        """Remove what no manifest names. Only while nobody else is at work, who may be about to write a manifest."""
        for table, version, upload in self.abandoned(self.listing()):
            self.objects.remove(f"{table}/{version}/.{upload.upload}/{name}" for name in upload.files)

    def tables(self, prefix: str) -> list[str]:
        """The tables directly under a prefix that have a pointer, sorted."""
        names = (name.removeprefix(f"{prefix}/").split("/") for name in self.objects.names(f"{prefix}/"))
        return sorted({parts[0] for parts in names if parts[1:] == [POINTER]})

    def versions(self, prefix: str) -> list[tuple[str, str]]:
        """The versions of a table, or of the tables directly under a prefix, as (table, version), sorted."""
        return sorted(Listing.of(self.objects.listed(f"{prefix}/" if prefix else "")).written)

    def _manifest(self, table: str, version: str) -> dict[str, Any] | None:
        stored, manifest = self._stored(table, version)
        return manifest if stored else None

    def _stored(self, table: str, version: str) -> tuple[Stored | None, dict[str, Any]]:
        """A manifest as it is stored and as it reads; one without files for a version that does not exist."""
        if (stored := self.objects.read(name := f"{table}/{version}/{MANIFEST}")) is None:
            return None, {"files": {}}
        with self._sound(name):
            manifest: dict[str, Any] = json.loads(stored.content)
            places = [described["at"] for described in manifest["files"].values() if "at" in described]
            for named in (*manifest["files"], *manifest["folders"], manifest["upload"], *places):
                _inside(named)
            return stored, manifest

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


class File(NamedTuple):
    """A file of a version, and the name of the object in the lake that holds it, perhaps for other versions, too."""

    object: str
    bytes: int
    sha256: str = ""


class Written(NamedTuple):
    """What an upload has written of a version: bytes by the name of the file."""

    upload: str
    files: dict[str, int]


@dataclass(frozen=True)
class Listing:
    """What is stored of a lake. It costs a request for every thousand objects."""

    written: dict[tuple[str, str], float] = field(default_factory=dict)
    """When the manifest of each version was written, in seconds since 1970, by (table, version)."""
    uploads: dict[tuple[str, str], list[Written]] = field(default_factory=dict)
    """What is there of each version, and of those that were not written to their end."""
    pointers: set[str] = field(default_factory=set)
    """The tables that have one."""
    replaced: set[str] = field(default_factory=set)
    """The names of the objects that lead from a version to another."""

    @cached_property
    def versions(self) -> Mapping[str, Mapping[str, float]]:
        """When each version was written, by table; none for one that is not there."""
        versions: dict[str, dict[str, float]] = defaultdict(dict)
        for (table, version), at in self.written.items():
            versions[table][version] = at
        return versions

    @classmethod
    def of(cls, listed: Iterable[Listed]) -> "Listing":
        """From objects by their names in the lake."""
        found = cls()
        for name, size, written in listed:
            found._add(name.split("/"), size, written)
        return found

    def _add(self, parts: list[str], size: int, written: float) -> None:
        hidden = next((place for place, part in enumerate(parts) if part.startswith(".")), None)
        if hidden is not None and parts[hidden] == REPLACED:
            self.replaced.add("/".join(parts))
        elif hidden is not None:
            uploads = self.uploads.setdefault(("/".join(parts[: hidden - 1]), parts[hidden - 1]), [])
            upload = parts[hidden].removeprefix(".")
            if not uploads or uploads[-1].upload != upload:
                uploads.append(Written(upload, {}))
            uploads[-1].files["/".join(parts[hidden + 1 :])] = size
        elif parts[-1] == MANIFEST:
            self.written["/".join(parts[:-2]), parts[-2]] = written
        elif parts[-1] == POINTER:
            self.pointers.add("/".join(parts[:-1]))


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


def _contents(manifest: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """The size and hash of every file, wherever it is."""
    return {name: (described["bytes"], described["sha256"]) for name, described in manifest["files"].items()}


def _key(table: str, version: str, name: str, manifest: dict[str, Any]) -> str:
    return f"{table}/{_place(version, name, manifest)}/{name}"


def _place(version: str, name: str, manifest: dict[str, Any]) -> str:
    """The folder of the upload that has written a file, in that of the table."""
    at = manifest["files"].get(name, {}).get("at")
    return at or f"{version}/.{manifest['upload']}"


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
