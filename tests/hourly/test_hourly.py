"""A domain whose cadence is an hour: what an hour knows of its own day, and a graph with a partition for each."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assets.exceptions import SettingsError
from assets.features.checks import check_training_set
from assets.features.snapshot import build_training_set
from assets.home import Home
from assets.ingestion.calendar import Calendar
from assets.ingestion.landing import ingest
from assets.settings import load_settings
from assets.validation.audit import audit, publish
from assets.warehouse.project import build_marts
from pipelines.cli import app

RARE = Path(__file__).parents[1] / "rare" / "domain"
MORNING, EVENING = "2024-03-10T09", "2024-03-10T18"
TOLD = """
import json
from datetime import datetime

import dagster as dg
from pipelines.definitions import defs

(schedule,) = defs.schedules
time = datetime.fromisoformat("2024-03-10T09:05+00:00")
with dg.instance_for_test() as instance:
    asked = schedule(dg.build_schedule_context(instance=instance, scheduled_execution_time=time))
    known = instance.get_dynamic_partitions("as_of")
late = min(spec.freshness_policy.warn_window.to_timedelta() for spec in defs.resolve_all_asset_specs())
print(json.dumps([schedule.name, schedule.cron_schedule, asked.partition_key, known, str(late)]))
"""


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The domain of messages, whose labels are known two days after them."""
    folder = tmp_path / "domain"
    shutil.copytree(RARE, folder)
    with (folder / "configs" / "domain.yaml").open("a") as file:
        file.write("cadence: hour\n")
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(folder))
    return folder


def write(path: Path, first: int, received: Sequence[datetime]) -> None:
    rng = random.Random(first)
    path.parent.mkdir(exist_ok=True)
    lines = [
        {
            "message_id": str(first + place),
            "sent_at": f"{time.isoformat()}Z",
            "room": rng.choice(("games", "help")),
            "channel": rng.choice(("app", "web")),
            "body": " ".join(rng.choice("abcdefgh") * rng.randrange(1, 9) for _ in range(30)),
            "verdict": rng.choice(("fine", "abuse")),
        }
        for place, time in enumerate(received)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_two_hours_of_a_day_see_what_was_known_by_then(domain: Path, home: Home, tmp_path: Path) -> None:
    """A message each half hour, all there in the morning as history, and ten older ones that land in the evening."""
    settings, source = load_settings("quick"), tmp_path / "source"
    write(source / "history.jsonl", 0, [datetime(2024, 3, 1) + timedelta(minutes=30 * place) for place in range(480)])
    ingest([str(source)], home.lake, settings.ingestion, home.domain, MORNING)
    write(source / "late.jsonl", 1000, [datetime(2024, 3, 5, 12)] * 10)
    ingest([str(source)], home.lake, settings.ingestion, home.domain, EVENING)
    build_marts(home)
    publish(home, audit(home, EVENING, settings.warehouse), settings.warehouse)
    wanted = settings.snapshot.model_copy(update={"test_rows": 30, "min_train_rows": 50})
    tested = {}
    for as_of in (MORNING, EVENING):
        snapshot = build_training_set(home, as_of, wanted)
        assert [found for found in check_training_set(home, snapshot) if not found.passed] == []
        tested[as_of] = snapshot.test().set_index(snapshot.test()["record_id"].astype(int))["known_at"]
    # Whole days, of which the newest ends two days before: with 9:00, and with 18:00.
    assert set(tested[MORNING].index) == set(range(6 * 48, 7 * 48 + 19))
    assert set(tested[EVENING].index) == {*range(7 * 48, 7 * 48 + 37), *range(1000, 1010)}
    assert set(tested[EVENING].loc[1000:]) == {datetime(2024, 3, 10, 18)}


def test_partitions_and_the_schedule_are_hourly(domain: Path, home: Home) -> None:
    done = subprocess.run([sys.executable, "-c", TOLD], cwd=RARE.parents[2], capture_output=True, text=True, check=True)
    key = "2024-03-10T09"
    assert json.loads(done.stdout) == ["hourly", "5 * * * *", key, [key], "1:30:00"]


@pytest.mark.parametrize(
    "command", [["run", "--source", "x", "--as-of", "2024-03-10"], ["ledger", "--at", "2024-03-10"]], ids=lambda c: c[0]
)
def test_a_date_is_refused_with_what_to_write(domain: Path, home: Home, command: list[str]) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "'2024-03-10' is no hour; write YYYY-MM-DDTHH" in " ".join(done.output.split())


def test_a_home_keeps_its_cadence(domain: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.claim()
    home.require_known()
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(RARE))
    with pytest.raises(SettingsError, match="has a night every hour, not every day"):
        home.require_known()


def test_a_key_may_name_the_hour_of_publication() -> None:
    calendar = Calendar(MORNING, False, r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(T(?P<hour>\d\d))?")
    known = {"2024-03-10T08": "2024-03-10T08", "2024-03-10": "2024-03-10", "2024-03-10T25": MORNING, "new": MORNING}
    assert {key: calendar.known_from(f"a/{key}.jsonl") for key in known} == known
    assert [calendar.has_come(key) for key in (MORNING, "2024-03-10", "2024-03-10T10")] == [True, True, False]
