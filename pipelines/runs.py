"""Runs the graph in this process, as a run of the home's Dagster instance."""

import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
from dagster._core.execution.plan.objects import ErrorSource  # dagster exports what carries it, but not this
from yaml import YAMLError

import assets.exceptions
from assets.display import plain
from assets.exceptions import EvergreenError, TrainingError
from assets.lake import Home, has_died, is_alive, locked, write_atomically
from assets.settings import CONFIGS
from pipelines.faults import full_disk
from pipelines.stopping import Stopped, noted

__all__ = [
    *("GraphRun", "close_killed_runs", "open_instance", "run_graph", "run_worker", "say_why_interrupted", "stopped"),
]

_COMMAND_TAG = "evergreen/command"
_POOL, _TRAININGS = "training", 1
_TALKATIVE = ("raw_records", "challenger")
"""Steps of which people see what they log, too."""
_LONG = 500
"""Characters of a reason, at most."""
_SPEAK_FOR_THEMSELVES = {"Failure", "DagsterExecutionInterruptedError", *assets.exceptions.__all__}
"""Errors whose text is for a person."""
_LAID_OUT = (dg.MarkdownMetadataValue, dg.JsonMetadataValue, dg.TableMetadataValue)


@dataclass(frozen=True)
class GraphRun:
    """How a run of the graph went."""

    run_id: str
    seconds: dict[str, float]
    """Seconds by step, in the order they ended; dbt's models are the one step `warehouse`."""
    failure: str | None
    """Where and why the graph stopped, in one line; None when it did not."""


@contextmanager
def open_instance(home: Home) -> Iterator[dg.DagsterInstance]:
    """The home's Dagster instance, set up on first use; its dagster.yaml is the user's from then on.

    So is the limit of its pool, which Dagster would only write down when the first runs have been started.
    """
    settings = home.dagster / "dagster.yaml"
    if not settings.exists():
        write_atomically(settings, (CONFIGS / "dagster.yaml").read_text())
    os.environ |= {"EVERGREEN_HOME": str(home.root), "DAGSTER_HOME": str(home.dagster)}
    try:
        opened = dg.DagsterInstance.from_config(str(home.dagster))
    except (ValueError, YAMLError, dg.DagsterError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EvergreenError(f"{settings}: {reason}; mend it, or delete it to have the usual one") from None
    with opened as instance:
        pools = instance.event_log_storage
        if _POOL not in {pool.name for pool in pools.get_pool_limits()}:
            pools.set_concurrency_slots(_POOL, _TRAININGS)
        yield instance


def run_worker(command: list[str]) -> None:
    """Run a training command outside of any graph; it reports on stderr. Raises TrainingError when it ends early."""
    ended = subprocess.run(command, cwd=CONFIGS.parent, check=False).returncode
    if ended:
        raise TrainingError(f"the training processes ended early, with exit code {ended}")


def run_graph(
    home: Home,
    sources: list[str],
    as_of: str,
    profile: str,
    progress: Callable[[str], None],
    job: str = "refresh",
    history: bool = False,
) -> GraphRun:
    """Run a job that begins with the sources for one as-of date, with a line of progress per step.

    `history` takes new objects as old history, known by the dates of their records. One such run at a time works on a
    home: a second one waits for the first. What libraries print goes to `<home>/logs/<run id>.log`. Raises Stopped when
    a signal has ended the run.
    """
    run_id, watcher = str(uuid.uuid4()), _Watcher(progress)
    with noted() as signal, _alone(home, progress), open_instance(home) as instance:
        _close_runs(instance, lambda run: _COMMAND_TAG in run.tags)
        close_killed_runs(instance, home)
        instance.add_event_listener(run_id, watcher)
        instance.add_event_listener(run_id, partial(_cancel_when_stopped, instance))
        with _output_to(home.root / "logs" / f"{run_id}.log"):
            succeeded = _execute(instance, run_id, sources, as_of, profile, job, history)
            told = signal()
    if succeeded:
        return GraphRun(run_id, watcher.seconds, None)
    if told is not None:
        raise Stopped(told, f" in {watcher.step}")
    return GraphRun(run_id, watcher.seconds, full_disk(home) or watcher.failure or "stopped before its first step")


def _execute(
    instance: dg.DagsterInstance, run_id: str, sources: list[str], as_of: str, profile: str, job: str, history: bool
) -> bool:
    from pipelines.definitions import defs

    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        run_id=run_id,
        partition_key=as_of,
        raise_on_error=False,
        tags={_COMMAND_TAG: "run"},
        run_config={
            "ops": {"raw_records": {"config": {"sources": sources, "history": history}}},
            "resources": {"evergreen": {"config": {"profile": profile}}},
        },
    )
    return bool(result.success)


class _Lines(logging.Handler):
    """Shows what is logged, a line each."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress(f"              {record.getMessage()}")


class _Watcher:
    """Turns the run's events into lines of progress, and remembers how it went."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.failure: str | None = None
        self._failed_checks: list[str] = []
        self.step = "the start"
        self._progress = progress

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if entry.step_key in _TALKATIVE and entry.level == logging.INFO:
                self._progress(f"              {entry.user_message}")
        elif event.event_type_value == "STEP_START":
            self.step = str(event.step_key)
            self._progress(f"         ...  {event.step_key}")
        elif event.event_type_value == "STEP_SUCCESS":
            self._ended(str(event.step_key), event.step_success_data.duration_ms / 1000)
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            if not check.passed and check.blocking and check.severity == dg.AssetCheckSeverity.ERROR:
                self._failed_checks.append(_shortfall(check))
        elif event.event_type_value in ("STEP_FAILURE", "PIPELINE_FAILURE") and self.failure is None:
            self.failure = stopped(event, self._failed_checks)

    def _ended(self, step: str, seconds: float) -> None:
        self.seconds[step] = round(seconds, 2)
        self._progress(f"  {seconds:8.1f} s  {step}")


def stopped(event: dg.DagsterEvent, failed_checks: Sequence[str] = ()) -> str:
    """Where a run stopped, and why, in one line. `failed_checks`: what the checks said that did not pass before."""
    why = _cause(event)
    if why.startswith("DagsterAssetCheckFailedError") and failed_checks:
        why = "; ".join(failed_checks)
    return f"stopped at {event.step_key or 'the start'}: {why}"


def say_why_interrupted() -> None:
    """Give Dagster's interruption of a run a text: it raises it without one, and shows no more than its class."""
    text = "this run was told to stop; what was published is intact"
    dg.DagsterExecutionInterruptedError.__str__ = lambda _: text  # type: ignore[method-assign]


def _cancel_when_stopped(instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> None:
    """A run that is told to stop is canceled, as one that is terminated in the UI is, and has not failed."""
    event = entry.dagster_event
    if event is None or event.event_type_value != "STEP_FAILURE":
        return
    run = instance.get_run_by_id(entry.run_id)
    if run and event.step_failure_data.error_source is ErrorSource.INTERRUPT:
        instance.report_run_canceling(run, "This run was told to stop.")


def _cause(event: dg.DagsterEvent) -> str:
    """The innermost error, never empty: what it says, after its class unless that speaks for itself."""
    error = getattr(event.event_specific_data, "error", None)
    if error is None:
        return plain(event.message or event.event_type_value, _LONG)
    while error.cause is not None:
        error = error.cause
    kind, _, said = error.message.partition(":")
    name = kind.strip().rpartition(".")[2]
    return plain(said if said.strip() and name in _SPEAK_FOR_THEMSELVES else f"{name}: {said}".strip(": \n"), _LONG)


def _shortfall(check: dg.AssetCheckEvaluation) -> str:
    """What a failed check says, or else the numbers that it was decided by."""
    numbers = [f"{name} {value.value}" for name, value in check.metadata.items() if not isinstance(value, _LAID_OUT)]
    return plain(f"check {check.check_name} failed: {check.description or ', '.join(numbers)}".rstrip(": "), _LONG)


@contextmanager
def _warnings_to(progress: Callable[[str], None]) -> Iterator[None]:
    lines, logger = _Lines(progress), logging.getLogger("evergreen")
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)


@contextmanager
def _alone(home: Home, progress: Callable[[str], None]) -> Iterator[None]:
    """Wait for another run of this command, and show what runs say of waiting."""
    with _warnings_to(progress), locked(home.root / ".lock", f"its run on {home.root}"):
        yield


def close_killed_runs(instance: dg.DagsterInstance, home: Home, *, restarted: bool = False) -> None:
    """Mark what still counts as going on, and has no process any more, as failed.

    restarted: no daemon of the home lives, nor any run that one has launched, so that this holds also for those that
    were killed before they could say that they were alive.
    """

    def is_dead(run: dg.DagsterRun) -> bool:
        file = home.running(run.run_id)
        return has_died(file) or (restarted and _COMMAND_TAG not in run.tags and not is_alive(file))

    _close_runs(instance, is_dead)


def _close_runs(instance: dg.DagsterInstance, is_dead: Callable[[dg.DagsterRun], bool]) -> None:
    alive = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for run in filter(is_dead, instance.get_runs(dg.RunsFilter(statuses=alive))):
        instance.report_run_failed(run, "The process of this run was killed.")


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process and its children print to a file; stdout and stderr stay ours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    with log.open("ab") as file, _kept(1), _kept(2):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            _flush()  # which a full disk refuses


@contextmanager
def _kept(number: int) -> Iterator[None]:
    """Have a file descriptor as it was at the end."""
    saved = os.dup(number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
