"""The home: all state of a domain, in a folder or, where machines share it, on S3 and in a database.

<home>/lake                           its tables (`assets.lake`)
<home>/running/<name>.lock            held by each process at work in the home
"""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from assets.database import Leases
from assets.exceptions import SettingsError
from assets.lake import Lake
from assets.locks import alive, has_died, is_alive, locked
from assets.objects import Objects
from assets.pages import Pages
from assets.settings import EMBEDDED, Domain, Environment, domain_folder, load_domain, load_environment
from assets.shared import SharedStore
from assets.writing import write_atomically

__all__ = ["Home"]

_ADDRESS, _OWNER, _FORGOTTEN = "OBJECTS", "DOMAIN", "FORGOTTEN"
_DOOR, _REMOVING = "exclusive/door", "removing what nothing needs"
_DERIVED = (
    *("cache/tokens", "cache/texts", "cache/twins", "checkpoints", "replay"),
    *("lake/**/.staging-*", "lake/**/.*.parts", "lake/**/.CURRENT-*", "lake/**/.replaced/.*-*", "lake/**/.fetched-*"),
    *("mlflow/**/.*.parquet-*", "served/**/.*.jsonl-*", "warehouse/warehouse.duckdb*"),
)
"""What has records in it, and can be made again from the lake, or is of a process that was killed."""


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
        elif not self.shared.create(_OWNER, owner.encode()):
            self.require_known()  # another machine's claim was faster

    def _owner(self) -> str | None:
        """The domain, and on a second line the cadence, of whoever claimed the home; None if nobody did."""
        if self.objects is not None:
            stored = self.shared.read(_OWNER)
            return stored.content.decode() if stored else None
        return (self.root / _OWNER).read_text() if (self.root / _OWNER).exists() else None

    @property
    def domain(self) -> Domain:
        """The domain of the records in this home."""
        return load_domain()

    @cached_property
    def lake(self) -> Lake:
        self._require_address()
        if self.objects is None:
            return Lake(self.root / "lake")
        if not (self.root / _ADDRESS).exists():
            write_atomically(self.root / _ADDRESS, self.objects)
        lake = Lake(self.root / "lake", SharedStore(self.shared.under("lake")))
        self._catch_up(lake)
        return lake

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
        return Pages(self.reports, self.shared.under("reports") if self.objects else None)

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
                stack.enter_context(self._inside(leases, f"running/{name}"))
            else:
                with self._door(shared=True):
                    stack.enter_context(alive(self.running(name)))
            self.catch_up()
            yield

    @contextmanager
    def _inside(self, leases: Leases, name: str) -> Iterator[None]:
        """Whoever closes the door sees this lease, or its holder the closed door: each looks after it has written."""
        while True:
            with leases.hold(name):
                if not leases.held(_DOOR):
                    yield
                    return
            with leases.hold(_DOOR, _REMOVING):
                pass

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
    def shared(self) -> Objects:
        """The objects of a home that machines share."""
        return Objects.at(str(self.objects))

    @property
    def leases(self) -> Leases | None:
        """The leases of a home that machines share; None for one on a single machine, which has files with locks."""
        return Leases(self.environment.database) if self.environment.database else None

    @contextmanager
    def closed(self, own: str | None = None) -> Iterator[tuple[str, ...]]:
        """Let no process enter `in_use`; yields the names of those inside, without the caller's `own` name.

        Files and leases of killed processes no longer count, and stay.
        """
        if leases := self.leases:
            with leases.hold(_DOOR, _REMOVING):
                names = (name.removeprefix("running/") for name in leases.held("running/"))
                yield tuple(name for name in names if name != own)
            return
        with self._door(shared=False):
            inside = (path for path in (self.root / "running").glob("*.lock") if path.stem != own)
            yield tuple(sorted(path.stem for path in inside if is_alive(path)))

    def catch_up(self) -> None:
        """Remove from this machine's folder what has records that were forgotten on another machine.

        It costs a request, so whoever works with the home does so once, at the beginning: nobody forgets while others
        are `in_use`. Pages for people, who are not, are each made after it.
        """
        if self.objects is not None:
            self._catch_up(self.lake)

    def _catch_up(self, lake: Lake) -> None:
        here, told = self.root / _FORGOTTEN, self.shared.read(_FORGOTTEN)
        if told is None or _text(here) == told.content.decode():
            return
        with locked(self.root / ".locks" / "forgotten.lock"):
            if _text(here) != told.content.decode():
                self.drop_derived()
                for path in (self.root / "served" / "source").rglob("*.jsonl"):
                    if lake.version(f"served/{path.stem}"):  # which it is made from again
                        path.unlink()
                lake.trim(math.inf)
                write_atomically(here, told.content.decode())

    def drop_derived(self) -> None:
        """Remove what can be made again from the lake, wherever a record may be in it."""
        for path in [found for pattern in _DERIVED for found in self.root.glob(pattern)]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def tell_forgotten(self, version: str) -> None:
        """Let every machine `catch_up` with a version of what is forgotten. Again, it changes nothing."""
        if self.objects is not None:
            self.shared.replace(_FORGOTTEN, version.encode(), self.shared.read(_FORGOTTEN))

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

    def _door(self, *, shared: bool) -> AbstractContextManager[None]:
        return locked(self.root / "running" / ".door", _REMOVING, shared=shared)


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
