"""The nightly run."""

import dagster as dg

from pipelines.jobs import refresh

__all__ = ["nightly"]


@dg.schedule(cron_schedule="0 2 * * *", job=refresh, execution_timezone="UTC")
def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Runs the whole graph as of the day that begins; an unchanged snapshot trains nothing."""
    as_of = context.scheduled_execution_time.date().isoformat()
    return dg.RunRequest(run_key=f"nightly-{as_of}", partition_key=as_of)
