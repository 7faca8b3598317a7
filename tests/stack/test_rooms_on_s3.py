"""Machines that take turns on one prefix publish what one machine with a folder does, night by night."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from shutil import copy, rmtree
from typing import Any

import pytest

from assets.exceptions import Superseded
from assets.features.snapshot import build_training_set, load_snapshot
from assets.hashing import hash_tree
from assets.home import Home
from assets.ingestion.landing import ingest
from assets.settings import Settings, load_settings
from assets.validation.audit import audit, publish
from assets.warehouse.project import build_marts
from complaints.simulation import simulate
from tests.stack.conftest import home_on

pytestmark = pytest.mark.stack

NIGHTS = ("2024-02-20", "2024-02-21", "2024-02-22", "2024-02-23")


@pytest.fixture
def settings() -> Settings:
    return load_settings("quick")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated records, a file a day."""
    folder = tmp_path_factory.mktemp("records")
    simulate(folder, date(2024, 1, 1), date(2024, 2, 22), 60, 7, "calm", daily=True)
    return folder


@pytest.fixture
def arrive(records: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """The sources of a night: the files of the days before it."""
    folder = tmp_path / "arrived"
    folder.mkdir()

    def come(night: str) -> list[str]:
        for path in records.rglob("*.csv*"):
            if path.stem[-len(night) :] < night and not (folder / path.name).exists():
                copy(path, folder)
        return [str(folder)]

    return come


def land(home: Home, sources: list[str], night: str, settings: Settings) -> None:
    home.claim()
    ingest(sources, home.lake, settings.ingestion, home.domain, night)
    build_marts(home)


def spend(home: Home, sources: list[str], night: str, settings: Settings) -> tuple[str, ...]:
    """A night up to the training set; returns what it has published, by name and content."""
    land(home, sources, night, settings)
    publish(home, audit(home, night, settings.warehouse), settings.warehouse)
    build_training_set(home, night, settings.snapshot)
    tables = ("raw_records", "marts", f"training_set/{night}")
    return tuple(f"{table} {home.lake.version(table)} {hash_tree(home.lake.current(table))}" for table in tables)


def test_machines_that_take_turns_publish_what_one_does(
    seaweed: Any, tmp_path: Path, arrive: Callable[[str], list[str]], settings: Settings
) -> None:
    folder = Home(tmp_path / "folder")
    for turn, night in enumerate(NIGHTS):
        sources = arrive(night)
        shared = home_on(tmp_path / f"machine-{turn % 2}", f"{seaweed.url}/team")
        if night == NIGHTS[-1]:
            rmtree(shared.root)  # a new machine
        assert spend(shared, sources, night, settings) == spend(folder, sources, night, settings), night
    another = home_on(tmp_path / "another", f"{seaweed.url}/team")
    for night in NIGHTS:
        assert load_snapshot(another.lake, night).id == load_snapshot(folder.lake, night).id
    assert not list(another.root.glob("warehouse"))


def test_marts_of_older_records_never_replace_another_machines(
    seaweed: Any, tmp_path: Path, arrive: Callable[[str], list[str]], settings: Settings
) -> None:
    slow, fast = (home_on(tmp_path / name, f"{seaweed.url}/team") for name in ("slow", "fast"))
    spend(slow, arrive(NIGHTS[0]), NIGHTS[0], settings)
    land(slow, arrive(NIGHTS[1]), NIGHTS[1], settings)
    newest = spend(fast, arrive(NIGHTS[2]), NIGHTS[2], settings)
    with pytest.raises(Superseded, match=r"marts: another run has replaced .* in the meantime; run again"):
        audit(slow, NIGHTS[1], settings.warehouse)
    assert f"marts {fast.lake.version('marts')}" in newest[1]
    assert spend(slow, arrive(NIGHTS[2]), NIGHTS[2], settings) == newest
