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
from pathlib import Path
from typing import IO, Any

from assets.exceptions import EvergreenError, NotPublished, SettingsError, Superseded
from assets.settings import Domain, domain_folder, load_domain

__all__ = [
    *("Home", "Lake", "alive", "claimed", "has_died", "is_alive", "locked", "remove_unshared", "share"),
    *("hash_bytes", "hash_file", "hash_json", "hash_tree", "replacing", "sync", "write_atomically"),
]

_POINTER = "CURRENT"
_REPLACED = ".replaced"
_AS_OF = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2})?")
_NAME = re.compile(r"[a-z0-9][a-zT0-9_.-]*(/[a-z0-9][a-zT0-9_.-]*)*")

_log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class Home:
    """The folder (`EVERGREEN_HOME`) that holds all state; deleting it is a full reset."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """`EVERGREEN_HOME`, or `.evergreen` in the domain's folder.

        Raises SettingsError for a path that DuckDB would treat as a pattern, reading other folders' files.
        """
        root = Path(os.environ.get("EVERGREEN_HOME") or domain_folder() / ".evergreen").absolute()
        if set("*?[") & set(str(root)):
            raise SettingsError(f"EVERGREEN_HOME: {root}: a path with *, ? or [ reads as a pattern; choose another")
        return cls(root)

    def require_known(self) -> None:
        """Raises SettingsError for the home of another domain, cadence or earlier Evergreen, and for a file."""
        nearest = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not nearest.is_dir():
            raise SettingsError(f"EVERGREEN_HOME: {self.root} is no folder: {nearest} is a file; choose another")
        if self._owner.exists():
            self._require_ours(*self._owner.read_text().splitlines())
        if (self.root / "lake" / "marts").exists() and not (self.root / "lake" / "raw_records").exists():
            raise SettingsError(
                f"EVERGREEN_HOME: {self.root} is from an earlier Evergreen, whose tables had other names; choose a new "
                "folder, and run again with the same sources"
            )

    def _require_ours(self, owner: str = "", cadence: str | None = None) -> None:
        """Homes from before there were cadences say none."""
        if owner != self.domain.name:
            raise SettingsError(
                f"EVERGREEN_HOME: {self.root} is the home of the domain {owner}, not of {self.domain.name}; choose "
                "another folder"
            )
        if cadence not in (None, self.domain.cadence):
            raise SettingsError(
                f"domain.yaml: cadence: {self.root} has a night every {cadence}, not every {self.domain.cadence}; keep "
                "that cadence, or choose another folder as EVERGREEN_HOME"
            )

    def claim(self) -> None:
        """Assign the home to this domain, permanently. Raises SettingsError when it is another's."""
        self.require_known()
        self.root.mkdir(parents=True, exist_ok=True)
        if not self._owner.exists():
            write_atomically(self._owner, f"{self.domain.name}\n{self.domain.cadence}")

    @property
    def _owner(self) -> Path:
        return self.root / "DOMAIN"

    @property
    def domain(self) -> Domain:
        """The domain of the records in this home."""
        return load_domain()

    @property
    def lake(self) -> "Lake":
        return Lake(self.root / "lake")

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
            with self._door(shared=True):
                stack.enter_context(alive(self.running(name)))
            yield

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

    def _door(self, *, shared: bool) -> AbstractContextManager[None]:
        return locked(self.root / "running" / ".door", "removing what nothing needs", shared=shared)


@dataclass(frozen=True)
class Lake:
    """Immutable versions of tables, each table with one pointer to its current version."""

    root: Path

    @contextmanager
    def staging(self, table: str) -> Iterator[Path]:
        """An empty folder next to the table's versions; anything that `publish` has not moved is removed at the end.

        Only one writer at a time is inside; others log what they wait for. So older staged folders belong to killed
        writers, and are removed. The inputs of the new version must be read inside, too.
        """
        folder = self._folder(table)
        with self._alone(table):
            folder.mkdir(parents=True, exist_ok=True)
            for abandoned in folder.glob(".staging-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            staged = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder))
            try:
                yield staged
            finally:
                shutil.rmtree(staged, ignore_errors=True)

    def publish(self, table: str, version: str, staged: Path) -> Path:
        """Make the files in `staged` the table's current version, with one rename and one pointer move."""
        target = self.keep(table, version, staged)
        self._move(table, version)
        return target

    def keep(self, table: str, version: str, staged: Path) -> Path:
        """Make the files in `staged` a version that no reader sees yet.

        An existing version is left as it is: versions are immutable and named by their content.
        """
        target = self.path(table, version)
        if not target.exists():
            _sync_tree(staged)
            staged.rename(target)
            sync(target.parent)
        return target

    def point(self, table: str, version: str, upon: str | None) -> None:
        """Move the table's pointer to a kept version, from the version `upon` which it was built.

        Raises Superseded when another writer has moved the pointer in the meantime.
        """
        with self._alone(table):
            if (current := self.version(table)) not in (upon, version):
                raise Superseded(f"{table}: another run has replaced {upon} by {current} in the meantime; run again")
            self._move(table, version)

    def version(self, table: str) -> str | None:
        """The current version's name, or None when nothing was published.

        Raises EvergreenError when the pointer names no version.
        """
        pointer = self._folder(table) / _POINTER
        if not pointer.exists():
            return None
        named = pointer.read_text(errors="replace")
        if not _NAME.fullmatch(named) or not self.path(table, named).is_dir():
            raise EvergreenError(f"{pointer} is damaged: it names {named[:40]!r}; {self._remedy(table)}")
        return named

    def current(self, table: str) -> Path:
        """The current version's folder. Raises NotPublished."""
        version = self.version(table)
        if version is None:
            raise NotPublished(f"{table} has no publication yet; materialize it first")
        return self.path(table, version)

    def path(self, table: str, version: str) -> Path:
        """The folder of a version, or of the one that took its place, whether it exists or not."""
        folder = self._folder(f"{table}/{version}")
        while not folder.exists() and (by := folder.parent / _REPLACED / folder.name).exists():
            folder = self._folder(f"{table}/{by.read_text()}")
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
            self._move(table, by)
        self.remove(table, version)

    def remove(self, table: str, version: str) -> None:
        """Remove a version that no reader needs. It is never there in part."""
        gone = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._folder(table)))
        self._folder(f"{table}/{version}").rename(gone / version)
        shutil.rmtree(gone)

    def tables(self, prefix: str) -> list[str]:
        """The published tables directly under a prefix, sorted: `tables("predictions")` lists its as-of days."""
        return sorted(p.parent.relative_to(self.root).as_posix() for p in (self.root / prefix).glob(f"*/{_POINTER}"))

    def _tables_in(self, folder: Path) -> list[str]:
        """A folder of the lake is a table, or has a table for each as-of."""
        days = [day.name for day in _folders(folder) if _AS_OF.fullmatch(day.name)]
        return [f"{folder.name}/{day}" for day in days] or [folder.name]

    def _remedy(self, table: str) -> str:
        versions = [path for path in self._folder(table).iterdir() if path.is_dir() and path.name[0] != "."]
        newest = max(versions, key=lambda path: path.stat().st_mtime, default=None)
        return f"write the newest version's name into it, {newest.name}" if newest else "delete it, and run again"

    def _alone(self, table: str) -> AbstractContextManager[None]:
        return locked(self.root / ".writing" / f"{table}.lock", table)

    def _move(self, table: str, version: str) -> None:
        if not self.path(table, version).is_dir():
            raise EvergreenError(f"{table} has no version {version}")
        write_atomically(self._folder(table) / _POINTER, self.path(table, version).name)

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise EvergreenError(f"{name!r} is not the name of a table")
        return self.root / name


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
