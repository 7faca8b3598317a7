"""The time of the first page for a home with 400 nights, compared with reading the nights' small files once.

Each synthetic night has a decision in the ledger, a performance report with all windows of the champion so far, a
drift report of 68 columns and a Dagster run. Requests call the application directly, without a network.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
from starlette.testclient import TestClient

from assets.home import Home
from assets.registry.ledger import Ledger
from assets.registry.shared_ledger import ledger_of
from assets.settings import load_settings
from pipelines.front import application
from pipelines.instance import open_instance

NIGHTS, REIGN, TURNS = 400, 50, 15
LIMIT = 0.3
FIRST = date(2024, 1, 1)
COLUMN = {"name": "x", "group": "text", "statistic": "psi", "value": 0.01, "calm": 0.02, "threshold": 0.02, "note": ""}
SCORES = {"rows": 1400, "accuracy": 0.89, "macro_f1": 0.88}


def publish(home: Home, table: str, file: str, content: dict[str, Any]) -> None:
    folder = home.lake.root / table / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / file).write_text(json.dumps(content))
    (folder.parent / "CURRENT").write_text(folder.name)


def crown(ledger: Ledger, day: str, version: int) -> None:
    key, before = f"t{version}-1", f"t{version - 1}" if version else None
    about = {"version": str(version), "training_id": f"t{version}"}
    numbers = {"challenger_accuracy": 0.9, "champion_accuracy": 0.85, "test_rows": 500.0}
    reasons = ["accuracy is 0.0500 above the champion's, and must be more than 0.005 above it"] * 10
    verdict = {"decision": "promote", "champion": before, "numbers": numbers, "reasons": reasons}
    ledger.append("verdict", key, day, about | verdict)
    previous = before and {"training_id": before, "version": str(version - 1)}
    ledger.append("alias", key, day, about | {"action": "promote", "reason": "; ".join(reasons), "previous": previous})


def night(home: Home, nth: int, policy: dict[str, Any]) -> None:
    day, version = (FIRST + timedelta(nth)).isoformat(), nth // REIGN
    if nth % REIGN == 0:
        crown(ledger_of(home), day, version)
    numbers = {"champion": f"t{version}", "accuracy": 0.89, "mature_rows": 1400, "estimated_accuracy": 0.9}
    numbers |= {"evaluated_accuracy": 0.9, "evaluated_rows": 500, "drifted": [nth % 20 == 0, False, False]}
    decision = {"decision": "skip", "reason": "nothing calls for it; " * 15, "numbers": numbers, "policy": policy}
    ledger_of(home).append("retraining", day, day, decision)
    publish(home, f"retraining_decision/{day}", "decision.json", decision)
    windows = [{"as_of": day, "rows": 1400, "labels": 1300, "estimated_accuracy": 0.9, "realised_accuracy": 0.89}]
    found = {"realised": SCORES, "windows": windows * (1 + nth % REIGN), "sentence": "right", "window_rows": 1400}
    estimates = {"estimated_accuracy": 0.9, "estimated_by_threshold": 0.88, "window_labels": 700}
    publish(home, f"performance/{day}", "performance.json", found | estimates)
    publish(home, f"drift/{day}", "drift.json", {"reason": "0 of 68 columns drifted", "columns": [COLUMN] * 68})


def median_seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(TURNS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVERGREEN_HOME"] = folder
        home, policy = Home(Path(folder)), load_settings("quick").retraining.model_dump()
        home.claim()
        for nth in range(NIGHTS):
            night(home, nth, policy)
        with open_instance(home) as instance:
            for nth in range(NIGHTS):
                tags = {"dagster/partition": (FIRST + timedelta(nth)).isoformat()}
                run = {"status": dg.DagsterRunStatus.SUCCESS, "tags": tags}
                instance.add_run(dg.DagsterRun(job_name="observe", run_id=str(uuid4()), **run))
        files = sorted(home.lake.root.glob("*/*/*/*.json"))
        with application(home) as app:
            client = TestClient(app, "http://127.0.0.1:3001")
            page = median_seconds(lambda: client.get("/").raise_for_status())
            read = median_seconds(lambda: [json.loads(path.read_text()) for path in files])
            size = len(client.get("/").content)
    of_limit = f"{page / LIMIT:.2f} of the limit of {LIMIT * 1e3:.0f} ms"
    print(f"first page ({size / 1e3:.0f} kB): {page * 1e3:.0f} ms, {of_limit}")
    print(f"reading {len(files)} small files once: {read * 1e3:.0f} ms")
    print(f"ratio {page / read:.2f}")


if __name__ == "__main__":
    main()
