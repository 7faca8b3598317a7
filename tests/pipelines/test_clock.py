"""As of when runs are that nobody has given a date: the wall clock's, or that of a simulated world."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from assets.resources import Evergreen
from pipelines.clock import NO_DAY
from pipelines.instance import open_instance
from pipelines.schedules import nightly
from pipelines.sensors import new_data

NIGHT = datetime(2026, 11, 27, 2, tzinfo=UTC)
TODAY = datetime.now(UTC).date().isoformat()


@pytest.fixture(autouse=True)
def unset(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_SOURCES", raising=False)


@pytest.fixture
def simulated(home: Home) -> Home:
    """A home whose records were simulated into it; `make run` ends with the entries of its day."""
    home.source.mkdir(parents=True)
    (home.source / "records-2024-06.csv").write_text("id\n1\n")
    return home


def asked_by_schedule() -> list[str | None]:
    with open_instance(Home.from_environment()) as instance:
        found = nightly(dg.build_schedule_context(instance=instance, scheduled_execution_time=NIGHT))
        return answer(found, instance)


def asked_by_sensor() -> list[str | None]:
    resources = {"evergreen": Evergreen()}
    with (
        open_instance(Home.from_environment()) as instance,
        dg.build_sensor_context(instance=instance, resources=resources) as context,
    ):
        return answer(new_data(context), instance)


def answer(found: object, instance: dg.DagsterInstance) -> list[str | None]:
    """The as-of that is asked for, which is a partition from then on; or why none is."""
    if isinstance(found, dg.SkipReason):
        return [found.skip_message]
    assert isinstance(found, dg.RunRequest)
    assert found.partition_key in instance.get_dynamic_partitions("as_of")
    return [found.partition_key]


def test_runs_on_simulated_records_are_of_the_days_of_their_world(simulated: Home) -> None:
    assert asked_by_schedule() == asked_by_sensor() == [NO_DAY]
    for day, following in (("2024-07-01", "2024-07-02"), ("2024-07-31", "2024-08-01")):
        ledger_of(simulated).append("retraining", day, day, {"decision": "skip"})
        assert asked_by_schedule() == [following]
        assert asked_by_sensor() == [day]


def test_runs_on_other_records_are_of_the_day_that_it_is(
    simulated: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger_of(simulated).append("retraining", "a", "2024-07-01", {"decision": "skip"})
    real = tmp_path / "real"
    real.mkdir()
    (real / "records.csv").write_text("id\n1\n")
    for sources in (str(real), f"{real},{simulated.source}"):
        monkeypatch.setenv("EVERGREEN_SOURCES", sources)
        assert asked_by_schedule() == ["2026-11-27"]
        assert asked_by_sensor() == [TODAY]
    monkeypatch.setenv("EVERGREEN_SOURCES", str(simulated.source))
    assert asked_by_schedule() == ["2024-07-02"]


def test_without_sources_the_sensor_says_what_to_set(home: Home) -> None:
    assert asked_by_schedule() == ["2026-11-27"]
    assert asked_by_sensor() == ["EVERGREEN_SOURCES is not set: there is nothing to watch"]
