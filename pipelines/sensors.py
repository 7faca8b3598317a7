"""Starts runs without a person, for new data or a decision to retrain, records failed runs, and tells people."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import MAX_RETRIES_TAG  # dagster exports what reads it, but not this

from assets.as_of import at
from assets.registry.shared_ledger import ledger_of
from assets.resources import Evergreen, as_of_run
from assets.settings import load_alert_settings
from pipelines.clock import NO_DAY, now
from pipelines.failures import stopped
from pipelines.instance import close_killed_runs, request
from pipelines.jobs import observe, retrain

__all__ = ["SENSORS", "alerts", "failed_run", "new_data", "retraining_due"]

_FIRST_DELAY = timedelta(hours=1)


@dg.sensor(
    job=observe,
    minimum_interval_seconds=300,
    description="Launches `observe` when the sources have new or changed objects: those in EVERGREEN_SOURCES, else the "
    "home's simulated records.",
)
def new_data(context: dg.SensorEvaluationContext, evergreen: Evergreen) -> dg.RunRequest | dg.SkipReason:
    from assets.ingestion.sources import configured_sources, fingerprint

    sources = configured_sources()
    if not sources:
        return dg.SkipReason("EVERGREEN_SOURCES is not set: there is nothing to watch")
    digest = fingerprint(sources)
    if digest == context.cursor:
        return dg.SkipReason("no object was added or changed")
    as_of = now(evergreen.home)
    if as_of is None:
        return dg.SkipReason(NO_DAY)
    context.update_cursor(digest)
    return request(context.instance, as_of, run_key=f"new-data-{digest}")


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=5,
    description="Launches `retrain` for the newest decision to retrain in the ledger, and again when its run failed or "
    "was killed: after 1, 2, 4, ... hours, `attempts` of configs/retraining.yaml in all. The ledger has each attempt.",
)
def retraining_due(context: dg.SensorEvaluationContext, evergreen: Evergreen) -> dg.RunRequest | dg.SkipReason:
    from assets.monitoring.retraining import ATTEMPT_AT, due

    close_killed_runs(context.instance, evergreen.home)
    ledger = ledger_of(evergreen.home)
    decision = due(ledger.entries())
    if decision is None:
        return dg.SkipReason("no decision to retrain is pending")
    begun = {ATTEMPT_AT: str(decision.seq)}
    runs = context.instance.get_run_records(dg.RunsFilter(job_name=retrain.name, tags=begun))
    if why := _stays(runs, evergreen.settings.retraining.attempts):
        return dg.SkipReason(why)
    attempt = len(runs) + 1
    what = {"decision": decision.seq, "attempt": attempt, "reason": f"attempt {attempt} at entry {decision.seq}"}
    ledger.append("attempt", f"{decision.seq}-{attempt}", decision.as_of, what)
    run_key = f"retrain-{decision.as_of}-{decision.seq}-{attempt}"
    # Attempts are counted here: Dagster launches none of its own.
    return request(context.instance, decision.as_of, run_key=run_key, tags=begun | {MAX_RETRIES_TAG: "0"})


def _stays(runs: Sequence[dg.RunRecord], attempts: int) -> str | None:
    """Why no further attempt is due now; None when one is. `runs`: the attempts so far, newest first."""
    if not runs:
        return None
    status, ended = runs[0].dagster_run.status, runs[0].end_time
    if status is not dg.DagsterRunStatus.FAILURE or ended is None:
        return f"attempt {len(runs)}, run {runs[0].dagster_run.run_id}: {status.value.lower()}"
    if len(runs) >= attempts:
        return f"{len(runs)} attempts have failed; the next decision alerts a person"
    failed, now = datetime.fromtimestamp(ended, UTC), datetime.now(UTC)
    again = failed + _FIRST_DELAY * 2 ** (len(runs) - 1)
    # A failure in the future was recorded before the clock was set back: nobody knows how long ago it was.
    waits = failed <= now < again
    return f"attempt {len(runs)} has failed; the next starts at {again:%H:%M} UTC" if waits else None


@dg.run_failure_sensor(
    monitor_all_code_locations=False,
    description="Records a failed run and its reason in the ledger, where `evergreen ledger` shows it.",
)
def failed_run(context: dg.RunFailureSensorContext, evergreen: Evergreen) -> None:
    run = context.dagster_run
    ledger, today = ledger_of(evergreen.home), at(datetime.now(UTC), evergreen.home.domain.cadence)
    as_of = as_of_run(run) or ledger.newest_day() or today  # `settle` has no day
    first = next(iter(context.for_run_failure().get_step_failure_events()), context.failure_event)
    ledger.append("failure", run.run_id, as_of, {"job": run.job_name, "run_id": run.run_id, "error": stopped(first)})


@dg.sensor(
    minimum_interval_seconds=30,
    description="Posts alerts to the address of configs/alerts.yaml: failed runs, what a person is needed for, drift "
    "when it begins, a spent budget. Each entry of the ledger is told once.",
)
def alerts(evergreen: Evergreen) -> dg.SkipReason:
    from assets.watching.delivery import send_due

    return dg.SkipReason(send_due(evergreen.home, load_alert_settings(), datetime.now(UTC)))


SENSORS = [new_data, retraining_due, failed_run, alerts]
