"""The last step of the nightly job, and what becomes of Dagster's own history."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from assets.resources import remember
from assets.retention.definitions import forget_runs
from pipelines.definitions import defs
from pipelines.instance import open_instance
from pipelines.schedules import nightly

EVERGREEN = Path(sys.executable).with_name("evergreen")
BEFORE, DAY = "2024-02-29", "2024-03-01"


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as instance:
        yield instance


def night(instance: dg.DagsterInstance, day: str = DAY) -> dg.ExecuteInProcessResult:
    """The nightly job, of which the last step alone is run."""
    job = defs.resolve_job_def(nightly.job_name)
    step = [dg.AssetKey("retention")]
    remember(instance, day)
    return job.execute_in_process(instance=instance, partition_key=day, asset_selection=step)


def test_the_night_ends_with_it(home: Home, instance: dg.DagsterInstance) -> None:
    for version in ("a", "b"):
        with home.lake.staging(f"mart_audit/{DAY}") as staged:
            (staged / "audit.json").write_text(version)
            home.lake.publish(f"mart_audit/{DAY}", version, staged)
    (first,) = night(instance, BEFORE).asset_materializations_for_node("retention")
    assert (first.metadata["removed"].value, first.metadata["marked"].value) == (0, 1)
    result = night(instance)
    (done,) = result.asset_materializations_for_node("retention")
    assert done.metadata["removed"].value == 1
    assert [path.name for path in home.lake.path("mart_audit", DAY).iterdir() if path.is_dir()] == ["b"]
    (entry,) = ledger_of(home).entries("prune")
    assert entry.as_of == DAY
    assert entry.body["removed"]["superseded"]["names"] == [f"lake/mart_audit/{DAY}/a"]
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("retention")).parent_keys == {dg.AssetKey("retraining_decision")}
    with home.in_use("another-run"):
        (waits,) = night(instance).asset_materializations_for_node("retention")
    assert "is removed while others are at work: another-run" in waits.metadata["summary"].value


def test_the_newest_runs_stay_and_those_that_somebody_counts_on(home: Home, instance: dg.DagsterInstance) -> None:
    @dg.op
    def fails() -> None:
        raise ValueError

    @dg.asset
    def seldom() -> None:
        """Materialized once, long ago."""

    decision = {"decision": "retrain", "reason": "drift", "ground": "drift", "numbers": {"champion": "1", "cost": 5.0}}
    due = ledger_of(home).append("retraining", "a", DAY, decision)
    made = dg.materialize([seldom], instance=instance).run_id
    job = dg.GraphDefinition(name="job", node_defs=[fails]).to_job()
    runs = [
        job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).run_id
        for tags in ({"evergreen/decision": str(due.seq)}, {}, {}, {}, {})
    ]
    (home.root / "logs").mkdir()
    logs = [home.root / "logs" / f"{run_id}.log" for run_id in runs]
    for log in logs:
        log.touch()
    assert forget_runs(instance, home, keep=2, dry_run=True) == runs[2:0:-1]
    assert len(instance.get_runs()) == 6
    assert forget_runs(instance, home, keep=2) == runs[2:0:-1]
    stay = [made, runs[0], *runs[3:]]
    assert sorted(run.run_id for run in instance.get_runs()) == sorted(stay)
    databases = home.dagster / "history" / "runs"
    assert {path.stem for path in databases.glob("*-*.db")} == set(stay)
    assert [log.exists() for log in logs] == [True, False, False, True, True]
    assert instance.get_latest_materialization_event(dg.AssetKey("seldom")) is not None
    assert not any((home.dagster / "storage" / run_id).exists() for run_id in runs[1:3])


def test_a_day_whose_runs_are_forgotten_is_no_partition_any_more(home: Home, instance: dg.DagsterInstance) -> None:
    @dg.op
    def passes() -> None: ...

    job = dg.GraphDefinition(name="job", node_defs=[passes]).to_job()
    for day in ("2024-03-01", "2024-03-02", "2024-03-01", "2024-03-03"):
        remember(instance, day)
        job.execute_in_process(instance=instance, tags={"dagster/partition": day})
    forget_runs(instance, home, keep=2, dry_run=True)
    assert len(instance.get_dynamic_partitions("as_of")) == 3
    assert len(forget_runs(instance, home, keep=2)) == 2
    assert instance.get_dynamic_partitions("as_of") == ["2024-03-01", "2024-03-03"]


def test_the_command_lists_what_would_go_and_then_what_went(home: Home) -> None:
    for version in ("a", "b"):
        with home.lake.staging(f"mart_audit/{DAY}") as staged:
            (staged / "audit.json").write_text(version)
            home.lake.publish(f"mart_audit/{DAY}", version, staged)
    path, lines = f"lake/mart_audit/{DAY}/a", ""
    marked = subprocess.run([EVERGREEN, "prune"], capture_output=True, text=True, check=True).stdout
    assert marked.splitlines()[-1].startswith("0 removed, 0 bytes freed; 1 marked, ")
    for dry_run in (True, False):
        command = [EVERGREEN, "prune", "--now", *(["--dry-run"] if dry_run else [])]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout if dry_run else lines
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        (gone,) = found["removed"]
        assert (gone["path"], gone["setting"], found["dry_run"]) == (path, "superseded", dry_run)
        assert (home.root / path).exists() == dry_run
    assert f"{path}: not the current version (superseded)" in lines
    freed = f"1 removed, {gone['bytes'] / 1000:.1f} kB freed; 0 Dagster runs (runs)"
    assert lines.splitlines()[-1] == f"would be: {freed}"
