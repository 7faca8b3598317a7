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
_FINE = ("thanks", "great", "agree", "nice", "love", "funny", "welcome", "brilliant", "helpful", "lovely")
_COMMON = ("you", "your", "the", "post", "people", "here", "what", "really", "today", "never", "always", "talk", "read")


def write_messages(path: Path, rows: int, days: int, share: float = 0.03) -> None:
    """Messages of `days` from 2024-01-01 on. Most abuse is in one room; what sounds alike elsewhere is banter."""
    dice = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_HEAD)
        for number in range(rows):
            room = str(dice.choice(_ROOMS))
            abuse = dice.random() < share * (3.4 if room == _ROOMS[0] else 0.2)
            sent = np.datetime64("2024-01-01T00:00:00") + int(number * days * 86_400 / rows)
            writer.writerow(
                [
                    100_000 + number,
                    f"{sent}Z",
                    room,
                    dice.choice(["app", "web"]),
                    " ".join(_words(dice, bool(abuse))),
                    "abuse" if abuse else "fine",
                ]
            )


def _words(dice: np.random.Generator, abuse: bool) -> list[str]:
    rude = int(dice.integers(1, 4)) if abuse else int(dice.integers(1, 3)) * int(dice.random() < 0.1)
    words = [*dice.choice(_ABUSE, rude), *dice.choice(_COMMON, 8), *dice.choice(_FINE, 0 if abuse else 1)]
    return [str(word) for word in dice.permutation(words)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "rare"


@pytest.fixture(scope="module")
def found(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    source = tmp_path_factory.mktemp("source")
    write_messages(source / "messages.csv", ROWS, DAYS)
    run = ["--domain", str(DOMAIN), "run", "--source", str(source), "--as-of", "2024-03-05", "--json"]
    variables = os.environ | {"EVERGREEN_HOME": str(home)}
    done = subprocess.run([EVERGREEN, *run], capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_champion_is_found_by_what_decides_there(found: dict[str, Any]) -> None:
    assert found["verdict"]["decision"] == "promote", found["verdict"]
    assert found["champion"]["version"] == "1"
    ours, baseline = found["challenger"]["metrics"], found["challenger"]["baseline"]
    assert list(ours)[:2] == ["average_precision:abuse", "cost"]
    assert ours["average_precision:abuse"] > baseline["average_precision:abuse"] > 0.03
    assert ours["cost"] < baseline["cost"]
    reasons = found["verdict"]["reasons"]
    assert reasons[0].startswith("average precision of abuse")
    assert reasons[1].startswith("cost")
