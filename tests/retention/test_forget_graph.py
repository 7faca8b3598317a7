"""A whole home, as the graph makes it: records that were forgotten are in none of its files, and its nights go on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

EVERGREEN = Path(sys.executable).with_name("evergreen")
TICKETS = Path(__file__).parents[2] / "examples" / "tickets"
PROFILE = """
snapshot: {test_rows: 300, min_train_rows: 300, max_train_rows: 4000}
training:
  model: {max_tokens: 48, trainable_layers: 1}
  optimizer: {epochs: 1.0, validation_share: 0.05}
  cost: {refit: false}
gate: {min_gain_over_baseline: -1.0, max_calibration_error: 1.0}
"""
THINGS = ("lamp", "desk", "phone", "mouse", "chair", "clock", "cable", "badge", "scarf", "glove", "piano", "kite")
PLANTED = {f"PLANTED-{place:02}": f"Ottoline's {thing} fell off the ship" for place, thing in enumerate(THINGS)}
SECRETS = {*PLANTED, *PLANTED.values()}

Traces = Callable[[Path, Collection[str]], dict[str, set[str]]]


class Desk:
    """A copy of the domain, its home, and its source with planted records in every month."""

    def __init__(self, root: Path) -> None:
        self.domain, self.home, self.source = root / "desk", root / "home", root / "source"
        shutil.copytree(TICKETS, self.domain, ignore=shutil.ignore_patterns(".evergreen", "__pycache__"))
        (self.domain / "configs" / "profiles").mkdir(exist_ok=True)
        (self.domain / "configs" / "profiles" / "small.yaml").write_text(PROFILE)
        days = ["--from", "2024-01-01", "--to", "2024-03-31", "--rate", "30"]
        self.evergreen("simulate", "--output", str(self.source), *days)
        for place, path in enumerate(sorted(self.source.iterdir())):
            self._plant(path, list(PLANTED)[4 * place : 4 * place + 4])

    def _plant(self, path: Path, ids: list[str]) -> None:
        """Records of others with ids and words of their own; one comes twice, one is cut short, one is of no day."""
        lines = [json.loads(line) for line in path.read_text().splitlines() if line[:1] + line[-1:] == "{}"]
        solved = [line for line in lines if line.get("body") and line.get("resolution")][::-20]
        told = [line | {"id": name, "body": PLANTED[name]} for name, line in zip(ids, solved, strict=False)]
        written = [json.dumps(line) for line in (*told, told[0], told[1] | {"created_at": "never"})]
        path.write_text("\n".join([path.read_text().rstrip("\n"), *written, written[2][:-1]]) + "\n")

    def evergreen(self, *arguments: str, stdin: str | None = None, fails: bool = False) -> str:
        variables = os.environ | {"EVERGREEN_HOME": str(self.home)}
        command = [EVERGREEN, "--domain", str(self.domain), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=variables)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout

    def run(self, as_of: str) -> dict[str, Any]:
        asked = ["--source", str(self.source), "--as-of", as_of, "--profile", "small", "--json"]
        found: dict[str, Any] = json.loads(self.evergreen("run", *asked))
        return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_they_are_in_no_file_of_the_home_and_its_nights_go_on(tmp_path: Path, traces: Traces) -> None:
    desk = Desk(tmp_path)
    for day in ("2024-03-15", "2024-04-01"):
        before = desk.run(day)
    told = traces(desk.home, SECRETS)
    assert set.union(*told.values()) == SECRETS
    assert {"/".join(path.split("/")[: 2 if path.startswith("lake") else 1]) for path in told} == {
        *("lake/raw_records", "lake/marts", "lake/training_set", "lake/predictions", "lake/evaluation"),
        *("mlflow", "warehouse"),
    }
    assert "12 forgotten" in desk.evergreen("forget", "--from", "-", "--dry-run", stdin="\n".join(PLANTED))
    assert traces(desk.home, SECRETS) == told
    done = json.loads(desk.evergreen("forget", "--from", "-", "--json", stdin="\n".join(PLANTED)))
    assert done["sources"] == sorted(path.name for path in desk.source.iterdir())
    assert done["versions"] == ["1", "2"]
    assert traces(desk.home, SECRETS) == {}

    champion = json.loads(desk.evergreen("status", "--json"))["champion"]["version"]
    assert champion == before["champion"]["version"]
    assert "2 evaluations as they were judged" in desk.evergreen("ledger", "--verify")
    found = json.loads(desk.evergreen("reproduce", champion, "--json", fails=True))
    assert found["verdict"] == "impossible"
    assert "still proven by entry" in found["reason"]
    assert f"(entry {done['entry']} in the ledger)" in found["reason"]
    assert desk.evergreen("why", champion)
    desk.evergreen("prune", "--now")
    scored = ["--input", str(min(desk.source.iterdir())), "--output", str(tmp_path / "answers.parquet")]
    desk.evergreen("score", *scored, "--profile", "small")

    after = desk.run("2024-04-02")
    records = after["records"]
    assert records["landed"] == before["records"]["landed"] - 12 - 3 * 3
    assert records["landed"] == records["valid"] + records["quarantined"] + records["duplicate"]
    assert after["checks"]["passed"] > 40
    desk.evergreen("export-site", str(tmp_path / "site"))
    assert traces(desk.home, SECRETS) == {}
    assert traces(tmp_path / "site", SECRETS) == {}
