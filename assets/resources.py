"""The resource of the assets, a home folder and a profile's settings; how assets show what they found, and end."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Self, TypeVar

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError  # dagster exports the client, but not what it raises
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PipesMessage, PipesParams
from pydantic import Field

from assets.addresses import PICTURES, address
from assets.as_of import at, parse
from assets.display import Cell, markdown, plain
from assets.exceptions import SettingsError, TrainingError
from assets.hashing import hash_bytes
from assets.home import Home
from assets.logs import of_run
from assets.settings import Settings, load_domain, load_settings
from assets.writing import replacing

if TYPE_CHECKING:
    from assets.cluster.jobs import Job, RunJob
    from assets.training.launchers.interface import Run

__all__ = [
    *("AS_OF", "Concluded", "Evergreen", "as_of", "as_of_run", "concluded", "explained", "job_runner", "numbers_of"),
    *("picture", "remember", "report_url", "stop_at", "table", "tag", "worker_runner"),
]

AS_OF = dg.DynamicPartitionsDefinition(name="as_of")
"""One partition per as-of of the home: by the calendar, all days before its first run would be missing."""

_LAID_OUT = (dg.MarkdownMetadataValue, dg.JsonMetadataValue, dg.TableMetadataValue)


class Evergreen(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The home folder, and the profile whose settings a run uses.

    The home is the process's EVERGREEN_HOME and not a launch option: a launch can write nowhere else.
    """

    profile: str = Field(default="quick", description="A file in configs/profiles, without its ending.")

    @cached_property
    def home(self) -> Home:
        return Home.from_environment()

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.profile)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Self]:
        """Mark the home as in use while the run's process is alive, and its as-of as one of the home's.

        Two runs of the same pool wait for each other here: Dagster's limits are only for the runs of its queue. Sensors
        have no run. Raises SettingsError for a partition that is no as-of, or is still to come.
        """
        if context.run and context.instance and (key := as_of_run(context.run)):
            _require_as_of(key)
            remember(context.instance, key)
            tag(context.instance, context.run.run_id, profile=self.profile)
        with ExitStack() as stack:
            if context.run:
                stack.enter_context(of_run(context.run.run_id, as_of_run(context.run)))
                stack.enter_context(self.home.in_use(context.run.run_id))
            for pool in _pools(context.run):
                stack.enter_context(self.home.exclusively(pool, pool))
            yield self


def as_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
    """The as-of of the run: its partition key."""
    return str(context.partition_key)


def as_of_run(run: dg.DagsterRun) -> str | None:
    """The as-of of a run, which `settle` has none of."""
    return run.tags.get("dagster/partition")


def _pools(run: dg.DagsterRun | None) -> list[str]:
    """The pools of a run's steps, always in the same order: no two runs wait for each other."""
    limits = run.run_op_concurrency if run else None
    return sorted(limits.all_pools or ()) if limits else []


def tag(instance: dg.DagsterInstance, run_id: str, **what: str) -> None:
    """Say on a run, where Dagster lists runs, what it was made with or has come to."""
    instance.add_run_tags(run_id, {f"evergreen/{name}": value for name, value in what.items()})


def remember(instance: dg.DagsterInstance, *as_ofs: str) -> None:
    """Make as-ofs partitions: a home has those that it has lived through, and no others."""
    instance.add_dynamic_partitions(str(AS_OF.name), as_ofs)


def _require_as_of(key: str) -> None:
    cadence = load_domain().cadence
    try:
        parse(key, cadence)
    except ValueError as error:
        raise SettingsError(f"the partition {error}") from None
    if key > at(datetime.now(UTC), cadence):
        raise SettingsError(f"the partition {key} is still to come")


def worker_runner(context: dg.AssetExecutionContext, home: Home) -> "Run":
    """A function that starts training processes, here or on a cluster, which report to a run and end with it.

    They also report to MLflow while they train. It raises TrainingError when they end early, ClusterError when a job
    does. The last argument of a command is the file with the training's plan.
    """
    from assets.registry.curves import live_curves

    def run(work: "list[str] | Job") -> None:
        with live_curves(home, context.run.run_id) as told:
            if isinstance(work, list):
                _run_here(context, work, told)
            else:
                _run_job(context, work, told)

    return run


def job_runner(context: dg.AssetExecutionContext) -> "RunJob":
    """A function that runs jobs on a cluster, whose lines stream into a run, and which end with it."""
    return lambda job: _run_job(context, job, lambda _: None)


_Told = Callable[[dict[str, Any]], None]


def _run_here(context: dg.AssetExecutionContext, command: list[str], told: _Told) -> None:
    reader = dg.PipesFileMessageReader(str(Path(command[-1]).with_name("messages")))
    client = dg.PipesSubprocessClient(
        cwd=str(Path(__file__).parents[1]),
        context_injector=dg.PipesEnvContextInjector(),
        message_reader=_telling(reader, told),
        termination_timeout_seconds=TIMEOUT_MAX,  # they stop when asked to, though later on a busy machine
    )
    try:
        client.run(context=context.op_execution_context, command=command)
    except DagsterPipesExecutionError as error:
        raise TrainingError(f"the training processes ended early: {error}") from None


_Reader = TypeVar("_Reader", bound=dg.PipesMessageReader)


def _telling(reader: _Reader, told: _Told) -> _Reader:
    """The reader, which hands the messages that are not Dagster's to `told` as they come; Dagster would keep them for
    the end."""
    read_messages = reader.read_messages

    def read(handler: PipesMessageHandler) -> AbstractContextManager[PipesParams]:
        handle = handler.handle_message

        def tell(message: PipesMessage) -> None:
            if message["method"] == "report_custom_message":
                told((message["params"] or {})["payload"])
            else:
                handle(message)

        handler.handle_message = tell  # type: ignore[method-assign]
        return read_messages(handler)

    reader.read_messages = read  # type: ignore[method-assign,assignment]
    return reader


def _run_job(context: dg.AssetExecutionContext, job: "Job", told: _Told) -> None:
    """Run a job on its cluster, or wait for it where it runs already: a job outlives the process of a run.

    Its first lines are shown again then. Terminating the run ends it.
    """
    from dagster_ray.core.pipes import PipesRayJobClient, PipesRayJobMessageReader

    from assets.cluster.jobs import answered, entrypoint, job_client

    with answered(job), redirect_stdout(sys.stderr):  # stdout belongs to the command that started the run
        client = PipesRayJobClient(address=job.cluster, message_reader=_telling(PipesRayJobMessageReader(), told))
        client.client = job_client(job.cluster)
        how: Any = {"entrypoint": entrypoint(job), "submission_id": job.id}
        client.run(context=context.op_execution_context, submit_job_params=how)


Concluded = Iterator[dg.MaterializeResult[Any]]


def concluded(
    context: dg.AssetExecutionContext,
    metadata: Mapping[str, Any],
    checks: Iterable[dg.AssetCheckResult] = (),
    version: str | None = None,
) -> Concluded:
    """End an asset with what it found, numbers rounded; `version` names the content that it has made.

    Raises Failure when a blocking check has not passed, which says which and why: Dagster tells their number alone.
    """
    checks = [explained(check) for check in checks]
    data = None if version is None else dg.DataVersion(version)
    yield dg.MaterializeResult(metadata=_rounded(metadata), check_results=checks, data_version=data)
    blocking = {spec.name for spec in context.assets_def.check_specs if spec.blocking}
    stop_at(check for check in checks if check.check_name in blocking)


def stop_at(checks: Iterable[dg.AssetCheckResult]) -> None:
    """Raises Failure when one of some checks has not passed by more than a warning, with the name of each and why."""
    failed = [check for check in checks if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR]
    if failed:
        why = "; ".join(f"check {check.check_name} did not pass: {check.description}" for check in failed)
        raise dg.Failure(why, allow_retries=False)


def explained(check: dg.AssetCheckResult) -> dg.AssetCheckResult:
    """The same, with the numbers that it was decided by as its description, where it has none and has not passed."""
    metadata = _rounded(check.metadata)
    unsaid = not check.passed and check.description is None
    return check._replace(metadata=metadata, description=numbers_of(metadata) if unsaid else check.description)


def numbers_of(metadata: Mapping[str, dg.MetadataValue]) -> str:
    """What is in a check's metadata besides tables and the like, as words."""
    shown = {name: value for name, value in _rounded(metadata).items() if not isinstance(value, _LAID_OUT)}
    return ", ".join(f"{name} {value.value}" for name, value in shown.items())


def _rounded(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _as_read(value) for name, value in metadata.items()}


def _as_read(value: Any) -> Any:
    """A number as people read it: four digits of it, or above a hundred one decimal."""
    number = value.value if isinstance(value, dg.FloatMetadataValue) else value
    if not isinstance(number, float):
        return value
    return dg.MetadataValue.float(float(f"{number:.4g}") if abs(number) < 100 else round(number, 1))


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> dg.TableMetadataValue:
    """A table in an asset's metadata; what is in a cell is text, whatever it says."""
    # Dagster tells columns apart by their names, and a domain may call its labels as another column is called.
    names = [plain(name) + " " * head[:place].count(name) for place, name in enumerate(head)]
    shown = ([plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    records = [dg.TableRecord(dict(zip(names, row, strict=True))) for row in shown]
    return dg.MetadataValue.table(records, None if records else dg.TableSchema([*map(dg.TableColumn, names)]))


def picture(home: Home, asset: str, as_of: str, shown: str, png: bytes) -> dg.MarkdownMetadataValue:
    """A picture of what is `shown`, which Dagster has in its page as long as retention keeps the file.

    Short Markdown is shown at once; with the picture in it as data, it would stand behind a click.
    """
    path = f"{asset}/{as_of}/{hash_bytes(png)[:16]}.png"
    if not (home.pictures / path).exists():
        with replacing(home.pictures / path) as file:
            file.write(png)
    home.pages.put(home.pictures / path)
    return dg.MetadataValue.md(f"![{markdown(shown)}]({PICTURES}/{path})")


def report_url(home: Home, path: str) -> dg.UrlMetadataValue:
    """A link to a page under `home.reports`, where `evergreen ui` serves it."""
    return dg.MetadataValue.url(address(home, "front", path))
