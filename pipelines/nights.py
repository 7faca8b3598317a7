"""What the home's Dagster instance says of a night: its runs, and the checks that warned or failed."""

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG  # dagster exports what has it, but not this

from assets.front.history import Timeline
from assets.front.night import Finding, Night, Run, night
from assets.home import Home
from pipelines.failures import stopped, words_of

__all__ = ["checks_of", "newest_night", "night_of", "runs_of"]

_MOST = 20
"""Runs that are looked at."""


def night_of(home: Home, instance: dg.DagsterInstance, known: Timeline, as_of: str) -> Night:
    """What came of an as-of, by the lake and the instance."""
    runs = runs_of(instance, as_of)
    return night(home, as_of, known, runs, checks_of(instance, runs))


def runs_of(instance: dg.DagsterInstance, as_of: str) -> tuple[Run, ...]:
    """The newest runs as of a night, the last one last."""
    records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_NAME_TAG: as_of}), limit=_MOST)
    return tuple(_run(instance, record) for record in reversed(records))


def newest_night(instance: dg.DagsterInstance) -> str | None:
    """The newest as-of of the last runs, whatever came of them; None without a run."""
    records = instance.get_run_records(limit=_MOST)
    return max(filter(None, (record.dagster_run.tags.get(PARTITION_NAME_TAG) for record in records)), default=None)


def checks_of(instance: dg.DagsterInstance, runs: tuple[Run, ...]) -> tuple[Finding, ...]:
    """The checks of some runs whose last evaluation has not passed."""
    last: dict[str, dg.AssetCheckEvaluation] = {}
    for run in runs:
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            assert entry.dagster_event is not None
            check = entry.dagster_event.asset_check_evaluation_data
            last[f"{check.asset_key.to_user_string()} {check.check_name}"] = check
    return tuple(_finding(check) for check in last.values() if not check.passed)


def _run(instance: dg.DagsterInstance, record: dg.RunRecord) -> Run:
    run, begun, ended = record.dagster_run, record.start_time, record.end_time
    seconds = ended - begun if begun is not None and ended is not None else None
    failure = _failure(instance, run.run_id) if run.status is dg.DagsterRunStatus.FAILURE else None
    return Run(run.run_id, run.job_name, run.status.value.lower().replace("_", " "), seconds, failure)


def _failure(instance: dg.DagsterInstance, run_id: str) -> str | None:
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=kinds) if entry.dagster_event]
    return stopped(events[0]) if events else None


def _finding(check: dg.AssetCheckEvaluation) -> Finding:
    is_error = check.severity is dg.AssetCheckSeverity.ERROR
    name, words, about = check.check_name, words_of(check), check.asset_key.to_user_string()
    return Finding(name, "error" if is_error else "warning", words, about)
