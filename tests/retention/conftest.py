"""A home after some nights, as its stages leave it, with a line in the place of a million."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from assets import objects
from assets.home import Home
from assets.lake import Lake
from assets.objects import Objects
from assets.settings import RetentionSettings, load_settings
from assets.writing import write_atomically

FIRST = date(2024, 3, 1)


def _day(night: int) -> str:
    return (FIRST + timedelta(night)).isoformat()


def _put(lake: Lake, table: str, version: str, **files: str) -> None:
    with lake.staging(table) as staged:
        for name, text in files.items():
            (staged / (f"{name}.html" if name == "report" else f"{name}.json")).write_text(text)
        lake.publish(table, version, staged)


def spend_night(home: Home, night: int) -> None:
    """What a night leaves: an object and its rows, marts, an audit, predictions and what is made of them."""
    lake, today, marts = home.lake, _day(night), f"m{night:03}"
    with lake.staging("raw_records") as staged:
        known = lake.current("raw_records") if lake.version("raw_records") else None
        for part in ("records", "rejects"):
            (staged / part).mkdir()
            for path in (known / part).iterdir() if known else ():
                os.link(path, staged / part / path.name)
            (staged / part / f"{night}.parquet").write_text(f"{part} of {night}" * 200)
        (staged / "objects.parquet").write_text(str(night))
        lake.publish("raw_records", f"r{night:03}", staged)
    _put(lake, "marts", marts, fct_records=marts * 1250)
    write_atomically(home.warehouse / "BUILT", marts)
    _put(lake, f"mart_audit/{today}", "a", audit=marts)
    _put(lake, f"predictions/{today}", "p", manifest=json.dumps({"marts_version": marts}))
    for name in ("performance", "retraining_decision"):
        _put(lake, f"{name}/{today}", "v", numbers="{}")
    _put(lake, f"drift/{today}", "v", drift="{}", report="page" * 1000)
    page, picture = (
        home.reports / "evidently" / f"{today}.html",
        home.pictures / "challenger_evaluation" / today / "a.png",
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.hardlink_to(lake.current(f"drift/{today}") / "report.html")
    write_atomically(picture, "picture")
    for path in (page, picture):
        home.pages.put(path)


def _listing(home: Home) -> list[str]:
    """Every file of the home, but for locks and the ledger."""
    root = home.root
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(name for name in found if not name.endswith((".lock", ".door")) and "ledger." not in name)


@pytest.fixture
def policy() -> RetentionSettings:
    """Little is kept: three publications, five days, pages of two."""
    few = {"publications": 3, "days": 5, "page_days": 2, "trainings": 2, "rollbacks": 1, "reproducible": 1, "runs": 2}
    return load_settings("quick").retention.model_copy(update=few | {"checkpoints": 1, "replays": 1, "manifests": 1})


@pytest.fixture
def nights(home: Home) -> Callable[[int], Home]:
    """The home after so many nights."""

    def pass_by(count: int) -> Home:
        for night in range(count):
            spend_night(home, night)
        return home

    return pass_by


@pytest.fixture
def spend(home: Home) -> Callable[[int], None]:
    return partial(spend_night, home)


@pytest.fixture
def listing() -> Callable[[Home], list[str]]:
    return _listing


@contextmanager
def _process(home: Home, code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process beside; it ends when this does."""
    command = [sys.executable, "-c", f"import sys\nfrom pathlib import Path\nfrom assets.home import Home\n{code}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"EVERGREEN_HOME": str(home.root)}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as started:  # type: ignore[call-overload]
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def beside(home: Home) -> Callable[[str], object]:
    return partial(_process, home)


Traces = dict[str, set[str]]


def _readings(path: Path) -> Iterator[bytes]:
    """All that a file says: its bytes, and its cells if it is of a kind that packs them."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        yield repr(pq.read_table(path).to_pylist()).encode()
    elif data.startswith(b"SQLite format 3\0"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            for (name,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
                yield b"\n".join(map(_packed, chain(*database.execute(f'select * from "{name}"'))))
    elif data[8:12] == b"DUCK":
        with duckdb.connect(str(path), read_only=True) as database:
            for (name,) in database.execute("select table_name from duckdb_tables()").fetchall():
                yield repr(database.execute(f'from "{name}"').fetchall()).encode()
    elif path.suffix in (".npz", ".npy"):
        loaded = np.load(path, allow_pickle=False)
        for array in [loaded] if path.suffix == ".npy" else loaded.values():
            yield repr(array.tolist()).encode() if array.dtype.kind in "USO" else array.tobytes()
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as tensors:
            yield repr([tensors.metadata(), *tensors.keys()]).encode()
    elif path.suffix in (".gz", ".zip"):
        raise AssertionError(f"{path} is packed, and nothing here looks into it")


def _packed(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()


def _traces(folder: Path, needles: Collection[str]) -> Traces:
    """The files under a folder that say one of some texts, decoded in whatever way, and which."""
    written = {
        needle: {needle.encode(), json.dumps(needle)[1:-1].encode(), needle.encode("utf-32-le")} for needle in needles
    }
    found: Traces = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        for reading in _readings(path):
            said = {needle for needle, forms in written.items() if any(form in reading for form in forms)}
            if said:
                found.setdefault(path.relative_to(folder).as_posix(), set()).update(said)
    return found


@pytest.fixture(scope="session")
def traces() -> Callable[[Path, Collection[str]], Traces]:
    return _traces


def steps_on_s3(act: Callable[[], object], folder: Path, kill_at: int | None = None) -> int:
    """The exit code of a process of its own that does something, and is killed when it comes to a step.

    Steps are objects that are written or removed. Without one, the number of the steps.
    """
    counted = folder / "steps"
    child = os.fork()
    if child == 0:
        with _Striking(kill_at) as striking:
            act()
        counted.write_text(str(striking.seen))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if kill_at is not None else int(counted.read_text())


@dataclass
class _Striking:
    """Counts what is done to objects, and kills the process at one of these steps."""

    kill_at: int | None
    seen: int = 0

    def __enter__(self) -> "_Striking":
        objects._client_of.cache_clear()  # connections are their process's own
        create, upload, remove = Objects.create, Objects.upload, Objects.remove

        def remove_each(these: Objects, gone: Iterable[str]) -> None:
            for name in list(gone):
                self.step()
                remove(these, [name])

        Objects.create = lambda *given: (self.step(), create(*given))[1]  # type: ignore[method-assign]
        Objects.upload = lambda *given: (self.step(), upload(*given))[1]  # type: ignore[method-assign]
        Objects.remove = remove_each  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        """The process ends with it."""

    def step(self) -> None:
        if self.seen == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1
