"""The nightly run."""

import dagster as dg

from pipelines.jobs import observe

__all__ = ["nightly"]


@dg.schedule(cron_schedule="0 2 * * *", job=observe, execution_timezone="UTC")
def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Reads, scores and decides as of the day that begins; only a decision in the ledger launches `retrain`."""
    as_of = context.scheduled_execution_time.date().isoformat()
    return dg.RunRequest(run_key=f"nightly-{as_of}", partition_key=as_of)
