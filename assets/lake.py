"""The home folder, and in it a lake: immutable versions of tables, with one atomic pointer per table.

<home>/lake/<table>/<version>/...     written as .staging-* next to it, synced, renamed into place
<home>/lake/<table>/CURRENT           the version that readers see, moved by one os.replace
<home>/lake/<table>/.replaced/<name>  the version that took the place of another
<home>/lake/.writing/<table>.lock     held by the process that writes the table, and released when it ends
<home>/running/<name>.lock            held by each process at work in the home
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from assets.database import Leases
from assets.exceptions import EvergreenError, NotPublished, SettingsError
from assets.objects import Objects
from assets.pages import Pages
from assets.settings import EMBEDDED, Domain, Environment, domain_folder, load_domain, load_environment
from assets.shared import MANIFEST, Pointer, SharedStore, superseded

__all__ = [
    *("Home", "Lake", "alive", "claimed", "has_died", "is_alive", "locked", "remove_unshared", "share"),
    *("hash_bytes", "hash_file", "hash_json", "hash_tree", "replacing", "sync", "write_atomically"),
]

_ADDRESS, _OWNER = "OBJECTS", "DOMAIN"
_POINTER, _COPIES, _REPLACED = "CURRENT", ".copies", ".replaced"
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T.+)?")
_NAME = re.compile(r"[a-z0-9][a-zT0-9_.-]*(/[a-z0-9][a-zT0-9_.-]*)*")

_log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class Home:
    """The folder (`EVERGREEN_HOME`) that holds all state; deleting it is a full reset.

    In an environment that machines share, S3 and a database hold the state, and the folder is one machine's own, of
    copies.
    """

    root: Path
    environment: Environment = EMBEDDED

    @classmethod
    def from_environment(cls) -> "Home":
        """`EVERGREEN_HOME`, or `.evergreen` in the domain's folder.

        Raises SettingsError for a path that DuckDB would treat as a pattern, reading other folders' files.
        """
        root = Path(os.environ.get("EVERGREEN_HOME") or domain_folder() / ".evergreen").absolute()
        if set("*?[") & set(str(root)):
            raise SettingsError(f"EVERGREEN_HOME: {root}: a path with *, ? or [ reads as a pattern; choose another")
        return cls(root, load_environment())

    def require_known(self) -> None:
        """Raises SettingsError for the home of another domain, cadence or earlier Evergreen, and for a file."""
        nearest = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not nearest.is_dir():
            raise SettingsError(f"EVERGREEN_HOME: {self.root} is no folder: {nearest} is a file; choose another")
        self._require_address()
        if (owner := self._owner()) is not None:
            self._require_ours(*owner.splitlines())
        if (self.root / "lake" / "marts").exists() and not (self.root / "lake" / "raw_records").exists():
            raise SettingsError(
                f"EVERGREEN_HOME: {self.root} is from an earlier Evergreen, whose tables had other names; choose a new "
                "folder, and run again with the same sources"
            )

    def _require_ours(self, owner: str = "", cadence: str | None = None) -> None:
        """Homes from before there were cadences say none."""
        home, setting = self.objects or self.root, "EVERGREEN_OBJECTS" if self.objects else "EVERGREEN_HOME"
        other = "prefix" if self.objects else "folder"
        if owner != self.domain.name:
            raise SettingsError(
                f"{setting}: {home} is the home of the domain {owner}, not of {self.domain.name}; choose another "
                f"{other}"
            )
        if cadence not in (None, self.domain.cadence):
            raise SettingsError(
                f"domain.yaml: cadence: {home} has a night every {cadence}, not every {self.domain.cadence}; keep "
                f"that cadence, or choose another {other} as {setting}"
            )

    def claim(self) -> None:
        """Assign the home to this domain, permanently. Raises SettingsError when it is another's."""
        self.require_known()
        self.root.mkdir(parents=True, exist_ok=True)
        owner = f"{self.domain.name}\n{self.domain.cadence}"
        if self._owner() is not None:
            return
        if self.objects is None:
            write_atomically(self.root / _OWNER, owner)
        elif not self._shared.create(_OWNER, owner.encode()):
            self.require_known()  # another machine's claim was faster

    def _owner(self) -> str | None:
        """The domain, and on a second line the cadence, of whoever claimed the home; None if nobody did."""
        if self.objects is not None:
            stored = self._shared.read(_OWNER)
            return stored.content.decode() if stored else None
        return (self.root / _OWNER).read_text() if (self.root / _OWNER).exists() else None

    @property
    def domain(self) -> Domain:
        """The domain of the records in this home."""
        return load_domain()

    @cached_property
    def lake(self) -> "Lake":
        self._require_address()
        if self.objects is None:
            return Lake(self.root / "lake")
        if not (self.root / _ADDRESS).exists():
            write_atomically(self.root / _ADDRESS, self.objects)
        return Lake(self.root / "lake", SharedStore(self._shared.under("lake")))

    @property
    def source(self) -> Path:
        """Simulated records; real ones lie elsewhere."""
        return self.root / "source"

    @property
    def warehouse(self) -> Path:
        """dbt's private folder: its database, its target folder and the marts staged for audit."""
        return self.root / "warehouse"

    @property
    def features(self) -> Path:
        """Feast's registry and online store."""
        return self.root / "features"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def reports(self) -> Path:
        """HTML pages, such as Data Docs and reports by Evidently, served by `evergreen ui`."""
        return self.root / "reports"

    @cached_property
    def pages(self) -> Pages:
        """The reports, which machines may share: who writes one puts it there, and who shows one fetches it."""
        return Pages(self.reports, self._shared.under("reports") if self.objects else None)

    @property
    def pictures(self) -> Path:
        """The pictures in Dagster's pages, as <asset>/<as-of>/<hash>.png."""
        return self.reports / "pictures"

    def running(self, name: str) -> Path:
        """The file by which a process at work in this home is `alive`; a run of the graph is named by its id."""
        return self.root / "running" / f"{name}.lock"

    @contextmanager
    def in_use(self, name: str) -> Iterator[None]:
        """Mark this process as using the home inside the context: nothing is removed in the meantime.

        `name`: the run's id, or what the process does, to be shown to whoever wants to remove something.
        """
        with ExitStack() as stack:
            if leases := self.leases:
                stack.enter_context(leases.hold(f"running/{name}"))
            else:
                with self._door(shared=True):
                    stack.enter_context(alive(self.running(name)))
            yield

    def has_died(self, name: str) -> bool:
        """Whether a process that was `in_use` was killed; on another machine, as long as it takes to be sure."""
        if leases := self.leases:
            return f"running/{name}" in leases.given_up("running/")
        return has_died(self.running(name))

    def is_alive(self, name: str) -> bool:
        """Whether a process is `in_use`."""
        if leases := self.leases:
            return f"running/{name}" in leases.held("running/")
        return is_alive(self.running(name))

    def exclusively(self, name: str, what: str) -> AbstractContextManager[None]:
        """Let one process at a time, of any machine, do something; others log `what` they wait for.

        On a machine's own home the kernel lets the next one in when the process ends, however it ends.
        """
        if leases := self.leases:
            return leases.hold(f"exclusive/{name}", what)
        return locked(self.root / ".locks" / f"{name}.lock", what)

    @property
    def objects(self) -> str | None:
        """The s3://bucket/prefix that holds the state of a home that machines share."""
        return self.environment.objects

    @property
    def leases(self) -> Leases | None:
        """The leases of a home that machines share; None for one on a single machine, which has files with locks."""
        return Leases(self.environment.database) if self.environment.database else None

    @contextmanager
    def closed(self, own: str | None = None) -> Iterator[tuple[str, ...]]:
        """Let no process enter `in_use`; yields the names of those inside, without the caller's `own` name.

        Files of killed processes no longer count, and stay.
        """
        with self._door(shared=False):
            inside = (path for path in (self.root / "running").glob("*.lock") if path.stem != own)
            yield tuple(sorted(path.stem for path in inside if is_alive(path)))

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    def _require_address(self) -> None:
        """Copies from one address are never taken for another's, nor for a home. Raises SettingsError."""
        address = self.root / _ADDRESS
        if address.exists():
            if (copied := address.read_text()) != self.objects:
                raise SettingsError(
                    f"EVERGREEN_HOME: {self.root} has copies of {copied}, not of {self.objects or 'a home here'}; "
                    "choose another folder, or set EVERGREEN_OBJECTS"
                )
        elif self.objects and (self.root / "lake").exists():
            raise SettingsError(
                f"EVERGREEN_HOME: {self.root} is a home of its own; choose another folder for copies of {self.objects}"
            )

    @property
    def _shared(self) -> Objects:
        return Objects.at(str(self.objects))

    def _door(self, *, shared: bool) -> AbstractContextManager[None]:
        return locked(self.root / "running" / ".door", "removing what nothing needs", shared=shared)


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


@contextmanager
def locked(path: Path, what: str | None = None, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, created if needed; waits while another process holds it.

    The kernel releases it when its holder ends, however it ends. `what`: what the lock protects, for the message that
    says what is waited for; None where the wait is brief. `shared`: any number of processes may hold it at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if what is not None:
                _log.warning("waiting for another run to finish with %s", what)
            fcntl.flock(file, kind)
        yield


@contextmanager
def claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process got the lock of a file, created if needed; without `wait` another may hold it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def share(folder: Path) -> int:
    """A handle that keeps others from removing a folder (`remove_unshared`); creates the folder if needed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:  # otherwise it was removed before the lock was acquired
            return handle
        os.close(handle)


def remove_unshared(handle: int, folder: Path) -> None:
    """Close a handle on a folder, and remove the folder if no other process shares it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            shutil.rmtree(folder)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


@contextmanager
def alive(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is removed at the end: a file without a holder is from a process that died."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_alive(path: Path) -> bool:
    """Whether a process is `alive` with this file."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def has_died(path: Path) -> bool:
    """Whether a process that was `alive` with this file was killed."""
    return not is_alive(path) and path.exists()


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file in one step: a reader sees the old text or the new one, never part of it."""
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that replaces a path in one step once it is complete and on disk; an error removes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync(path.parent)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_bytes(content: bytes) -> str:
    """SHA-256 of some bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def hash_tree(folder: Path) -> str:
    """One SHA-256 over every file under a folder, by relative name and content."""
    return hash_json({p.relative_to(folder).as_posix(): hash_file(p) for p in folder.rglob("*") if p.is_file()})


def hash_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, for naming things that are a function of settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
