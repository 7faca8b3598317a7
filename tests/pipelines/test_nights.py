"""The README's nightly recipe on the records that `make run` simulates: a week of nights by the schedule is green."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from assets.home import Home

EVERGREEN = Path(sys.executable).with_name("evergreen")
NIGHTS = """
import json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from assets.home import Home
from pipelines.definitions import defs
from pipelines.instance import open_instance
from pipelines.schedules import nightly

nights = []
with open_instance(Home.from_environment()) as instance:
    for night in range(7):
        time = datetime(2026, 11, 27, 2, tzinfo=UTC) + timedelta(night)
        asked = nightly(dg.build_schedule_context(instance=instance, scheduled_execution_time=time))
        job, key = defs.resolve_job_def(nightly.job_name), asked.partition_key
        done = job.execute_in_process(instance=instance, partition_key=key, raise_on_error=False)
        said = [[c.check_name, c.description] for c in done.get_asset_check_evaluations() if not c.passed]
        nights.append([key, done.success, said])
    plotted = sorted(instance.get_materialized_partitions(dg.AssetKey("performance")))
    told = {"nights": nights, "plotted": plotted, "partitions": instance.get_dynamic_partitions("as_of")}
Path(sys.argv[1]).write_text(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_week_of_nights_on_the_simulated_records_is_green(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVERGREEN_SOURCES", raising=False)
    simulation = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7"]
    source = str(home.source)
    for command in (
        ["simulate", "--output", source, *simulation],
        ["run", "--source", source, "--as-of", "2024-07-01"],
    ):
        subprocess.run([EVERGREEN, *command], check=True, capture_output=True)
    answer = tmp_path / "told.json"
    subprocess.run([sys.executable, "-c", NIGHTS, str(answer)], check=True)
    told, days = json.loads(answer.read_text()), [f"2024-07-{day:02}" for day in range(1, 9)]
    assert told["nights"] == [[day, True, []] for day in days[1:]]
    assert told["plotted"] == told["partitions"] == days
