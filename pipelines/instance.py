"""The home's Dagster instance, and the runs in it whose processes have died."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
import yaml
from dagster._core.storage.tags import PARTITION_NAME_TAG  # dagster exports what has it, but not this

from assets.exceptions import EvergreenError
from assets.home import Home
from assets.resources import AS_OF, remember
from assets.settings import CONFIGS
from assets.writing import write_atomically

__all__ = [
    *(
        "COMMAND_TAG",
        "LOCATION",
        "POOLS",
        "close_killed_runs",
        "close_runs",
        "launched_runs",
        "open_instance",
        "request",
    ),
]

COMMAND_TAG = "evergreen/command"
"""Tags runs of the command, which have no process of their own."""
LOCATION = "evergreen"
"""What Dagster calls the place of the definitions."""
POOLS = frozenset({"ingestion", "training", "scoring", "retention"})
"""Parts of the graph that share what they work on, so that one run at a time has them; runs of two parts go on side by
side."""
_MARKED_WITHIN = 900
"""Seconds after its start within which a run has marked itself as alive, also on a busy machine."""
_ALIVE = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


@contextmanager
def open_instance(home: Home) -> Iterator[dg.DagsterInstance]:
    """The home's Dagster instance, set up on first use; afterwards its dagster.yaml belongs to the user.

    So do the limits of its pools, which Dagster would write only once the first runs have started. On a machine that
    shares the home it is written anew each time.
    """
    settings = home.dagster / "dagster.yaml"
    if home.environment.is_shared or not settings.exists():
        write_atomically(settings, _instance_settings(home))
    os.environ |= {"EVERGREEN_HOME": str(home.root), "DAGSTER_HOME": str(home.dagster)}
    try:
        opened = dg.DagsterInstance.from_config(str(home.dagster))
    except (ValueError, yaml.YAMLError, dg.DagsterError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EvergreenError(f"{settings}: {reason}; correct it, or delete it to get the default") from None
    with opened as instance:
        if not instance.get_dynamic_partitions(str(AS_OF.name)):  # of a home from before, or whose instance was deleted
            remember(instance, *(table.removeprefix("mart_audit/") for table in home.lake.tables("mart_audit")))
        known = {pool.name for pool in instance.event_log_storage.get_pool_limits()}
        for pool in POOLS.difference(known):
            instance.event_log_storage.set_concurrency_slots(pool, 1)
        yield instance


def _instance_settings(home: Home) -> str:
    """The text of a new dagster.yaml: configs/dagster.yaml and, where machines share the home, dagster-shared.yaml."""
    text = (CONFIGS / "dagster.yaml").read_text()
    if home.environment.database is None:
        return text
    shared = yaml.safe_load(text) | yaml.safe_load((CONFIGS / "dagster-shared.yaml").read_text())
    return yaml.safe_dump(shared | {"storage": {"postgres": {"postgres_url": home.environment.database}}})


def request(
    instance: dg.DagsterInstance, as_of: str, run_key: str | None = None, tags: Mapping[str, str] | None = None
) -> dg.RunRequest:
    """A run as of an instant, which is a partition from now on."""
    remember(instance, as_of)
    return dg.RunRequest(run_key=run_key, partition_key=as_of, tags=tags)


def close_killed_runs(instance: dg.DagsterInstance, home: Home, *, restarted: bool = False) -> None:
    """Mark runs that still count as running, but have no process any more, as failed.

    `restarted`: no daemon of the home is alive, nor any run launched by one, so this also applies to runs that were
    killed before they could mark themselves as alive. Where machines share the home, it applies to those that have had
    `_MARKED_WITHIN` seconds to do so.
    """

    def is_dead(run: dg.DagsterRun) -> bool:
        if home.leases:
            begun = next(iter(instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id])))).start_time
            had_time = begun is not None and time.time() - begun > _MARKED_WITHIN
        else:
            had_time = restarted and COMMAND_TAG not in run.tags
        return home.has_died(run.run_id) or (had_time and not home.is_alive(run.run_id))

    close_runs(instance, is_dead)


def launched_runs(instance: dg.DagsterInstance) -> list[str]:
    """What goes on in processes that the servers have started, for people; runs of the command are their own."""
    runs = [run for run in instance.get_runs(dg.RunsFilter(statuses=_ALIVE)) if COMMAND_TAG not in run.tags]
    return [f"{run.job_name} {run.tags.get(PARTITION_NAME_TAG, '')} (run {run.run_id[:8]})" for run in runs]


def close_runs(instance: dg.DagsterInstance, is_dead: Callable[[dg.DagsterRun], bool]) -> None:
    for run in filter(is_dead, instance.get_runs(dg.RunsFilter(statuses=_ALIVE))):
        instance.report_run_failed(run, "The process of this run was killed.")
