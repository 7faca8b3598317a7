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
from assets.shared import POINTER, REPLACED, Pointer, SharedStore, superseded
from assets.writing import sync, write_atomically

__all__ = ["Lake"]

_COPIES = ".copies"
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T.+)?")
_NAME = re.compile(r"[a-z0-9][a-zT0-9_.-]*(/[a-z0-9][a-zT0-9_.-]*)*")


class Store(Protocol):
    """What decides which versions of a lake exist, and which is current: a folder, or S3."""

    def pointer(self, table: str) -> Pointer: ...

    def move(self, table: str, version: str, upon: Pointer) -> None: ...

    def exists(self, table: str, version: str) -> bool: ...

    def since(self, table: str, version: str) -> int: ...

    def replaced(self, table: str, version: str) -> str | None: ...

    def lead(self, table: str, version: str, by: str) -> None: ...

    def remove(self, table: str, version: str) -> None: ...

    def tables(self, prefix: str) -> list[str]: ...

    def versions(self, prefix: str) -> list[tuple[str, str]]: ...


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

    def keep(self, table: str, version: str, staged: Path, since: int | None = None) -> Path:
        """Make the files in `staged` a version that no reader sees yet.

        An existing version is left as it is: versions are immutable and named by their content. `since`: the time that
        counts as its own, in nanoseconds since 1970, if it takes the place of another.
        """
        target = self.path(table, version)
        if self.shared is None:
            if not target.exists():
                _sync_tree(staged)
                _settle(staged, target)
            if since is not None:
                os.utime(target, ns=(since, since))
        elif not (target.exists() and self.shared.exists(table, target.name)):
            self._send(self.shared, target, staged, since)
        return self.path(table, version)

    def _send(self, shared: SharedStore, target: Path, staged: Path, since: int | None) -> None:
        """Make a version on S3; a copy of one that was removed there in the meantime gives way to it."""
        _sync_tree(staged)
        table = target.parent.relative_to(self.root).as_posix()
        sent = shared.send(table, target.name, staged, since)
        if not sent or staged != target:
            _remove(target)
        if sent and staged != target:
            _settle(staged, target)

    def point(self, table: str, version: str, upon: str | None) -> None:
        """Move the table's pointer to a kept version, from the version `upon` which it was built.

        Raises Superseded when another writer has moved the pointer in the meantime.
        """
        with self._alone(table):
            pointer = self._store.pointer(table)
            if pointer.version not in (upon, version):
                raise superseded(table, upon, pointer.version)
            if not self._store.exists(table, target := self.name(table, version)):
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
        pointer = self._folder(table) / POINTER
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
        if self.shared is not None:
            self._copy(self.shared, table, version, target)
        if target.exists() or (by := self._store.replaced(table, version)) is None:
            return target
        return self.path(table, by)

    def name(self, table: str, version: str) -> str:
        """The name that a version has now: its own, or that of the one that took its place."""
        by = None if self._store.exists(table, version) else self._store.replaced(table, version)
        return version if by is None else self.name(table, by)

    def read(self, table: str, version: str, name: str) -> bytes | None:
        """A small file of a version, without the others; None if there is no such file or version."""
        path = self._folder(f"{table}/{version}") / name
        if path.is_file():
            return path.read_bytes()
        if self.shared is not None and (content := self.shared.read(table, version, name)) is not None:
            return content
        now = self.name(table, version)
        return None if now == version else self.read(table, now, name)

    def publish_alone(self, table: str, version: str, staged: Path) -> None:
        """Publish a version, and remove every other: of a table whose past nobody needs."""
        self.publish(table, version, staged)
        for _, other in self.versions(table):
            if other != version:
                self.remove(table, other)

    def versions(self, prefix: str = "") -> list[tuple[str, str]]:
        """Every version of a table, or of the tables under a prefix, published or not: (table, version), sorted."""
        return self._store.versions(prefix)

    def replace(self, table: str, version: str, by: str, staged: Path) -> None:
        """Make the files in `staged` the version `by` in the place of another, whose name leads to it from now on.

        Only for what must not be kept as it was; inside `staging`. After a kill the same call finishes it. The order of
        versions stays.
        """
        self.keep(table, by, staged, self._store.since(table, version))
        self._store.lead(table, version, by)
        if self.version(table) == version:
            self._store.move(table, by, self._store.pointer(table))
        self.remove(table, version)

    def remove(self, table: str, version: str) -> None:
        """Remove a version that no reader needs. It is never there in part."""
        self._store.remove(table, version)
        self.drop_copy(table, version)

    def drop_copy(self, table: str, version: str) -> None:
        """Remove this machine's copy of a version, if it has one."""
        if self.shared is not None:
            _remove(self._folder(f"{table}/{version}"))
            self._mark(table, version).unlink(missing_ok=True)

    def tables(self, prefix: str) -> list[str]:
        """The published tables directly under a prefix, sorted: `tables("predictions")` lists its as-of days."""
        return [f"{prefix}/{name}" for name in self._store.tables(prefix)]

    def trim(self, most: float) -> None:
        """Remove this machine's copies of what is gone from S3, and the longest unused ones beyond `most` bytes.

        Only while no other process of this machine is in the lake. A lake without `shared` has no copies.
        """
        if self.shared is None:
            return
        there, seen, size = set(self.versions()), set[int](), 0
        for table, version in sorted(_Folder(self.root).versions(""), key=self._last_use, reverse=True):
            copy = self._folder(f"{table}/{version}")
            files = {each.st_ino: each.st_size for each in map(Path.stat, copy.rglob("*"))}
            size += sum(files[inode] for inode in files.keys() - seen)
            seen |= files.keys()
            if size > most or (table, version) not in there:
                self.drop_copy(table, version)

    def _last_use(self, copy: tuple[str, str]) -> int:
        """When the copy of a (table, version) was used last, in nanoseconds since 1970; 0 if it never was."""
        mark = self._mark(*copy)
        return mark.stat().st_mtime_ns if mark.exists() else 0

    def _mark(self, table: str, version: str) -> Path:
        return self.root / _COPIES / table / version

    def _copy(self, shared: SharedStore, table: str, version: str, target: Path) -> None:
        """Fetch a version, if it is not here, and mark that it is used."""
        if not target.exists():
            with locked(self.root / ".writing" / f"{table}.fetched"):
                self._fetch(shared, table, version, target)
        if target.exists():
            mark = self._mark(table, version)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    @property
    def _store(self) -> Store:
        return self.shared or _Folder(self.root)

    def _fetch(self, shared: SharedStore, table: str, version: str, target: Path) -> None:
        folder = target.with_name(f".fetched-{version}")
        shutil.rmtree(folder, ignore_errors=True)
        if not target.exists() and shared.fetch(table, version, folder):
            _sync_tree(folder)
            if shared.exists(table, version):  # it may have been removed in the meantime, because it must not be read
                _settle(folder, target)

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
        pointer = self.root / table / POINTER
        if not pointer.exists():
            return Pointer()
        named = pointer.read_text(errors="replace")
        if not _NAME.fullmatch(named) or not self.exists(table, named):
            raise EvergreenError(f"{pointer} is damaged: it names {named[:40]!r}; {self._remedy(table)}")
        return Pointer(named, named)

    def move(self, table: str, version: str, upon: Pointer) -> None:  # noqa: ARG002 - a lock is held
        write_atomically(self.root / table / POINTER, version)

    def exists(self, table: str, version: str) -> bool:
        return (self.root / table / version).is_dir()

    def since(self, table: str, version: str) -> int:
        return (self.root / table / version).stat().st_mtime_ns

    def replaced(self, table: str, version: str) -> str | None:
        by = self.root / table / REPLACED / version
        return by.read_text() if by.exists() else None

    def lead(self, table: str, version: str, by: str) -> None:
        write_atomically(self.root / table / REPLACED / version, by)

    def remove(self, table: str, version: str) -> None:
        gone = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.root / table))
        (self.root / table / version).rename(gone / version)
        shutil.rmtree(gone)

    def tables(self, prefix: str) -> list[str]:
        return sorted(path.parent.name for path in (self.root / prefix).glob(f"*/{POINTER}"))

    def versions(self, prefix: str) -> list[tuple[str, str]]:
        whole = [self._tables_in(folder) for folder in _folders(self.root)]
        tables = [table for inner in whole for table in inner if _is_at_or_under(table, prefix)]
        return [(table, version.name) for table in tables for version in _folders(self.root / table)]

    def _tables_in(self, folder: Path) -> list[str]:
        """A folder of the lake is a table, or has one for each as-of or segment."""
        inner = [each.name for each in _folders(folder) if _TIME.fullmatch(each.name) or (each / POINTER).exists()]
        return [f"{folder.name}/{name}" for name in inner] or [folder.name]

    def _remedy(self, table: str) -> str:
        versions = (path for path in (self.root / table).glob("[!.]*/"))
        newest = max(versions, key=lambda path: path.stat().st_mtime, default=None)
        return f"write the newest version's name into it, {newest.name}" if newest else "delete it, and run again"


def _is_at_or_under(table: str, prefix: str) -> bool:
    return not prefix or f"{table}/".startswith(f"{prefix}/")


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
