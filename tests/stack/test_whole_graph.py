"""The whole graph on the stack gives what it gives on one machine, whichever machine runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from assets.home import Home
from assets.settings import load_environment
from tests.stack.conftest import new_stack

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("redis_server")]

EVERGREEN = Path(sys.executable).with_name("evergreen")
SIMULATION = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7"]


@dataclass(frozen=True)
class Case:
    """Records, and the nights that are lived on them."""

    sources: tuple[str, ...]
    nights: tuple[str, ...]


@dataclass(frozen=True)
class Lived:
    """A home after its nights, and what each run said."""

    home: Home
    said: list[dict[str, Any]]


def evergreen(home: Path, *arguments: str, **variables: str) -> str:
    environment = os.environ | {"EVERGREEN_HOME": str(home)} | variables
    done = subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module", params=["simulated", "real"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    if request.param == "real":
        folder = request.getfixturevalue("cfpb")
        return Case(tuple(map(str, sorted(folder.glob("*.csv.gz")))), ("2023-06-01",))
    folder = tmp_path_factory.mktemp("simulated") / "source"
    evergreen(folder, "simulate", "--output", str(folder), *SIMULATION)
    return Case((str(folder),), ("2024-07-01", "2024-07-02"))


def live(homes: Iterable[Path], case: Case, **variables: str) -> list[dict[str, Any]]:
    """What comes of the nights, each on a machine with a folder of its own."""
    sources = [argument for source in case.sources for argument in ("--source", source)]
    return [
        json.loads(evergreen(home, "run", *sources, "--as-of", night, "--json", **variables))
        for home, night in zip(homes, case.nights, strict=False)
    ]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, case: Case) -> Lived:
    root = tmp_path_factory.mktemp("embedded") / "home"
    return Lived(Home(root), live(repeat(root), case))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, case: Case) -> Iterator[Lived]:
    """Seen from a third machine."""
    folder = tmp_path_factory.mktemp("machines")
    with new_stack(folder / "servers") as stack, pytest.MonkeyPatch.context() as patch:
        said = live((folder / "one", folder / "two"), case, **stack.variables)
        for name, value in stack.variables.items():
            patch.setenv(name, value)
        yield Lived(Home(folder / "three", load_environment()), said)


def test_the_nights_end_alike(embedded: Lived, shared: Lived) -> None:
    for here, there in zip(embedded.said, shared.said, strict=True):
        for part in ("records", "snapshot", "champion", "drift"):
            assert there[part] == here[part], part
        assert there["verdict"]["decision"] == here["verdict"]["decision"]
    assert shared.said[0]["verdict"]["decision"] == "promote"


def test_every_record_is_answered_alike(embedded: Lived, shared: Lived, case: Case) -> None:
    for night in case.nights:
        here, there = (lived.home.lake.current(f"predictions/{night}") for lived in (embedded, shared))
        assert there.name == here.name
        tables = [pq.read_table(folder / "predictions.parquet").sort_by("record_id") for folder in (here, there)]
        assert tables[0].num_rows > 100
        assert tables[0].equals(tables[1])


def test_what_was_published_is_the_same_by_content(embedded: Lived, shared: Lived, case: Case) -> None:
    for table in ("raw_records", "marts", f"training_set/{case.nights[0]}", f"evaluation/{case.nights[0]}"):
        assert shared.home.lake.version(table) == embedded.home.lake.version(table), table
