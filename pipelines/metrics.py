"""The figures of a home for Prometheus, with those of its runs, and the server that answers with them."""

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from contextvars import copy_context
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG  # dagster exports what has it, but not this
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from assets.exceptions import EvergreenError, SettingsError
from assets.home import Home
from assets.settings import load_settings
from assets.watching.figures import Figure, Part, Watch, gauge, labelled
from assets.watching.home import parts_of
from assets.watching.progress import progress
from pipelines.guard import secret_of
from pipelines.instance import open_instance
from pipelines.jobs import JOBS, settle
from pipelines.resources import PROFILE

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Metrics", "application", "listening", "serve", "token_file"]

_MOST = 500
"""Runs that are looked at, the newest: retention keeps fewer finished ones."""
_SCRAPES = 20
"""The most requests that are answered at once; more are refused with 503."""
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_STATUSES = (*_ENDED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED)
_GOING_ON = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
_NAMES = (*(job.name for job in JOBS), settle.name)


class Metrics:
    """A home's figures as Prometheus reads them. Its Dagster instance is opened once there is one."""

    def __init__(self, home: Home, instance: dg.DagsterInstance | None = None) -> None:
        self._home, self._instance, self._open = home, instance, ExitStack()
        # Dagster keeps something of an open instance in the context, which belongs to whoever asks.
        self._context = copy_context()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.run(self._open.close)

    def answer(self, _: Request | None = None) -> Response:
        """All figures in Prometheus' format of text, version 1.0.0."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.exposition import CONTENT_TYPE_LATEST

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return Response(
            generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
        )

    def collect(self) -> "Iterator[Metric]":
        """The figures as prometheus_client's registry takes them."""
        return map(_metric, self._watch.figures())

    @cached_property
    def _watch(self) -> Watch:
        runs = {"runs": Part(self._newest, self._runs), "progress": Part(lambda: None, self._progress)}
        return Watch(parts_of(self._home, load_settings(PROFILE)) | runs)

    def _dagster(self) -> dg.DagsterInstance | None:
        """None before the first run: a home that is only looked at gets no databases."""
        if self._instance is None and (self._home.dagster / "dagster.yaml").exists():
            self._instance = self._context.run(self._open.enter_context, open_instance(self._home))
        return self._instance

    def _newest(self) -> tuple[object, ...]:
        """What changes with any run that begins, goes on, ends or is removed."""
        if (instance := self._dagster()) is None:
            return ()
        records = instance.get_run_records(limit=1, order_by="update_timestamp")
        return instance.get_runs_count(), *((record.storage_id, record.update_timestamp) for record in records)

    def _runs(self) -> Iterator[Figure]:
        instance = self._dagster()
        records = instance.get_run_records(limit=_MOST) if instance else []
        return _figures([record for record in records if record.dagster_run.job_name in _NAMES])

    def _progress(self) -> Iterator[Figure]:
        instance = self._dagster()
        running = instance.get_run_records(dg.RunsFilter(statuses=_GOING_ON)) if instance else []
        begun = min((record.start_time or record.create_timestamp.timestamp() for record in running), default=None)
        return progress(self._home.lake, begun)


def _figures(records: Sequence[dg.RunRecord]) -> Iterator[Figure]:
    """Of runs, the newest first."""
    counts: dict[tuple[str, ...], float] = {(job, _word(status)): 0.0 for job in _NAMES for status in _STATUSES}
    for record in records:
        kind = (record.dagster_run.job_name, _word(record.dagster_run.status))
        counts[kind] = counts.get(kind, 0.0) + 1
    yield Figure("evergreen_runs", "Runs that Dagster knows.", counts, ("dagster_job", "status"))
    queued, running = (_number(records, statuses) for statuses in ((dg.DagsterRunStatus.QUEUED,), _GOING_ON))
    yield from gauge("evergreen_runs_queued", "Runs that wait to be started.", queued)
    yield from gauge("evergreen_runs_running", "Runs that are going on.", running)
    yield from _last(records)


def _last(records: Sequence[dg.RunRecord]) -> Iterator[Figure]:
    """The last run of each job: when it ended, by how it ended, how long it took and where more is told of it."""
    ends: dict[tuple[str, ...], float] = {}
    seconds: dict[str, float | None] = {}
    about: dict[str, tuple[str, str, str]] = {}
    for record in records:
        run, begun, ended = record.dagster_run, record.start_time, record.end_time
        about.setdefault(run.job_name, (run.run_id, run.tags.get(PARTITION_NAME_TAG, ""), _word(run.status)))
        if run.status in _ENDED and ended is not None:
            ends.setdefault((run.job_name, _word(run.status)), ended)
            seconds.setdefault(run.job_name, ended - begun if begun is not None else None)
    help_ = "When the last run of a job ended so."
    yield Figure("evergreen_run_end_timestamp_seconds", help_, ends, ("dagster_job", "status"))
    yield labelled("evergreen_run_duration_seconds", "What a job's last finished run took.", "dagster_job", seconds)
    told: dict[tuple[str, ...], float] = {(job, *rest): 1.0 for job, rest in about.items()}
    help_ = "A job's last run: by its id, its log lines, its page in Dagster and MLflow's tag dagster_run are found."
    yield Figure("evergreen_last_run_info", help_, told, ("dagster_job", "run_id", "as_of", "status"))


def _word(status: dg.DagsterRunStatus) -> str:
    return status.value.lower()


def _number(records: Sequence[dg.RunRecord], statuses: Sequence[dg.DagsterRunStatus]) -> int:
    return sum(record.dagster_run.status in statuses for record in records)


def _metric(figure: Figure) -> "Metric":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family = CounterMetricFamily if figure.only_grows else GaugeMetricFamily
    metric = family(figure.name, figure.help, labels=figure.labels)
    for labels, value in figure.values.items():
        metric.add_metric(labels, value)
    return metric


def token_file(home: Home, given: Path | None) -> Path:
    """The file with the token that a scrape must send, made if it is the home's own. Raises SettingsError."""
    if given is None:
        return secret_of(home.root / "metrics-token")
    if not given.is_file() or not given.read_text().strip():
        raise SettingsError(f"--token-file: {given} is no file with a token; write one that only its readers can read")
    return given


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises EvergreenError when the port may not be used."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise EvergreenError(f"port {port} on {host} cannot be used: {error.strerror}; choose another --port") from None


def application(metrics: Metrics, token: str) -> Starlette:
    """The exporter: /metrics for whoever sends the token, and nothing else."""

    def answer(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if secrets.compare_digest(given.encode(), token.encode()):
            return metrics.answer()
        return PlainTextResponse("Send the token: Authorization: Bearer TOKEN.", 401, {"WWW-Authenticate": "Bearer"})

    return Starlette(routes=[Route("/metrics", answer)])


def serve(home: Home, listening: socket.socket, token: str) -> None:
    """Answer scrapes on a listening socket until a signal comes."""
    import uvicorn

    with Metrics(home) as metrics:
        app = application(metrics, token)
        settings = uvicorn.Config(app, log_level="warning", proxy_headers=False, limit_concurrency=_SCRAPES)
        uvicorn.Server(settings).run(sockets=[listening])
