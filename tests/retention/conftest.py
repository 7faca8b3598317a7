"""A home after some nights, as its stages leave it, with a line in the place of a million."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial

import pytest

from assets.lake import Home, Lake, write_atomically
from assets.settings import RetentionSettings, load_settings

FIRST = date(2024, 3, 1)


def _day(night: int) -> str:
    return (FIRST + timedelta(night)).isoformat()


def _put(lake: Lake, table: str, version: str, **files: str) -> None:
    with lake.staging(table) as staged:
        for name, text in files.items():
            (staged / f"{name}.json").write_text(text)
        lake.publish(table, version, staged)


def _spend(home: Home, night: int) -> None:
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
    _put(lake, "marts", marts, fct_records="x" * 5000)
    write_atomically(home.warehouse / "BUILT", marts)
    _put(lake, f"mart_audit/{today}", "a", audit=marts)
    _put(lake, f"predictions/{today}", "p", manifest=json.dumps({"marts_version": marts}))
    for name in ("performance", "retraining_decision"):
        _put(lake, f"{name}/{today}", "v", numbers="{}")
    _put(lake, f"drift/{today}", "v", drift="{}")
    page = lake.current(f"drift/{today}") / "report.html"
    page.write_text("page" * 1000)
    (home.reports / "evidently").mkdir(parents=True, exist_ok=True)
    (home.reports / "evidently" / f"{today}.html").hardlink_to(page)
    write_atomically(home.pictures / "challenger_evaluation" / today / "a.png", "picture")


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
            _spend(home, night)
        return home

    return pass_by


@pytest.fixture
def spend(home: Home) -> Callable[[int], None]:
    return partial(_spend, home)


@pytest.fixture
def listing() -> Callable[[Home], list[str]]:
    return _listing


@contextmanager
def _process(home: Home, code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process beside; it ends when this does."""
    command = [sys.executable, "-c", f"import sys\nfrom pathlib import Path\nfrom assets.lake import Home\n{code}"]
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
