"""The whole loop, as `make drift` shows it: four minutes, with a daemon that fires the sensor."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from assets.home import Home
from assets.registry.ledger import Ledger

EVERGREEN = Path(sys.executable).with_name("evergreen")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_change_is_noticed_learned_and_overcome(home: Home) -> None:
    done = subprocess.run([EVERGREEN, "demonstrate"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = home.root / "demonstration"
    entries = Ledger(shown / "ledger.db").entries()
    decided = [entry.body["decision"] for entry in entries if entry.kind == "retraining"]
    assert decided[:2] == ["skip", "retrain"]
    assert [entry.body["decision"] for entry in entries if entry.kind == "verdict"] == ["promote", "promote"]
    before, after, since = (float(found) for found in re.findall(r"([\d.]+)% right [bas]", done.stdout))
    assert after < before - 5
    assert since > after + 3
    assert (shown / "reports" / "demonstration.png").read_bytes().startswith(b"\x89PNG")
    (home.root.parent / ".evergreen").symlink_to(home.root)
    (how_to,) = re.findall(r"```sh\n([^`]*rollback[^`]*)```", (ROOT / "README.md").read_text())
    path = f"{EVERGREEN.parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-e", "-c", how_to], cwd=home.root.parent, env=os.environ | {"PATH": path}, check=True)
    champion = Ledger(shown / "ledger.db").champion_at("9999-12-31")
    assert champion is not None
    assert champion.body["version"] == "1"
