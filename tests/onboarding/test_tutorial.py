"""docs/your-own-data.md, done as it says: a file that no domain resembles becomes a champion by YAML and SQL alone."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-data.md").read_text()
EVERGREEN = Path(sys.executable).with_name("evergreen")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def commands() -> Iterator[list[str]]:
    for block in blocks("sh"):
        yield from (words for line in block.splitlines() if (words := shlex.split(line))[0] == "evergreen")


def command(name: str) -> list[str]:
    """The first command of the page that does this."""
    return next(words for words in commands() if name in words)


def apply(folder: Path, diff: str) -> None:
    """Replace the lines of a file that begin as the page's removed ones do; all of them are there."""
    head, *lines = diff.splitlines()
    path = folder / head.removeprefix("--- ")
    text = path.read_text().splitlines()
    for line in lines:
        if line.startswith("-"):
            (place,) = [n for n, there in enumerate(text) if there.startswith(line[1:])]
            del text[place]
        else:
            text.insert(place, line[1:])
            place += 1
    path.write_text("\n".join(text) + "\n")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, letters: Path, engine: list[tuple[str, int]]) -> Path:
    """A folder with nothing in it but the file, in which the page's commands are run."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(letters, folder / "letters.csv")
    return folder


def run(desk: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("EVERGREEN_")}
    done = subprocess.run([EVERGREEN, *words[1:]], cwd=desk, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def drafted(desk: Path) -> str:
    """What `init` says of the file; the page's edits are made after it."""
    said = run(desk, command("init")).stdout
    for diff in blocks("diff"):
        apply(desk, diff)
    for model in blocks("sql"):
        path = desk / model.splitlines()[0].removeprefix("-- ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(model)
    return said


@pytest.fixture(scope="module")
def first(desk: Path, drafted: str) -> dict[str, Any]:
    return json.loads(run(desk, [*command("run"), "--json"]).stdout)


def test_the_file_is_drafted_confirmed_and_checked(desk: Path, drafted: str) -> None:
    assert "Confirm Topic: that this is what a model should answer" in drafted
    done = run(desk, [*command("check"), "--json"])
    sample = json.loads(done.stdout)
    assert sample["records"] == sample["used"] == 4_000
    assert len(sample["labels"]) == 30
    assert sum(sample["labels"].values()) == 4_000
    assert sample["labels"]["parcel_lost"] > sample["labels"]["parcel_wet"] / 2
    assert not sample["unmapped"]
    assert not sample["rejects"]
    assert sample["delay_days"] == [0, 0]
    assert shlex.join(command("run")).split(" run ")[1] in done.stderr


@pytest.mark.slow
def test_the_graph_takes_it_to_a_champion(desk: Path, engine: list[tuple[str, int]], first: dict[str, Any]) -> None:
    assert first["verdict"]["decision"] == "promote"
    assert first["champion"]["version"] == "1"
    metrics, baseline = (first["challenger"][name] for name in ("metrics", "baseline"))
    assert metrics["accuracy"] > max(0.8, baseline["accuracy"])
    run(desk, command("score"))
    answers = pyarrow.csv.read_csv(desk / "answers.csv")
    assert answers.num_rows == 4_000
    assert set(answers["predicted"].to_pylist()) <= set(_labels(desk))
    assert (desk / "letters" / ".evergreen" / "lake").is_dir()
    assert _engine() == engine


@pytest.mark.slow
def test_a_second_run_changes_nothing_and_a_replay_compares_policies(desk: Path, first: dict[str, Any]) -> None:
    again = json.loads(run(desk, [*command("run"), "--json"]).stdout)
    assert again["champion"] == first["champion"]
    assert again["verdict"]["decision"] == "unchanged"
    done = run(desk, [*command("replay"), "--policy", "never", "--policy", "every-step", "--json"])
    never, every_step = json.loads(done.stdout)["backtests"]
    assert never["trainings"] < every_step["trainings"]
    assert min(never["accuracy"], every_step["accuracy"]) > 0.5


@pytest.fixture(scope="module")
def engine() -> list[tuple[str, int]]:
    """The engine's files as they are before the page is followed."""
    return _engine()


def _engine() -> list[tuple[str, int]]:
    files = [path for folder in ("assets", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    return [(str(path), path.stat().st_mtime_ns) for path in sorted(files)]


def _labels(desk: Path) -> list[str]:
    text = (desk / "letters" / "configs" / "domain.yaml").read_text()
    return re.findall(r"^  ([a-z_]+): \"", text, re.M)
