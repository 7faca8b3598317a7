"""A lake: immutable versions of tables, with one atomic pointer per table.

<lake>/<table>/<version>/...     written as .staging-* next to it, synced, renamed into place
<lake>/<table>/CURRENT           the version that readers see, moved by one os.replace
<lake>/<table>/.replaced/<name>  the version that took the place of another
<lake>/.writing/<table>.lock     held by the process that writes the table, and released when it ends
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assets.exceptions import EvergreenError, NotPublished
from assets.locks import locked
from assets.shared import MANIFEST, Pointer, SharedStore, superseded
from assets.writing import sync, write_atomically

__all__ = ["Lake"]

_POINTER, _COPIES, _REPLACED = "CURRENT", ".copies", ".replaced"
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T.+)?")
_NAME = re.compile(r"[a-z0-9][a-zT0-9_.-]*(/[a-z0-9][a-zT0-9_.-]*)*")


class Store(Protocol):
    """What decides which versions of a lake exist, and which is current: a folder, or S3."""

    def pointer(self, table: str) -> Pointer: ...

    def move(self, table: str, version: str, upon: Pointer) -> None: ...

    def exists(self, table: str, version: str) -> bool: ...

    def tables(self, prefix: str) -> list[str]: ...

    def versions_of(self, table: str) -> list[str]: ...

    def kept(self, prefix: str) -> list[tuple[str, str]]: ...


@dataclass(frozen=True)
class Lake:
    """Immutable versions of tables, each table with one pointer to its current version.

    With `shared`, versions and pointers are on S3, and the folder has copies of them, each of which is fetched when its
    path is asked for. Then every method also raises ObjectsError.
    """

    root: Path
    shared: SharedStore | None = None

    @contextmanager
    def staging(self, table: str) -> Iterator[Path]:
        """An empty folder next to the table's versions; anything that `publish` has not moved is removed at the end.

        Only one writer at a time of a machine is inside; others log what they wait for. So older staged folders belong
        to killed writers, and are removed. The inputs of the new version must be read inside, too: `publish` moves the
        pointer only if it still is as it was at the beginning.
        """
        folder = self._folder(table)
        with self._alone(table):
            folder.mkdir(parents=True, exist_ok=True)
            for abandoned in folder.glob(".staging-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            staged = Path(tempfile.mkdtemp(f".{self._store.pointer(table).mark}", ".staging-", folder))
            try:
                yield staged
            finally:
                shutil.rmtree(staged, ignore_errors=True)

    def publish(self, table: str, version: str, staged: Path) -> Path:
        """Make the files in `staged` the table's current version, with one rename and one pointer move.

        Raises Superseded when a run on another machine has moved the pointer since `staging` began.
        """
        target = self.keep(table, version, staged)
        pointer, begun = self._store.pointer(table), _begun(staged)
        if begun not in (None, pointer.mark) and pointer.version != target.name:
            raise superseded(table, pointer.at(begun or ""), pointer.version)
        self._store.move(table, target.name, pointer)
        return target

    def keep(self, table: str, version: str, staged: Path) -> Path:
        """Make the files in `staged` a version that no reader sees yet.

        An existing version is left as it is: versions are immutable and named by their content.
        """
        target = self.path(table, version)
        if not target.exists():
            _sync_tree(staged)
            if self.shared is not None and not self.shared.send(table, version, staged):
                return self.path(table, version)  # another machine's, which was faster
            _settle(staged, target)
        return self.path(table, version)

    def point(self, table: str, version: str, upon: str | None) -> None:
        """Move the table's pointer to a kept version, from the version `upon` which it was built.

        Raises Superseded when another writer has moved the pointer in the meantime.
        """
        with self._alone(table):
            pointer = self._store.pointer(table)
            if pointer.version not in (upon, version):
                raise superseded(table, upon, pointer.version)
            if not self._store.exists(table, target := self.path(table, version).name):
                raise EvergreenError(f"{table} has no version {version}")
            self._store.move(table, target, pointer)

    def version(self, table: str) -> str | None:
        """The current version's name, or None when nothing was published.

        Raises EvergreenError when the pointer names no version.
        """
        self._folder(table)
        return self._store.pointer(table).version

    def published(self, table: str) -> float | None:
        """When the pointer was last moved, by the clock of the disk or of S3, in seconds since 1970; None if never."""
        if self.shared is not None:
            stored = self.shared.pointer(table).stored
            return stored.written if stored else None
        pointer = self._folder(table) / _POINTER
        return pointer.stat().st_mtime if pointer.exists() else None

    def current(self, table: str) -> Path:
        """The current version's folder. Raises NotPublished."""
        version = self.version(table)
        if version is None:
            raise NotPublished(f"{table} has no publication yet; materialize it first")
        path = self.path(table, version)
        if not path.exists():
            raise EvergreenError(f"{table}: version {version}, its current one, is gone; restore it, or run again")
        return path

    def path(self, table: str, version: str) -> Path:
        """The folder of a version, or of the one that took its place, whether it exists or not."""
        target = self._folder(f"{table}/{version}")
        if self.shared is None:
            return self._in_place_of(target)
        if not target.exists():
            with locked(self.root / ".writing" / f"{table}.fetched"):
                self._fetch(self.shared, table, version, target)
        if target.exists():
            mark = self.root / _COPIES / table / version
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        return target

    def read(self, table: str, version: str, name: str) -> bytes | None:
        """A small file of a version, without the others; None if there is no such file or version."""
        path = self._in_place_of(self._folder(f"{table}/{version}")) / name
        if path.exists() or self.shared is None:
            return path.read_bytes() if path.is_file() else None
        return self.shared.read(table, version, name)

    def _in_place_of(self, folder: Path) -> Path:
        while not folder.exists() and (by := folder.parent / _REPLACED / folder.name).exists():
            folder = folder.with_name(by.read_text())
        return folder

    def publish_alone(self, table: str, version: str, staged: Path) -> None:
        """Publish a version, and remove every other: of a table whose past nobody needs."""
        self.publish(table, version, staged)
        for other in _folders(self._folder(table)):
            if other.name != version:
                self.remove(table, other.name)

    def versions(self) -> list[tuple[str, str]]:
        """Every version of every table, published or not, as (table, version)."""
        tables = [name for folder in _folders(self.root) for name in self._tables_in(folder)]
        return [(table, version.name) for table in tables for version in _folders(self.root / table)]

    def replace(self, table: str, version: str, by: str, staged: Path) -> None:
        """Make the files in `staged` the version `by` in the place of another, whose name leads to it from now on.

        Only for what must not be kept as it was; inside `staging`. After a kill the same call finishes it.
        """
        before = self._folder(f"{table}/{version}")
        target = self.keep(table, by, staged)
        times = before.stat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # the order of versions stays
        write_atomically(self._folder(table) / _REPLACED / version, by)
        if self.version(table) == version:
            self._store.move(table, by, self._store.pointer(table))
        self.remove(table, version)

    def remove(self, table: str, version: str) -> None:
        """Remove a version that no reader needs. It is never there in part."""
        gone = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._folder(table)))
        self._folder(f"{table}/{version}").rename(gone / version)
        shutil.rmtree(gone)

    def tables(self, prefix: str) -> list[str]:
        """The published tables directly under a prefix, sorted: `tables("predictions")` lists its as-of days."""
        return [f"{prefix}/{name}" for name in self._store.tables(prefix)]

    def versions_of(self, table: str) -> list[str]:
        """The names of a table's versions, sorted, whether a pointer has ever named them or not."""
        return self._store.versions_of(table)

    def kept(self, prefix: str) -> list[tuple[str, str]]:
        """Every version of every table directly under a prefix, published or not: (table, version), sorted."""
        return [(f"{prefix}/{table}", version) for table, version in self._store.kept(prefix)]

    def trim(self, most: float) -> None:
        """Remove this machine's copies of what is gone from S3, and the longest unused ones beyond `most` bytes.

        Only while no other process of this machine is in the lake. A lake without `shared` has no copies.
        """
        marks = [path for path in (self.root / _COPIES).rglob("*") if path.is_file()]
        there, seen, size = set(self.shared.objects.names()) if self.shared else set(), set[int](), 0
        for mark in sorted(marks, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            copy = self.root / mark.relative_to(self.root / _COPIES)
            files = {each.st_ino: each.st_size for each in map(Path.stat, copy.rglob("*"))}
            size += sum(files[inode] for inode in files.keys() - seen)
            seen |= files.keys()
            if size > most or f"{copy.relative_to(self.root).as_posix()}/{MANIFEST}" not in there:
                _remove(copy)
                mark.unlink()

    @property
    def _store(self) -> Store:
        return self.shared or _Folder(self.root)

    def _fetch(self, shared: SharedStore, table: str, version: str, target: Path) -> None:
        folder = target.with_name(f".fetched-{version}")
        shutil.rmtree(folder, ignore_errors=True)
        if not target.exists() and shared.fetch(table, version, folder):
            _sync_tree(folder)
            _settle(folder, target)

    def _tables_in(self, folder: Path) -> list[str]:
        """A folder of the lake is a table, or has one for each as-of or segment."""
        inner = [each.name for each in _folders(folder) if _TIME.fullmatch(each.name) or (each / _POINTER).exists()]
        return [f"{folder.name}/{name}" for name in inner] or [folder.name]

    def _alone(self, table: str) -> AbstractContextManager[None]:
        return locked(self.root / ".writing" / f"{table}.lock", table)

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise EvergreenError(f"{name!r} is not the name of a table")
        return self.root / name


@dataclass(frozen=True)
class _Folder:
    """The versions and pointers of a lake whose folder is all there is: only one at a time writes a table."""

    root: Path

    def pointer(self, table: str) -> Pointer:
        pointer = self.root / table / _POINTER
        if not pointer.exists():
            return Pointer()
        named = pointer.read_text(errors="replace")
        if not _NAME.fullmatch(named) or not self.exists(table, named):
            raise EvergreenError(f"{pointer} is damaged: it names {named[:40]!r}; {self._remedy(table)}")
        return Pointer(named, named)

    def move(self, table: str, version: str, upon: Pointer) -> None:  # noqa: ARG002 - a lock is held
        write_atomically(self.root / table / _POINTER, version)

    def exists(self, table: str, version: str) -> bool:
        return (self.root / table / version).is_dir()

    def tables(self, prefix: str) -> list[str]:
        return sorted(path.parent.name for path in (self.root / prefix).glob(f"*/{_POINTER}"))

    def versions_of(self, table: str) -> list[str]:
        return sorted(path.name for path in (self.root / table).glob("[!.]*/"))

    def kept(self, prefix: str) -> list[tuple[str, str]]:
        return sorted((path.parent.name, path.name) for path in (self.root / prefix).glob("[!.]*/[!.]*/"))

    def _remedy(self, table: str) -> str:
        newest = max(self.versions_of(table), key=lambda name: (self.root / table / name).stat().st_mtime, default=None)
        return f"write the newest version's name into it, {newest}" if newest else "delete it, and run again"


def _folders(path: Path) -> list[Path]:
    found = path.iterdir() if path.is_dir() else ()
    return sorted(entry for entry in found if entry.is_dir() and entry.name[0] != ".")


def _begun(staged: Path) -> str | None:
    """The pointer's mark when `staging` began; None for a version that is published again."""
    parts = staged.name.split(".", 2)
    return parts[2] if parts[0] == "" else None


def _remove(version: Path) -> None:
    """Remove a version that is never there in part, whenever this is killed: what is left is removed by a fetch."""
    gone = version.with_name(f".fetched-{version.name}")
    shutil.rmtree(gone, ignore_errors=True)
    if version.exists():
        version.rename(gone)
        shutil.rmtree(gone)


def _settle(folder: Path, target: Path) -> None:
    """Put a version in its place, unless another process has just done so."""
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():
            raise
    sync(target.parent)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)
