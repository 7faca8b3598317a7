"""The README's nightly recipe on the records that `make run` simulates: a week of nights by the schedule is green."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets.lake import Home

EVERGREEN = Path(sys.executable).with_name("evergreen")
NIGHTS = """
import json
from datetime import UTC, datetime, timedelta

import dagster as dg
from assets.lake import Home
from pipelines.definitions import defs
from pipelines.instance import open_instance
from pipelines.schedules import nightly

with open_instance(Home.from_environment()) as instance:
    for night in range(7):
        time = datetime(2026, 11, 27, 2, tzinfo=UTC) + timedelta(night)
        asked = nightly(dg.build_schedule_context(instance=instance, scheduled_execution_time=time))
        job, key = defs.resolve_job_def(nightly.job_name), asked.partition_key
        done = job.execute_in_process(instance=instance, partition_key=key, raise_on_error=False)
        said = [[c.check_name, c.description] for c in done.get_asset_check_evaluations() if not c.passed]
        print(json.dumps([key, done.success, said, dict(done.dagster_run.tags)]))
    print(json.dumps(sorted(instance.get_materialized_partitions(dg.AssetKey("performance")))))
    print(json.dumps(instance.get_dynamic_partitions("as_of")))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_week_of_nights_on_the_simulated_records_is_green(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_SOURCES", raising=False)
    simulation = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7"]
    source = str(home.source)
    for command in (
        ["simulate", "--output", source, *simulation],
        ["run", "--source", source, "--as-of", "2024-07-01"],
    ):
        subprocess.run([EVERGREEN, *command], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", NIGHTS], stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    *nights, plotted, partitions = map(json.loads, done.stdout.splitlines()[-9:])
    days = [f"2024-07-{day:02}" for day in range(1, 9)]
    assert [night[:3] for night in nights] == [[day, True, []] for day in days[1:]]
    assert plotted == partitions == days
