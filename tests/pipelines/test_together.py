"""Runs beside each other: who waits for whom, who is told to stop, and whose process was killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.home import Home
from assets.ingestion.landing import ingest
from assets.lake import Lake
from assets.locks import alive, locked
from assets.settings import load_domain, load_settings
from complaints.simulation import simulate
from pipelines.definitions import defs
from pipelines.instance import close_killed_runs, open_instance

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
            *(signal.SIGTERM, "lake/.writing/raw_records.lock", "raw_records", 143),
            "evergreen: stopped; run again to go on from step 1 of 18, raw_records; the last publication is intact",
        ),
        (signal.SIGINT, ".locks/command.lock", "its run on", 130, "evergreen: stopped; the last publication is intact"),
    ],
)
def test_a_run_that_waits_says_for_what_and_stops_when_told_to(
    home: Home, tmp_path: Path, told: signal.Signals, held: str, waits_for: str, code: int, last: str
) -> None:
    (tmp_path / "a.csv").touch()
    with locked(home.root / held, "it"), running(tmp_path / "a.csv") as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not (lines and f"waiting for another run to finish with {waits_for}" in lines[-1]):
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        process.send_signal(told)
        output, errors = process.communicate()
    assert (process.returncode, output, errors.splitlines()[-1]) == (code, "", last)
    assert "Traceback" not in errors
    if "command" not in held:
        with open_instance(home) as instance:
            (run,) = instance.get_runs()
            assert run.status is dg.DagsterRunStatus.CANCELED


OF_THE_COMMAND = """
import os, sys
from assets.home import Home
from pipelines.progress import Lines
from pipelines.runs import run_graph
out = os.fdopen(os.dup(1), "w", buffering=1)
home, say = Home.from_environment(), Lines(lambda line: print(line, file=out))
done = run_graph(home, [sys.argv[1]], "2024-07-01", "quick", say, "ingest")
say(done)
assert done.failure is None
"""
OF_THE_DAEMON = """
import logging, sys
from assets.home import Home
from pipelines.definitions import defs
from pipelines.instance import open_instance
from assets.resources import remember
logging.getLogger("evergreen").addHandler(logging.StreamHandler(sys.stdout))
config = {"ops": {"raw_records": {"config": {"sources": [sys.argv[1]]}}}}
with open_instance(Home.from_environment()) as instance:
    job = defs.resolve_job_def("ingest")
    remember(instance, "2024-07-01")
    job.execute_in_process(instance=instance, partition_key="2024-07-01", run_config=config)
"""


@pytest.mark.slow
def test_runs_of_the_command_and_of_the_daemon_end_as_one_after_the_other(home: Home, tmp_path: Path) -> None:
    """One waits to write the raw table, which is then let go, and the other for the first."""
    sources = [tmp_path / "command", tmp_path / "daemon"]
    for seed, source in enumerate(sources):
        simulate(source, date(2024, 6, 1), date(2024, 6, 30), 8, seed, "calm")
    with locked(home.root / "lake/.writing/raw_records.lock", "it"):
        runs = [start(code, source) for code, source in zip((OF_THE_COMMAND, OF_THE_DAEMON), sources, strict=True)]
        for run in runs:
            await_line(run, "waiting for another run to finish with")
    for run in runs:
        printed, _ = run.communicate()
        assert run.returncode == 0, printed
    raw = pq.read_table(home.lake.current("raw_records") / "objects.parquet").sort_by("seq").to_pylist()
    assert [row["seq"] for row in raw] == [0, 1]
    orders = [sources, sources[::-1]]
    assert home.lake.version("raw_records") in [one_after_the_other(tmp_path / "serial", order) for order in orders]
    counts = pq.read_table(home.lake.current("marts") / "record_counts").to_pylist()
    assert sorted((row["object_id"], row["landed"]) for row in counts) == sorted(
        (row["object_id"], row["landed"]) for row in raw
    )


def start(code: str, source: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(source)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def await_line(run: subprocess.Popen[str], text: str) -> None:
    assert run.stdout is not None
    while text not in (line := run.stdout.readline()):
        assert line, "it ended before"


def one_after_the_other(folder: Path, sources: Sequence[Path]) -> str | None:
    """The version of the raw table that comes of reading one source after the other."""
    lake = Lake(folder / sources[0].name)
    for source in sources:
        ingest([str(source)], lake, load_settings("quick").ingestion, load_domain(), "2024-07-01")
    return lake.version("raw_records")


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
from assets.locks import alive
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


def test_a_run_that_was_killed_before_it_could_say_that_it_lived_is_closed_at_the_next_start(home: Home) -> None:
    with open_instance(home) as instance:
        killed, lives, _ = (
            instance.create_run_for_job(
                defs.resolve_job_def("observe"), status=dg.DagsterRunStatus.STARTED, tags=tags
            ).run_id
            for tags in ({}, {}, {"evergreen/command": "run"})
        )
        with alive(home.running(lives)):
            close_killed_runs(instance, home, restarted=True)
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert [run.run_id for run in failed] == [killed]
