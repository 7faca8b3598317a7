"""What starts a run without a person: new data, a decision to retrain; and what is noted when a run fails."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from assets.registry.ledger import Ledger
from assets.resources import Evergreen
from pipelines.jobs import observe, retrain
from pipelines.runs import stopped

__all__ = ["SENSORS", "failed_run", "new_data", "retraining_due"]


@dg.sensor(job=observe, minimum_interval_seconds=300)
def new_data(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Launches `observe` when the sources in EVERGREEN_SOURCES hold something that was not there before."""
    from assets.ingestion.sources import configured_sources, fingerprint

    sources = configured_sources()
    if not sources:
        return dg.SkipReason("EVERGREEN_SOURCES is not set: there is nothing to watch")
    seen = fingerprint(sources)
    if seen == context.cursor:
        return dg.SkipReason("no object was added or changed")
    context.update_cursor(seen)
    return dg.RunRequest(run_key=f"new-data-{seen}", partition_key=datetime.now(UTC).date().isoformat())


@dg.sensor(job=retrain, minimum_interval_seconds=5)
def retraining_due(context: dg.SensorEvaluationContext, evergreen: Evergreen) -> Iterator[dg.RunRequest]:
    """Launches `retrain` once for every decision to retrain that the ledger holds."""
    seen = int(context.cursor or 0)
    entries = [e for e in Ledger.of(evergreen.home).entries("retraining") if e.seq > seen]
    for entry in entries:
        if entry.body["decision"] == "retrain":
            yield dg.RunRequest(run_key=f"retrain-{entry.as_of}-{entry.seq}", partition_key=entry.as_of)
    if entries:
        context.update_cursor(str(entries[-1].seq))


@dg.run_failure_sensor(monitor_all_code_locations=False)
def failed_run(context: dg.RunFailureSensorContext, evergreen: Evergreen) -> None:
    """Notes a failed run and its reason in the ledger, where `evergreen ledger` shows it."""
    run = context.dagster_run
    ledger, today = Ledger.of(evergreen.home), datetime.now(UTC).date().isoformat()
    as_of = run.tags.get("dagster/partition") or ledger.newest_day() or today  # `settle` is of no day
    first = next(iter(context.for_run_failure().get_step_failure_events()), context.failure_event)
    ledger.append("failure", run.run_id, as_of, {"job": run.job_name, "run_id": run.run_id, "error": stopped(first)})


SENSORS = [new_data, retraining_due, failed_run]
