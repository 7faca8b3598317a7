"""`evergreen doctor`: looks at the machine, the home, the settings and the sources, and says what to do."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal
from uuid import uuid4

import psutil
import typer

from assets.addresses import PORTS
from assets.as_of import date_of, shifted
from assets.exceptions import SettingsError, SourceError, describe
from assets.home import Home
from assets.ingestion.reading import EXPLAINED, contents
from assets.ingestion.sources import SourceObject, list_objects
from assets.objects import Objects, Stored
from assets.registry.registry import Registry
from assets.registry.shared_ledger import ledger_of
from assets.registry.verification import verify
from assets.settings import (
    CONFIGS,
    load_domain,
    load_environment,
    load_ledger_settings,
    load_policy,
    load_settings,
    profiles,
)
from pipelines.faults import damaged_database, full_disk

__all__ = ["Finding", "examine", "show"]

State = Literal["ok", "warn", "fail"]
_COLOURS: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "red"}
_GB = 1e9
_DISK, _MEMORY = 2 * _GB, 4 * _GB
"""Bytes. The command alone takes 1.7 GB of memory for a first run of the profile quick, beside its training worker."""
_QUIET_DAYS = 60
"""Days without a record after which drift and test rows have little to look at."""
_GPU = Path("/dev/nvidia0")


@dataclass(frozen=True)
class Finding:
    """What one look found."""

    name: str
    state: State
    found: str
    to_do: str = ""

    @property
    def line(self) -> str:
        """Without its state."""
        return f"{self.name:<11}{'; '.join(filter(None, [self.found, self.to_do]))}"


def examine(home: Callable[[], Home], sources: Sequence[str], profile: str) -> Iterator[Finding]:
    """Every finding, in order; what raises an error is a finding, too. Nothing is written, but an object for a moment.

    `home` may raise an error. What lies in a home is looked at when it can be used.
    """
    yield _look("settings", lambda: _settings(profile))
    if address := _shared():
        yield (reached := _look("objects", lambda: _objects(address)))
        if reached.state == "fail":
            return
    yield (found := _look("home", lambda: _home(home())))
    yield _look("disk", lambda: _disk(home()))
    yield _look("memory", _memory)
    yield _look("GPU", _gpu)
    yield _look("ports", _ports)
    yield _look("sources", lambda: _sources(sources, profile))
    if found.state != "fail":
        yield _look("databases", lambda: _databases(home()))
        yield _look("ledger", lambda: _ledger(home()))
        yield _look("registry", lambda: _registry(home()))
        yield _look("clocks", lambda: _clocks(home(), sources, profile))


def _look(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:
        return Finding(name, "fail", describe(error))


def _settings(profile: str) -> Finding:
    load_environment()
    for name in {*profiles(), profile}:
        load_settings(name)
    for path in (CONFIGS / "policies").glob("*.yaml"):
        load_policy(path.stem)
    load_ledger_settings()
    return Finding("settings", "ok", f"the domain {load_domain().name}, profiles {', '.join(profiles())}")


def _shared() -> str | None:
    """Where machines share a home; None for a home in a folder, and where the settings do not say."""
    with suppress(SettingsError):
        return load_environment().objects
    return None


def _objects(address: str) -> Finding:
    """Whether the prefix can be read, and written on condition: without that, machines overwrite each other."""
    objects, probe = Objects.at(address, attempts=2), f".probe-{uuid4().hex}"
    try:
        made, again = objects.create(probe, b"1"), objects.create(probe, b"2")
        moved = objects.replace(probe, b"3", Stored(b"2", '"another"'))
        kept = objects.read(probe)
    finally:
        objects.remove([probe])
    if not made or again or moved or kept is None or kept.content != b"1":
        advice = "use a server that honours If-Match and If-None-Match"
        return Finding("objects", "fail", f"{address}: a write on condition overwrites what is there", advice)
    return Finding("objects", "ok", f"{address} can be read, and written on condition")


def _home(home: Home) -> Finding:
    home.require_known()
    folder = _nearest(home.root)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK) or (folder == home.root and not _is_ours(folder)):
        return Finding("home", "fail", f"{folder} is another user's", "run as its owner, or set EVERGREEN_HOME")
    with tempfile.TemporaryFile(dir=folder):  # without a name, or gone again
        pass
    if folder != home.root:
        return Finding("home", "ok", f"{home.root}, which the first run makes")
    if folder.stat().st_mode & 0o077:
        return Finding("home", "warn", f"others may look into {folder}", f"chmod -R go= {folder}")
    return Finding("home", "ok", f"{folder}, of the domain {home.domain.name}")


def _is_ours(folder: Path) -> bool:
    return folder.stat().st_uid == os.geteuid()


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def _disk(home: Home) -> Finding:
    if full := full_disk(home):
        return Finding("disk", "fail", full)
    free = shutil.disk_usage(_nearest(home.root)).free
    found = f"{free / _GB:.1f} GB free for {home.root}"
    return Finding("disk", "ok", found) if free > _DISK else Finding("disk", "warn", found, "free some space")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    found = f"{free / _GB:.1f} GB available"
    if free > _MEMORY:
        return Finding("memory", "ok", found)
    return Finding("memory", "warn", found, "end other programs, or train with a smaller profile")


def _gpu() -> Finding:
    if not _GPU.exists():
        return Finding("GPU", "ok", "none; models train on the CPU")
    import torch  # takes seconds, which a machine without a GPU is spared

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", ", ".join(names))
    built = f"there is one, but torch {version('torch')} cannot use it"
    return Finding("GPU", "warn", built, "delete .venv and run make again: it installs the build for this machine")


def _ports() -> Finding:
    taken = [str(port) for port in PORTS.values() if _listens(port)]
    if not taken:
        return Finding("ports", "ok", f"{', '.join(map(str, PORTS.values()))} are free")
    to_do = "nothing, if that is `evergreen ui`; otherwise it takes free ones"
    return Finding("ports", "warn", f"in use: {', '.join(taken)}", to_do)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _sources(sources: Sequence[str], profile: str) -> Finding:
    if not sources:
        return Finding("sources", "ok", "none given", "--source or EVERGREEN_SOURCES has them looked at")
    listing = list_objects(sources)
    last = listing.objects[-1]
    _beginning(last, profile)
    found = f"{len(listing.objects):,} objects; {last.key} has the fields that it must have"
    if listing.not_read:
        return Finding("sources", "warn", f"{found}; {len(listing.not_read)} other files", "rename those to be read")
    return Finding("sources", "ok", found)


def _beginning(source: SourceObject, profile: str) -> list[str]:
    """When the first records of an object came in, as it says. Raises SourceError when they cannot be read."""
    domain, times = load_domain(), list[str]()
    with tempfile.TemporaryDirectory(prefix="evergreen-doctor-") as folder, source.fetch(Path(folder)) as fetched:
        settings = load_settings(profile).ingestion
        with contents(fetched.path, source.key, fetched.sha256, settings, domain, whole=True) as units:
            for unit in units:
                rows = next(unit.rows(), None)
                if rows is not None and rows.header_fault:
                    raise SourceError(f"{unit.key}: {rows.header_fault}; {EXPLAINED}")
                if rows is None or not len(rows.records):
                    refused = rows.rejects[0].reason if rows and rows.rejects else "it is empty"
                    raise SourceError(f"{unit.key}: no record can be read: {refused}")
                times += rows.records[domain.received.field].drop_null().to_pylist()
    return times


def _databases(home: Home) -> Finding:
    damage = damaged_database(home)
    return Finding("databases", "fail", damage) if damage else Finding("databases", "ok", "every one can be read")


def _ledger(home: Home) -> Finding:
    verified = verify(Registry(home))
    if verified.problem:
        return Finding("ledger", "fail", verified.problem, "docs/operations.md, The ledger, says how to undo it")
    return Finding("ledger", "ok", f"{verified.entries} entries as they were written")


def _registry(home: Home) -> Finding:
    registry = Registry(home)
    if problem := registry.problem():
        return Finding("registry", "fail", problem, "`evergreen rebuild-registry` restores what is missing")
    champion = registry.champion()
    who = f"version {champion.version} is the champion, and intact" if champion else "no champion yet"
    return Finding("registry", "ok", f"{len(registry.versions())} versions; {who}")


def _clocks(home: Home, sources: Sequence[str], profile: str) -> Finding:
    newest = ledger_of(home).newest_day()
    if not newest:
        return Finding("clocks", "ok", "no run yet")
    now = f"{datetime.now(UTC):%Y-%m-%dT%H}"
    if newest > now:
        to_do = "set the clock; the schedule and the sensors follow it"
        return Finding("clocks", "warn", f"the newest as-of {newest} is after this machine's {now} UTC", to_do)
    return _compared(newest, _last_day(sources, profile)) if sources else Finding("clocks", "ok", _of(newest))


def _compared(newest: str, last: date | None) -> Finding:
    if last is None:
        return Finding("clocks", "ok", f"{_of(newest)}; no day can be read in the sources")
    found = f"{_of(newest)}, the newest file of the sources is of {last}"
    if last > date_of(newest):
        return Finding("clocks", "warn", found, f"run with --as-of {shifted(str(last), 1)} to learn from it")
    if (date_of(newest) - last).days > _QUIET_DAYS:
        return Finding("clocks", "warn", found, "add newer files: drift and test rows look at the last weeks")
    return Finding("clocks", "ok", found)


def _of(newest: str) -> str:
    return f"the newest as-of is {newest}"


def _last_day(sources: Sequence[str], profile: str) -> date | None:
    """The last day among the first records of the last object; None when none can be read."""
    domain = load_domain()
    formats = domain.source.fields[domain.received.field].formats
    days = (_day(text, formats) for text in _beginning(list_objects(sources).objects[-1], profile))
    return max(filter(None, days), default=None)


def _day(text: str, formats: Sequence[str]) -> date | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text).date()
    for written in formats:
        with suppress(ValueError):
            return datetime.strptime(text, written).date()
    return None


def show(finding: Finding) -> None:
    """Write a finding to stdout, on one line; its state is coloured on a terminal."""
    if not sys.stdout.isatty():
        typer.echo(f"{finding.state:<6}{finding.line}")
        return
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble((f"{finding.state:<6}", _COLOURS[finding.state]), finding.line)
    Console().print(line, soft_wrap=True)
