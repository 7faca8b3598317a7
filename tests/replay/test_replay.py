"""The command on simulated records: the real warehouse, snapshots, trainings and gate."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assets.home import Home
from assets.replay.replay import _trainer
from assets.settings import load_settings
from complaints.simulation import simulate

EVERGREEN = Path(sys.executable).with_name("evergreen")


@pytest.mark.slow
def test_policies_are_replayed_on_history(home: Home, tmp_path: Path) -> None:
    simulate(tmp_path / "source", date(2023, 12, 1), date(2024, 3, 31), 25, 3, "calm")
    span = ("--from", "2024-02-15", "--to", "2024-03-31", "--every", "15d", "--json")
    policies = ("--policy", "never", "--policy", "every-step")
    command = [EVERGREEN, "replay", "--source", str(tmp_path / "source"), *span, *policies]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    never, always = found["backtests"]
    assert found["days"] == ["2024-02-15", "2024-03-01", "2024-03-16", "2024-03-31"]
    assert [never["trainings"], always["trainings"]] == [1, 3]
    assert [step["verdict"] for step in never["steps"]] == ["promote", None, None]
    assert sum(step["rows"] for step in never["steps"]) == sum(step["rows"] for step in always["steps"]) > 500
    assert never["accuracy"] > 0.5
    assert always["promotions"] > 1
    assert done.stderr.count("trained on") == always["trainings"] + always["promotions"]  # each has its refit
    (picture,) = (home.reports / "replay").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in done.stderr


def test_a_training_is_priced_by_all_of_its_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = SimpleNamespace(path=tmp_path, report={"seconds": 10.0})
    bundle = SimpleNamespace(provenance={"world_size": 2})
    monkeypatch.setattr("assets.training.launchers.launch.train", lambda *_: trained)
    monkeypatch.setattr("assets.training.bundle.load_bundle", lambda _: bundle)
    history = SimpleNamespace(settings=load_settings("quick"), home=Home(tmp_path))
    learn = _trainer(Home(tmp_path), history, print)  # type: ignore[arg-type]
    assert learn(SimpleNamespace(as_of="2024-07-01")) == (bundle, 20.0)  # type: ignore[arg-type]
