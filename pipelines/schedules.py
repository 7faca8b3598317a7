"""The run of each day, or of each hour where the domain's cadence is one."""

import dagster as dg

from assets.home import Home
from assets.settings import load_domain
from pipelines.clock import NO_DAY, following
from pipelines.instance import request
from pipelines.jobs import observe

__all__ = ["nightly"]


_NAME, _CRON = {"day": ("nightly", "0 2 * * *"), "hour": ("hourly", "5 * * * *")}[load_domain().cadence]


@dg.schedule(
    name=_NAME,
    cron_schedule=_CRON,
    job=observe,
    execution_timezone="UTC",
    description="Runs `observe` as of the day or hour that starts, which reads, scores and decides; only a decision in "
    "the ledger launches `retrain`. On simulated records each run is the next day of their world.",
)
def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    as_of = following(Home.from_environment(), context.scheduled_execution_time)
    return request(context.instance, as_of) if as_of else dg.SkipReason(NO_DAY)
