"""Runs of a home that machines share, whose processes died: they are found by their leases, and closed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from assets.home import Home
from assets.settings import EMBEDDED
from pipelines import instance as instances
from pipelines.definitions import defs
from pipelines.instance import close_killed_runs, open_instance

AT_WORK = """
import os, signal, sys
from pathlib import Path
from assets.home import Home
from assets.settings import EMBEDDED
home = Home(Path(sys.argv[1]), EMBEDDED.model_copy(update={"database": sys.argv[2]}))
with home.in_use(sys.argv[3]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def home(tmp_path: Path, database: str) -> Home:
    return Home(tmp_path / "home", EMBEDDED.model_copy(update={"database": database}))


@pytest.fixture
def instance(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Each machine has its own dagster.yaml, of one database."""
    monkeypatch.setenv("EVERGREEN_HOME", str(home.root))
    with open_instance(home) as opened:
        yield opened


def started(instance: dg.DagsterInstance) -> str:
    run = instance.create_run_for_job(defs.resolve_job_def("observe"))
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, "observe"), run.run_id)
    return run.run_id


def failed(instance: dg.DagsterInstance) -> list[str]:
    return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))]


def test_a_run_whose_process_was_killed_is_closed_once_its_lease_is_given_up(
    home: Home, instance: dg.DagsterInstance, database: str
) -> None:
    killed, lives = started(instance), started(instance)
    subprocess.run([sys.executable, "-c", AT_WORK, str(home.root), database, killed], check=False)
    with home.in_use(lives):
        close_killed_runs(instance, home)
        assert failed(instance) == [], "its machine may only be slow to renew the lease"
        with psycopg.connect(database) as connection:
            last = "update evergreen.leases set renewed = now() - interval '2 minutes' where name = %s"
            connection.execute(last, (f"running/{killed}",))
        close_killed_runs(instance, home)
    assert failed(instance) == [killed]


def test_a_run_that_never_came_to_take_a_lease_is_closed_when_it_has_had_time_to(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = started(instance)
    close_killed_runs(instance, home)
    assert failed(instance) == []
    monkeypatch.setattr(instances, "_MARKED_WITHIN", -1)
    with home.in_use(begins):
        close_killed_runs(instance, home)
        assert failed(instance) == []
    close_killed_runs(instance, home)
    assert failed(instance) == [begins]


def test_the_limits_of_pools_are_in_the_database_before_the_first_run(instance: dg.DagsterInstance) -> None:
    limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert limits == dict.fromkeys(instances.POOLS, 1)
    assert instance.run_retries_max_retries == 2
