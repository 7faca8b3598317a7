"""Runs beside each other: who waits for whom, who is told to stop, and whose process was killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from assets.lake import Home, alive, locked
from pipelines.definitions import defs
from pipelines.runs import close_killed_runs, open_instance

EVERGREEN = Path(sys.executable).with_name("evergreen")


@contextmanager
def running(source: Path) -> Iterator[subprocess.Popen[str]]:
    command = [EVERGREEN, "run", "--source", str(source), "--as-of", "2024-01-01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process


@pytest.mark.parametrize(
    ("told", "held", "waits_for", "code", "last"),
    [
        (
            *(signal.SIGTERM, "lake/.writing/raw_complaints.lock", "raw_complaints", 143),
            "evergreen: stopped by SIGTERM in raw_complaints; what was published is intact",
        ),
        (signal.SIGINT, ".lock", "its run on", 130, "evergreen: stopped by SIGINT; what was published is intact"),
    ],
)
def test_a_run_that_waits_says_for_what_and_stops_when_told_to(
    home: Home, tmp_path: Path, told: signal.Signals, held: str, waits_for: str, code: int, last: str
) -> None:
    (tmp_path / "a.csv").touch()
    with locked(home.root / held, "it"), running(tmp_path / "a.csv") as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not (lines and f"waiting for another run to be done with {waits_for}" in lines[-1]):
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        process.send_signal(told)
        output, errors = process.communicate()
    assert (process.returncode, output, errors.splitlines()[-1]) == (code, "", last)
    assert "Traceback" not in errors
    if held != ".lock":
        with open_instance(home) as instance:
            (run,) = instance.get_runs()
            assert run.status is dg.DagsterRunStatus.CANCELED


def test_every_pool_has_its_limit_before_the_first_run(home: Home) -> None:
    """Dagster writes a limit down with the first claim, which is too late for runs that are launched at once."""
    pools = {
        pool for job in defs.jobs or [] for node in defs.resolve_job_def(job.name).all_node_defs for pool in node.pools
    }
    assert pools
    with open_instance(home) as instance:
        limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert {name: limits.get(name) for name in pools} == dict.fromkeys(pools, 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from assets.lake import alive
with alive(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_process_was_killed_is_closed_and_others_are_not(home: Home) -> None:
    with open_instance(home) as instance:
        ended, killed, lives, begins = (
            instance.create_run_for_job(defs.resolve_job_def("observe"), status=dg.DagsterRunStatus.STARTED).run_id
            for _ in range(4)
        )
        with alive(home.running(ended)):
            pass
        subprocess.run([sys.executable, "-c", KILLED, str(home.running(killed))], check=False)
        with alive(home.running(lives)):
            close_killed_runs(instance, home)
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert [run.run_id for run in failed] == [killed]
        assert not home.running(begins).exists()
