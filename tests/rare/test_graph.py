"""The whole graph on a domain of two labels, one of which is rare: a champion by the metrics that its gate names."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EVERGREEN = Path(sys.executable).with_name("evergreen")
DOMAIN = Path(__file__).parent / "domain"
ROWS, DAYS = 5000, 60
_HEAD = ("message_id", "sent_at", "room", "channel", "body", "verdict")
_ROOMS = ("games", "lobby", "music", "help")
_ABUSE = ("idiot", "loser", "pathetic", "moron", "disgusting", "stupid", "hate", "worthless", "trash", "liar")
_NEW_ABUSE = ("clown", "snake", "muppet", "goblin", "parasite", "leech", "vermin", "weasel", "rat", "fraud")
_FINE = ("thanks", "great", "agree", "nice", "love", "funny", "welcome", "brilliant", "helpful", "lovely")
_COMMON = ("you", "your", "the", "post", "people", "here", "what", "really", "today", "never", "always", "talk", "read")


def write_messages(
    path: Path,
    rows: int,
    days: int,
    start: str = "2024-01-01",
    share: float = 0.03,
    abuse_words: tuple[str, ...] = _ABUSE,
) -> None:
    """Messages of `days` from `start` on. Most abuse is in one room; what sounds alike elsewhere is banter."""
    first = np.datetime64(start, "s")
    dice = np.random.default_rng(int(first.astype(np.int64)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_HEAD)
        for number in range(rows):
            room = str(dice.choice(_ROOMS))
            abuse = dice.random() < share * (3.4 if room == _ROOMS[0] else 0.2)
            sent = first + int(number * days * 86_400 / rows)
            writer.writerow(
                [
                    int(first.astype(np.int64)) + number,
                    f"{sent}Z",
                    room,
                    dice.choice(["app", "web"]),
                    " ".join(_words(dice, bool(abuse), abuse_words)),
                    "abuse" if abuse else "fine",
                ]
            )


def _words(dice: np.random.Generator, abuse: bool, rude_words: tuple[str, ...]) -> list[str]:
    rude = int(dice.integers(1, 4)) if abuse else int(dice.integers(1, 3)) * int(dice.random() < 0.1)
    words = [*dice.choice(rude_words, rude), *dice.choice(_COMMON, 8), *dice.choice(_FINE, 0 if abuse else 1)]
    return [str(word) for word in dice.permutation(words)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "rare"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_messages(folder / "messages.csv", ROWS, DAYS)
    return folder


@pytest.fixture(scope="module")
def found(home: Path, source: Path) -> dict[str, Any]:
    return evergreen(home, "run", "--source", str(source), "--as-of", "2024-03-05")


def evergreen(home: Path, *arguments: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    variables = os.environ | {"EVERGREEN_HOME": str(home)}
    command = [EVERGREEN, "--domain", str(DOMAIN), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_champion_is_found_by_what_decides_there(found: dict[str, Any]) -> None:
    assert found["verdict"]["decision"] == "promote", found["verdict"]
    assert found["champion"]["version"] == "1"
    ours, baseline = found["challenger"]["metrics"], found["challenger"]["baseline"]
    assert list(ours)[:2] == ["average_precision:abuse", "cost"]
    assert ours["average_precision:abuse"] > baseline["average_precision:abuse"] > 0.03
    assert ours["cost"] < baseline["cost"]
    reasons = found["verdict"]["reasons"]
    assert reasons[0].startswith("average precision of Abuse")
    assert reasons[1].startswith("cost")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_new_words_of_abuse_are_seen_as_drift_and_learned(home: Path, source: Path, found: dict[str, Any]) -> None:
    again = evergreen(home, "run", "--source", str(source), "--as-of", "2024-03-05")
    assert again["verdict"]["decision"] == "unchanged"
    assert again["champion"] == found["champion"]
    write_messages(source / "later.csv", ROWS, DAYS, start="2024-03-06", share=0.09, abuse_words=_NEW_ABUSE)
    observed = [observe(home, source, day) for day in ("2024-03-20", "2024-04-03", "2024-04-17")]
    assert any(drift for drift, _ in observed), observed
    assert "retrain" in {decision for _, decision in observed}, observed
    learned = evergreen(home, "run", "--source", str(source), "--as-of", "2024-04-18", "--history")
    assert learned["verdict"]["decision"] == "promote", learned["verdict"]
    assert learned["champion"]["version"] == "2"


_OBSERVE = """
import json, sys
from assets.home import Home
from pipelines.progress import Lines
from pipelines.runs import run_graph
home = Home.from_environment()
done = run_graph(home, [sys.argv[1]], sys.argv[2], "quick", Lines(lambda line: None), "observe", history=True)
assert done.failure is None, done.failure
read = lambda table, name: json.loads((home.lake.current(f"{table}/{sys.argv[2]}") / name).read_text())
drift, decision = read("drift", "drift.json"), read("retraining_decision", "decision.json")
print("\\n" + json.dumps([drift["detected"], decision["decision"]]))
"""


def observe(home: Path, source: Path, day: str) -> list[Any]:
    """Whether drift is seen in a night without a training, and what is decided of a retraining."""
    variables = os.environ | {"EVERGREEN_HOME": str(home), "EVERGREEN_DOMAIN": str(DOMAIN)}
    command = [sys.executable, "-c", _OBSERVE, str(source), day]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_replay_compares_policies(home: Path, source: Path, found: dict[str, Any]) -> None:
    policies = ["--policy", "never", "--policy", "every-step"]
    period = ["--from", "2024-02-10", "--to", "2024-03-01", "--every", "10d"]
    replayed = evergreen(home, "replay", "--source", str(source), *period, *policies)
    never, every_step = replayed["backtests"]
    assert (never["policy"], every_step["policy"]) == ("never", "every-step")
    assert never["trainings"] <= every_step["trainings"]
    assert min(never["promotions"], every_step["promotions"]) > 0
    assert every_step["metrics"].keys() == {"average_precision:abuse", "cost"}
    assert 0.5 < every_step["metrics"]["average_precision:abuse"] <= 1
