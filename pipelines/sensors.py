"""Starts runs without a person, for new data or a decision to retrain, and records failed runs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from assets.as_of import at
from assets.registry.ledger import Ledger
from assets.resources import Evergreen
from assets.settings import load_domain
from pipelines.failures import stopped
from pipelines.instance import close_killed_runs
from pipelines.jobs import observe, retrain

__all__ = ["SENSORS", "failed_run", "new_data", "retraining_due"]

_FIRST_DELAY = timedelta(hours=1)


@dg.sensor(job=observe, minimum_interval_seconds=300)
def new_data(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Launches `observe` when the sources in EVERGREEN_SOURCES have new or changed objects."""
    from assets.ingestion.sources import configured_sources, fingerprint

    sources = configured_sources()
    if not sources:
        return dg.SkipReason("EVERGREEN_SOURCES is not set: there is nothing to watch")
    digest = fingerprint(sources)
    if digest == context.cursor:
        return dg.SkipReason("no object was added or changed")
    context.update_cursor(digest)
    return dg.RunRequest(run_key=f"new-data-{digest}", partition_key=_now())


def _now() -> str:
    """The as-of of a run that pretends nothing."""
    return at(datetime.now(UTC), load_domain().cadence)


@dg.sensor(job=retrain, minimum_interval_seconds=5)
def retraining_due(context: dg.SensorEvaluationContext, evergreen: Evergreen) -> dg.RunRequest | dg.SkipReason:
    """Launches `retrain` for the newest decision to retrain in the ledger, and again when its run failed or was killed.

    After 1, 2, 4, ... hours, `attempts` of configs/retraining.yaml in all; each attempt is in the ledger.
    """
    from assets.monitoring.retraining import ATTEMPT_AT, due

    close_killed_runs(context.instance, evergreen.home)
    ledger = Ledger.of(evergreen.home)
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
    return dg.RunRequest(run_key=run_key, partition_key=decision.as_of, tags=begun)


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


@dg.run_failure_sensor(monitor_all_code_locations=False)
def failed_run(context: dg.RunFailureSensorContext, evergreen: Evergreen) -> None:
    """Records a failed run and its reason in the ledger, where `evergreen ledger` shows it."""
    run = context.dagster_run
    ledger, now = Ledger.of(evergreen.home), _now()
    as_of = run.tags.get("dagster/partition") or ledger.newest_day() or now  # `settle` has no day
    first = next(iter(context.for_run_failure().get_step_failure_events()), context.failure_event)
    ledger.append("failure", run.run_id, as_of, {"job": run.job_name, "run_id": run.run_id, "error": stopped(first)})


SENSORS = [new_data, retraining_due, failed_run]
