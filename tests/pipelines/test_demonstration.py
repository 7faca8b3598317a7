"""The whole loop, as `make drift` shows it: four minutes, with a daemon that fires the sensor."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from assets.lake import Home
from assets.registry.ledger import Ledger

EVERGREEN = Path(sys.executable).with_name("evergreen")


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
