"""What a home tells of itself: parts that fail one by one, are read only when they changed, and lock nothing."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.home import Home
from assets.registry.ledger import Ledger
from assets.registry.shared_ledger import ledger_of
from assets.settings import load_settings
from assets.training.program.progress import Progress
from assets.watching.figures import Busy, Figure, Part, Watch, gauge
from assets.watching.glance import glance
from assets.watching.home import parts_of
from assets.watching.progress import progress

DAY = "2024-07-01"
NUMBERS = {"champion": "t1", "accuracy": 0.9, "mature_rows": 500, "drifted": [False], "estimated_accuracy": 0.91}
NUMBERS |= {"evaluated_accuracy": 0.92, "evaluated_rows": 400, "training_cost": 1.5}
POLICY = {"min_mature_rows": 100}


def told(figures: list[Figure] | Iterator[Figure]) -> dict[str, Any]:
    """Values by name, and by labels where there are any."""
    found = {figure.name: {" ".join(labels): value for labels, value in figure.values.items()} for figure in figures}
    return {name: values.get("", values) for name, values in found.items()}


def decide(ledger: Ledger, day: str, decision: str, **numbers: object) -> None:
    body = {"decision": decision, "reason": "so it is", "ground": "drift", "numbers": NUMBERS | numbers}
    ledger.append("retraining", f"{day}/{decision}", day, body | {"policy": POLICY})


@pytest.fixture
def ledger(home: Home) -> Ledger:
    """A champion since May, a rejection, an approval that is waited for, and a person who is asked."""
    ledger = ledger_of(home)
    for version, day, decision in (("1", "2024-05-01", "promote"), ("2", "2024-06-01", "reject")):
        about = {"version": version, "training_id": f"t{version}", "reasons": ["so it is"], "trained_to": day}
        judged = {"champion": None if version == "1" else "t1", "decision": decision, "numbers": {}}
        ledger.append("verdict", f"t{version}-1", day, about | judged)
    move = {
        "version": "1",
        "training_id": "t1",
        "alias": "champion",
        "action": "promote",
        "reason": "",
        "previous": None,
    }
    ledger.append("alias", "t1-1", "2024-05-01", move)
    decide(ledger, "2024-07-01", "retrain")
    decide(ledger, "2024-07-02", "alert-a-human")
    return ledger


def test_the_ledger_tells_who_is_champion_and_what_was_decided(home: Home, ledger: Ledger) -> None:
    found = told(Watch(parts_of(home, load_settings("quick"))).figures())
    assert found["evergreen_champion_version"] == 1
    assert found["evergreen_champion_since_timestamp_seconds"] == 1714521600  # 2024-05-01, UTC
    assert found["evergreen_as_of_timestamp_seconds"] == 1719878400
    assert found["evergreen_verdicts"] | {"promote": 0} == {
        **dict.fromkeys(["promote", "awaiting-approval", "inconclusive", "unchanged"], 0),
        "reject": 1,
    }
    assert found["evergreen_last_verdict"]["reject"] == 1
    assert found["evergreen_last_retraining"] == {
        **dict.fromkeys(["retrain", "retrain-when-labels-mature", "skip"], 0),
        "alert-a-human": 1,
    }
    assert found["evergreen_waiting_for_person"] == {"approval": 0, "retraining": 1}
    assert found["evergreen_budget_spent"] == 1.5  # a training in July; the promotion was in May
    assert found["evergreen_budget_limit"] == load_settings("quick").retraining.budget_per_month
    assert set(found["evergreen_part_readable"].values()) == {1}


def test_a_home_before_its_first_run_tells_where_it_is_and_what_is_free(home: Home) -> None:
    home.root.mkdir()
    found = told(Watch(parts_of(home, load_settings("quick"))).figures())
    assert found["evergreen_disk_free_bytes"]["home"] > 0
    assert set(found["evergreen_part_readable"].values()) == {1}
    assert "evergreen_champion_version" not in found
    assert list(home.root.iterdir()) == []


def test_a_run_that_holds_every_lock_is_not_waited_for_and_none_is_taken(home: Home, ledger: Ledger) -> None:
    """The other process holds the ledger's lock alone, and a transaction that keeps all readers out."""
    code = """
import sqlite3, sys
from pathlib import Path
from assets.locks import locked
ledger = Path(sys.argv[1])
with locked(ledger.with_suffix(".lock")):
    connection = sqlite3.connect(ledger, isolation_level=None)
    connection.execute("begin exclusive")
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home.ledger)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert glance(home) == tuple(entry for entry in glance(home))
        assert len(glance(home)) == 5
        other.communicate("")
    assert [*glance(home)] == ledger.entries()


def test_a_ledger_that_is_being_written_is_not_read_and_what_was_known_stays(home: Home, ledger: Ledger) -> None:
    watch = Watch(parts_of(home, load_settings("quick")))
    before = told(watch.figures())["evergreen_retraining_decisions"]
    with closing(sqlite3.connect(home.ledger, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        connection.execute("insert into entries (kind, key, as_of, body, hash) values ('a', 'b', 'c', '{}', '')")
        with pytest.raises(Busy):
            glance(home)
        assert told(watch.figures())["evergreen_retraining_decisions"] == before
        connection.execute("rollback")
    decide(ledger, "2024-07-03", "skip")
    assert told(watch.figures())["evergreen_retraining_decisions"]["skip"] == 1


def test_what_has_not_changed_is_not_read_again() -> None:
    made, version = [], ["a"]

    def make() -> Iterator[Figure]:
        made.append(version[0])
        yield from gauge("evergreen_made", "", len(made))

    watch = Watch({"one": Part(lambda: tuple(version), make)})
    assert [told(watch.figures())["evergreen_made"] for _ in range(3)] == [1, 1, 1]
    version[0] = "b"
    assert told(watch.figures())["evergreen_made"] == 2
    assert made == ["a", "b"]


def test_a_part_that_cannot_be_read_hides_no_other(
    home: Home, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with home.lake.staging(f"drift/{DAY}") as staged:
        (staged / "drift.json").write_text("{ half")
        home.lake.publish(f"drift/{DAY}", "v1", staged)
    watch = Watch(parts_of(home, load_settings("quick")))
    for _ in range(2):
        found = told(watch.figures())
    assert found["evergreen_part_readable"] == {**dict.fromkeys(found["evergreen_part_readable"], 1), "drift": 0}
    assert found["evergreen_champion_version"] == 1
    assert len(caplog.messages) == 1, "it is told once"
    assert caplog.messages[0].startswith("the figures of drift cannot be read: JSONDecodeError")


def report(home: Home, *lines: str) -> Path:
    """What a training's first rank has said, as Dagster Pipes writes it, with half a line at the end."""
    folder = home.lake.root / "training" / ".staging-x"
    folder.mkdir(parents=True)
    messages = [{"method": "log", "params": {"message": line, "level": "INFO"}} for line in lines]
    opened = {"method": "opened", "params": {"extras": {}}}
    (folder / "messages").write_text("\n".join(map(json.dumps, [opened, *messages])) + '\n{"method": "lo')
    return folder / "messages"


def test_a_running_training_tells_what_it_has_said_last(home: Home) -> None:
    said: list[str] = []
    training = Progress(500, said.append)
    training.step(np.array([700, 800]))
    training.tell([1.25])
    (line,) = said
    messages = report(home, "started in 2.0 s imports", "step 1/500  loss 9.999  1 tokens/s  9 s left", line, "saved")
    at = messages.stat().st_mtime
    found = told(progress(home.lake, at - 10))
    assert (found["evergreen_training_running"], found["evergreen_training_progress_timestamp_seconds"]) == (1, at)
    assert (found["evergreen_training_now_step"], found["evergreen_training_now_steps"]) == (1, 500)
    assert found["evergreen_training_now_loss"] == 1.25
    assert found["evergreen_training_now_tokens_per_second"] > 1000
    assert "evergreen_training_now_left_seconds" in found


def test_what_a_killed_training_has_left_is_no_running_one(home: Home) -> None:
    messages = report(home, "step 1/500  loss 9.999  1 tokens/s  9 s left")
    for since in (None, messages.stat().st_mtime + 10):
        assert told(progress(home.lake, since)) == {"evergreen_training_running": 0}
    assert told(progress(Home(home.root / "none").lake, 0.0)) == {"evergreen_training_running": 0}
