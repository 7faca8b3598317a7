"""What is noted when a run fails."""

import dagster as dg
import pytest

from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from assets.resources import Evergreen
from pipelines.sensors import failed_run


@dg.op
def refuse() -> None:
    raise ValueError("nothing awaits approval")


@dg.job
def settle() -> None:
    refuse()


def note(partition: str | None) -> None:
    """Have `failed_run` see a run of `settle` fail."""
    tags = {"dagster/partition": partition} if partition else {}
    with dg.DagsterInstance.ephemeral() as instance:
        result = settle.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_run",
            dagster_event=next(e for e in reversed(result.all_events) if e.event_type_value == "PIPELINE_FAILURE"),
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            resources={"evergreen": Evergreen()},
        )
        with context.for_run_failure() as opened:
            failed_run(opened)


@pytest.mark.parametrize(("partition", "as_of"), [("2024-05-01", "2024-05-01"), (None, "2024-06-01")])
def test_a_failed_run_is_noted_on_its_day_or_on_the_ledgers_newest(
    partition: str | None, as_of: str, home: Home
) -> None:
    """A rollback is dated as the ledger's newest entry: an empty date would hide who was champion."""
    ledger = ledger_of(home)
    for day in ("2024-06-01", "2024-04-01"):
        ledger.append("retraining", day, day, {"decision": "skip"})
    note(partition)
    (entry,) = ledger.entries("failure")
    assert (entry.as_of, entry.body["job"]) == (as_of, "settle")
    assert "nothing awaits approval" in entry.body["error"]
    assert ledger.newest_day() == "2024-06-01"
