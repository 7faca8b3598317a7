"""Runs the graph in this process, as a run of the home's Dagster instance."""

import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob  # dagster exports what needs these, but not these
from dagster._core.execution.api import execute_run
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin

from assets.cluster.jobs import Job, run_job
from assets.exceptions import TrainingError
from assets.home import Home
from assets.logs import stdout_logged
from assets.settings import CONFIGS
from pipelines.failures import stopped, told
from pipelines.faults import full_disk
from pipelines.instance import COMMAND_TAG, LOCATION, close_killed_runs, close_runs, open_instance
from pipelines.progress import Lines
from pipelines.stopping import Stopped, noted

__all__ = ["ORIGIN", "GraphRun", "output_to", "run_graph", "run_worker"]

_CODE = GrpcServerCodeLocationOrigin("localhost", socket="", location_name=LOCATION)
ORIGIN = RemoteRepositoryOrigin(_CODE, "__repository__")
"""Where the pages find the job of a run: without it the timeline leaves the run out."""
_TALKATIVE = ("raw_records", "challenger", "refit", "predictions")
"""Steps whose log messages are also shown."""


@dataclass(frozen=True)
class GraphRun:
    """The result of a run of the graph."""

    run_id: str
    seconds: dict[str, float]
    """Seconds by step, in the order of completion; all of dbt's models are the one step `warehouse`."""
    failure: str | None
    """Where and why the graph stopped, on one line; None when it did not."""
    passed: int
    """Checks that passed."""
    warnings: tuple[str, ...]
    """The results of the checks that did not pass and stopped nothing."""


def run_worker(work: list[str] | Job) -> None:
    """Run a training outside Dagster; a command reports on stderr. Raises TrainingError or ClusterError when it ends
    early."""
    if isinstance(work, Job):
        run_job(work)
        return
    ended = subprocess.run(work, cwd=CONFIGS.parent, check=False).returncode
    if ended:
        raise TrainingError(f"the training processes ended early, with exit code {ended}")


def run_graph(
    home: Home,
    sources: list[str],
    as_of: str,
    profile: str,
    progress: Lines,
    job: str = "refresh",
    history: bool = False,
) -> GraphRun:
    """Run a job that starts with the sources for one as-of date, with a line of progress per step.

    `history` treats new objects as history, known by the dates of their records. Only one such run at a time works on a
    home: a second one waits for the first. Output of libraries goes to `<home>/logs/<run id>.log`. Raises Stopped when
    a signal ends the run.
    """
    run_id, watcher = str(uuid.uuid4()), _Watcher(progress)
    with noted() as signal, _alone(home, progress), open_instance(home) as instance:
        close_runs(instance, lambda run: COMMAND_TAG in run.tags)
        close_killed_runs(instance, home)
        instance.add_event_listener(run_id, watcher)
        instance.add_event_listener(run_id, partial(_cancel_when_stopped, instance))
        with output_to(home.root / "logs" / f"{run_id}.log"):
            succeeded = _execute(instance, watcher, run_id, sources, as_of, profile, job, history)
            number = signal()
    if number is not None and not succeeded:
        raise Stopped(number, watcher.where)
    why = None if succeeded else full_disk(home) or watcher.failure or "stopped before its first step"
    return GraphRun(run_id, watcher.seconds, why, watcher.passed, tuple(watcher.warnings))


def _execute(
    instance: dg.DagsterInstance,
    watcher: "_Watcher",
    run_id: str,
    sources: list[str],
    as_of: str,
    profile: str,
    job: str,
    history: bool,
) -> bool:
    from pipelines.definitions import defs

    definition = defs.resolve_job_def(job)
    watcher.steps = len(definition.nodes)
    run = instance.create_run_for_job(
        definition,
        run_id=run_id,
        tags={COMMAND_TAG: "run", **definition.get_tags_for_partition_key(as_of, None)},
        run_config={
            "ops": {"raw_records": {"config": {"sources": sources, "history": history}}},
            "resources": {"evergreen": {"config": {"profile": profile}}},
        },
        remote_job_origin=ORIGIN.get_job_origin(job),
    )
    return execute_run(InMemoryJob(definition), run, instance).success


class _Warnings(logging.Handler):
    """Shows log messages, one line each."""

    def __init__(self, progress: Lines) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress(f"              {record.getMessage()}")


class _Watcher:
    """Turns the run's events into lines of progress, and remembers the result."""

    def __init__(self, progress: Lines) -> None:
        self.seconds: dict[str, float] = {}
        self.failure: str | None = None
        self.passed = 0
        self.warnings: list[str] = []
        self.steps = 0
        self._step: str | None = None
        self._progress = progress

    @property
    def where(self) -> str:
        """Where another run goes on; empty before the first step."""
        return f"step {len(self.seconds) + 1} of {self.steps}, {self._step}" if self._step else ""

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if entry.step_key in _TALKATIVE and entry.level == logging.INFO:
                self._progress(f"              {entry.user_message}")
        elif event.event_type_value == "STEP_START":
            self._step = str(event.step_key)
            self._progress.started(self._step, len(self.seconds) + 1, self.steps)
        elif event.event_type_value == "STEP_SUCCESS":
            self._ended(str(event.step_key), event.step_success_data.duration_ms / 1000)
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            self._judged(event.asset_check_evaluation_data)
        elif event.event_type_value in ("STEP_FAILURE", "PIPELINE_FAILURE") and self.failure is None:
            self.failure = stopped(event)

    def _judged(self, check: dg.AssetCheckEvaluation) -> None:
        if check.passed:
            self.passed += 1
        elif check.blocking and check.severity is dg.AssetCheckSeverity.ERROR:
            self._progress(f"      failed  {told(check)}")
        else:
            self.warnings.append(told(check))
            self._progress(f"     warning  {told(check)}")

    def _ended(self, step: str, seconds: float) -> None:
        self.seconds[step] = round(seconds, 2)
        self._progress.ended(step, seconds)


def _cancel_when_stopped(instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> None:
    """Report a stopped run as canceled, like one that is terminated in the UI, not as failed."""
    event = entry.dagster_event
    if event is None or event.event_type_value != "STEP_FAILURE":
        return
    run = instance.get_run_by_id(entry.run_id)
    if run and event.step_failure_data.error_source is ErrorSource.INTERRUPT:
        instance.report_run_canceling(run, "This run was asked to stop.")


@contextmanager
def _warnings_to(progress: Lines) -> Iterator[None]:
    lines, logger = _Warnings(progress), logging.getLogger("evergreen")
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)


@contextmanager
def _alone(home: Home, progress: Lines) -> Iterator[None]:
    """Wait for another run of this command, and show the messages about waiting."""
    with _warnings_to(progress), home.exclusively("command", f"its run on {home.root}"):
        yield


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send the output of libraries and child processes to a file; stdout and stderr stay ours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    with log.open("ab") as file, _kept(1), _kept(2), stdout_logged():
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            _flush()  # fails on a full disk


@contextmanager
def _kept(number: int) -> Iterator[None]:
    """Restore a file descriptor at the end."""
    saved = os.dup(number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
