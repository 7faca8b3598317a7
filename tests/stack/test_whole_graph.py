"""The whole graph on the stack gives what it gives on one machine, whichever machine runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from assets.home import Home
from assets.settings import load_environment
from pipelines.stack import Stack

EVERGREEN = Path(sys.executable).with_name("evergreen")
SIMULATION = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7"]
NIGHTS = ("2024-07-01", "2024-07-02")


def evergreen(home: Path, *arguments: str, **variables: str) -> str:
    environment = os.environ | {"EVERGREEN_HOME": str(home)} | variables
    done = subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("simulated") / "source"
    evergreen(folder, "simulate", "--output", str(folder), *SIMULATION)
    return str(folder)


def nights(homes: list[Path], source: str, **variables: str) -> list[dict[str, Any]]:
    """What comes of two nights, each on a machine with a folder of its own."""
    return [
        json.loads(evergreen(home, "run", "--source", source, "--as-of", night, "--json", **variables))
        for home, night in zip(homes, NIGHTS, strict=True)
    ]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, source: str) -> tuple[Home, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("embedded") / "home"
    return Home(root), nights([root, root], source)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, source: str, stack: Stack) -> tuple[Home, list[dict[str, Any]]]:
    """Seen from a third machine."""
    folder = tmp_path_factory.mktemp("machines")
    found = nights([folder / "one", folder / "two"], source, **stack.variables)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.variables.items():
            patch.setenv(name, value)
        yield Home(folder / "three", load_environment()), found


def test_the_nights_end_alike(
    embedded: tuple[Home, list[dict[str, Any]]], shared: tuple[Home, list[dict[str, Any]]]
) -> None:
    for here, there in zip(embedded[1], shared[1], strict=True):
        for part in ("records", "snapshot", "champion", "drift"):
            assert there[part] == here[part], part
        assert there["verdict"]["decision"] == here["verdict"]["decision"]
    assert shared[1][0]["verdict"]["decision"] == "promote"


def test_every_record_is_answered_alike(
    embedded: tuple[Home, list[dict[str, Any]]], shared: tuple[Home, list[dict[str, Any]]]
) -> None:
    for night in NIGHTS:
        here, there = (home.lake.current(f"predictions/{night}") for home, _ in (embedded, shared))
        assert there.name == here.name
        tables = [pq.read_table(folder / "predictions.parquet").sort_by("record_id") for folder in (here, there)]
        assert tables[0].num_rows > 100
        assert tables[0].equals(tables[1])


def test_what_was_published_is_the_same_by_content(
    embedded: tuple[Home, list[dict[str, Any]]], shared: tuple[Home, list[dict[str, Any]]]
) -> None:
    for table in ("raw_records", "marts", f"training_set/{NIGHTS[0]}", f"evaluation/{NIGHTS[0]}"):
        assert shared[0].lake.version(table) == embedded[0].lake.version(table), table
