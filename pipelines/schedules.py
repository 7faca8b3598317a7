"""The run of each day, or of each hour where the domain's cadence is one."""

import dagster as dg

from assets.as_of import at
from assets.settings import load_domain
from pipelines.jobs import observe

__all__ = ["nightly"]


_CADENCE = load_domain().cadence
_NAME, _CRON = {"day": ("nightly", "0 2 * * *"), "hour": ("hourly", "5 * * * *")}[_CADENCE]


@dg.schedule(name=_NAME, cron_schedule=_CRON, job=observe, execution_timezone="UTC")
def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Reads, scores and decides as of the day or hour that starts; only a decision in the ledger launches `retrain`."""
    as_of = at(context.scheduled_execution_time, _CADENCE)
    return dg.RunRequest(run_key=f"{_NAME}-{as_of}", partition_key=as_of)
