"""A decision to retrain is launched, and again when its run failed or was killed, until there is a verdict."""

from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo

import dagster as dg
import pytest

from assets.home import Home
from assets.locks import alive
from assets.monitoring.retraining import recall
from assets.registry.shared_ledger import ledger_of
from assets.resources import Evergreen
from assets.settings import load_settings
from pipelines import sensors
from pipelines.definitions import defs
from pipelines.instance import open_instance

RETRAIN = {"decision": "retrain", "reason": "drift", "ground": "drift", "numbers": {"champion": "1", "cost": 5.0}}


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as instance:
        yield instance


def tick(instance: dg.DagsterInstance) -> dg.RunRequest | str:
    """What the sensor asks for, or why it asks for nothing."""
    with dg.build_sensor_context(instance=instance, resources={"evergreen": Evergreen()}) as context:
        found = sensors.retraining_due(context)
    assert isinstance(found, dg.RunRequest | dg.SkipReason)
    return found if isinstance(found, dg.RunRequest) else str(found.skip_message)


def launch(instance: dg.DagsterInstance, request: dg.RunRequest | str) -> dg.DagsterRun:
    """As the daemon does."""
    assert isinstance(request, dg.RunRequest)
    job = defs.resolve_job_def("retrain")
    tags = {**request.tags, "dagster/partition": str(request.partition_key)}
    return instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)


def test_a_failed_retraining_is_tried_again_with_growing_delays_and_then_left_to_a_person(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_of(home)
    for day, decision in (("2024-01-31", "retrain"), ("2024-02-01", "retrain"), ("2024-02-02", "skip")):
        ledger.append("retraining", day, day, RETRAIN | {"decision": decision})
    request, keys = tick(instance), []
    for attempt in (1, 2, 3, 4):
        run = launch(instance, request)
        keys.append((run.tags["evergreen/decision"], run.tags["dagster/partition"]))
        assert f"attempt {attempt}, run {run.run_id}: started" in tick(instance)
        instance.report_run_failed(run)
        monkeypatch.setattr(sensors, "_FIRST_DELAY", timedelta(hours=1))
        waits = tick(instance)
        monkeypatch.setattr(sensors, "_FIRST_DELAY", timedelta())
        request = tick(instance)
        assert attempt == 4 or f"attempt {attempt} has failed; the next starts at" in str(waits)
    assert request == "4 attempts have failed; the next decision alerts a person"
    assert keys == [("2", "2024-02-01")] * 4
    assert [entry.body["attempt"] for entry in ledger.entries("attempt")] == [1, 2, 3, 4]
    assert recall(ledger.entries(), "2024-02-03", "1", None, load_settings("quick").retraining).failed == 5


def test_a_retraining_is_not_launched_again_once_there_is_a_verdict(home: Home, instance: dg.DagsterInstance) -> None:
    ledger = ledger_of(home)
    assert tick(instance) == "no decision to retrain is pending"
    ledger.append("retraining", "a", "2024-02-01", RETRAIN)
    instance.report_run_failed(launch(instance, tick(instance)))
    ledger.append("verdict", "v1-1", "2024-02-01", {"decision": "reject"})
    assert tick(instance) == "no decision to retrain is pending"


def test_a_decision_of_a_backfill_launches_nothing_and_hides_none(home: Home, instance: dg.DagsterInstance) -> None:
    ledger = ledger_of(home)
    ledger.append("verdict", "v1-1", "2024-03-01", {"decision": "promote"})
    ledger.append("retraining", "past", "2024-02-15", RETRAIN)
    assert tick(instance) == "no decision to retrain is pending"
    ledger.append("retraining", "new", "2024-03-02", RETRAIN)
    ledger.append("retraining", "past again", "2024-02-16", RETRAIN)
    request = tick(instance)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2024-03-02"


def test_a_killed_retraining_is_found_and_counts_as_failed(home: Home, instance: dg.DagsterInstance) -> None:
    ledger_of(home).append("retraining", "a", "2024-02-01", RETRAIN)
    run = launch(instance, tick(instance))
    with alive(home.running(run.run_id)):
        assert str(tick(instance)).endswith("started")
    home.running(run.run_id).touch()  # what a kill leaves
    assert "attempt 1 has failed" in str(tick(instance))


def test_a_clock_that_was_set_back_does_not_put_a_retraining_off(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(days=1)

    ledger_of(home).append("retraining", "a", "2024-02-01", RETRAIN)
    instance.report_run_failed(launch(instance, tick(instance)))
    assert "the next starts at" in str(tick(instance))
    monkeypatch.setattr(sensors, "datetime", Yesterday)
    assert isinstance(tick(instance), dg.RunRequest)


def test_what_a_person_has_canceled_waits_for_the_next_decision(home: Home, instance: dg.DagsterInstance) -> None:
    ledger_of(home).append("retraining", "a", "2024-02-01", RETRAIN)
    run = launch(instance, tick(instance))
    instance.report_run_canceling(run)
    instance.report_run_canceled(run)
    assert str(tick(instance)).endswith("canceled")
