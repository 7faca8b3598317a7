"""Nights of a home on servers of its own, which are struck meanwhile, and the state in which each night ends.

A night is launched as its schedule would, run by a daemon and a code server in processes of their own, and launched
again until it has succeeded. A server that was killed is started again at once, as docker compose and Kubernetes do.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psutil
from dagster._core.code_pointer import ModuleCodePointer  # dagster exports what needs these, but not these
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from sqlalchemy.exc import DBAPIError

from assets.exceptions import EvergreenError
from assets.features.serving import online_store, served
from assets.hashing import hash_file
from assets.home import Home
from assets.registry.ledger import Entry
from assets.registry.registry import Registry
from assets.settings import load_environment
from pipelines.definitions import defs
from pipelines.instance import open_instance
from pipelines.runs import ORIGIN, output_to
from pipelines.stack import REDIS, Seaweed, Secrets, Server, Tracking, free_ports
from pipelines.tracking_server import create_database
from tests.stack.cluster import running_nodes
from tests.stack.servers import OwnPostgres, Proxy, remove_features

__all__ = [
    "FIRST_NIGHT",
    "Lived",
    "Strike",
    "Team",
    "as_of",
    "embedded",
    "live",
    "simulate",
    "state",
]

EVERGREEN = Path(sys.executable).with_name("evergreen")
FIRST_NIGHT = date(2024, 7, 1)
_WORLD = ("--rate", 50, "--seed", 7)
_SMALL = {"max_tokens": 32, "trainable_layers": 1, "checkpoint_seconds": 1.0, "rank_cpus": 2}
_CODE = RepositoryPythonOrigin(sys.executable, ModuleCodePointer("pipelines.definitions", "defs"))
"""Where the process of a run finds its job."""
_ITS_OWN = ("failure", "prune")
"""Entries about what happened to a home, and when it had time to clean up."""
_MOST_LAUNCHES = 12
_LOOK = 0.2
"""Seconds between two looks at a night."""
_UNREACHABLE = (EvergreenError, DBAPIError, dg.DagsterError, OSError)

State = dict[str, Any]
Strike = Callable[["Team"], Any]
"""Does harm; false if there was nothing to do it to, so that it is tried again. A number is the seconds after which the
harm ends (`Team.heal`)."""


def as_of(night: int) -> str:
    return (FIRST_NIGHT + timedelta(days=night)).isoformat()


def simulate(folder: Path, nights: int) -> None:
    """Write the records of four months before the first night, and of each day from it on."""
    ends = FIRST_NIGHT - timedelta(days=1)
    _evergreen("simulate", "--output", folder / "history", "--from", "2024-03-01", "--to", ends, *_WORLD)
    for night in range(nights):
        day = as_of(night)
        _evergreen("simulate", "--output", folder / day, "--from", day, "--to", day, "--daily", *_WORLD)


def sources(folder: Path, night: int) -> list[str]:
    """The folders with records of a night, which has those of the days before it."""
    return [str(folder / name) for name in ("history", *map(as_of, range(night)))]


def _evergreen(*arguments: object, **variables: str) -> None:
    command = [str(EVERGREEN), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def embedded(folder: Path, job: str, night: int, records: Path) -> None:
    """Run a job in a home of this machine alone, in this process, where nothing goes wrong; `<home>/log` has its
    output."""
    with _set({"EVERGREEN_HOME": str(folder)}), open_instance(Home(folder)) as instance, output_to(folder / "log"):
        instance.add_dynamic_partitions("as_of", [as_of(night)])
        definition = defs.resolve_job_def(job)
        definition.execute_in_process(_config(definition, records, night), instance, as_of(night))


def _config(job: dg.JobDefinition, records: Path, night: int) -> dict[str, Any]:
    """What a launch says where the job reads sources, and where it trains: a small model, often saved."""
    ops = {"raw_records": {"sources": sources(records, night), "history": True}, "challenger": _SMALL}
    nodes = {node.name for node in job.nodes}
    return {"ops": {name: {"config": config} for name, config in ops.items() if name in nodes}}


def state(home: Home, night: int) -> State:
    """What a home has come to, without times, costs and addresses; the same for all homes that lived the same nights.

    What is published is named by its content, but for the weights, which are hashed here.
    """
    lake, registry, day = home.lake, Registry(home), as_of(night)
    tables = ("raw_records", "marts", *(f"{name}/{day}" for name in ("training_set", "evaluation", "predictions")))
    champion, content = registry.champion(), online_store(served(home))
    entries = [entry for entry in registry.ledger.entries() if entry.kind not in _ITS_OWN]
    return {
        "tables": {table: lake.version(table) for table in tables},
        "weights": hash_file(lake.current(f"challenger/{day}") / "model.safetensors"),
        "ledger": [[entry.kind, entry.as_of, _decided(entry)] for entry in entries],
        "problems": [registry.ledger.problem(), registry.problem()],
        "versions": [[version.version, version.training_id] for version in registry.versions()],
        "champion": champion and champion.version,
        "online": [content.as_of, content.marts, content.keys],
    }


def _decided(entry: Entry) -> Any:
    """Of a retraining only whether there is one: what is put off also depends on what a training has cost, which is
    the time that it took."""
    decision = entry.body.get("decision")
    return decision == "retrain" if entry.kind == "retraining" else decision


@dataclass
class Member(Server):
    """`evergreen ui NAME` on a machine of its own."""

    name: str = field(kw_only=True)
    variables: dict[str, str] = field(kw_only=True)

    def command(self) -> list[str]:
        return [str(EVERGREEN), "ui", self.name]

    def environment(self) -> dict[str, str]:
        return self.variables | {"EVERGREEN_HOME": str(self.folder / "home")}

    def answers(self) -> bool:
        return bool(self.inner())

    def inner(self) -> psutil.Process | None:
        """The process that does its work, which its supervisor has started."""
        assert self.process is not None
        with suppress(psutil.Error):
            return next(iter(psutil.Process(self.process.pid).children()), None)
        return None

    def strike(self) -> bool:
        """Kill the process that does the work, and start the member again once its supervisor has ended, too."""
        assert self.process is not None
        if (inner := self.inner()) is None:
            return False
        inner.kill()
        self.process.wait()
        self.start()
        return True


@dataclass
class Team:
    """A home on servers of its own, as the one who operates it sees it."""

    home: Home
    postgres: OwnPostgres
    proxy: Proxy
    tracking: Tracking
    code: Member
    daemon: Member
    instance: dg.DagsterInstance

    @classmethod
    @contextmanager
    def running(cls, folder: Path, trains_on_ray: bool = False) -> Iterator["Team"]:
        """Start the servers, and a Ray cluster if the home trains on one, and stop them at the end."""
        with ExitStack() as stack:
            postgres = stack.enter_context(OwnPostgres.running())
            objects = Seaweed(folder / "objects", keys=Secrets.in_folder(folder / "secrets"))
            stack.enter_context(objects.running())
            objects.client().create_bucket(Bucket="evergreen")
            proxy = stack.enter_context(_proxied(objects))
            reach_objects = objects.variables | {"AWS_ENDPOINT_URL": proxy.endpoint}
            database = postgres.url.removesuffix("/postgres")
            tracking = Tracking(
                *(folder / "mlflow",),
                keys=objects.keys,
                database=f"{database}/mlflow",
                files="s3://evergreen/mlflow",
                objects=reach_objects,
            )
            create_database(f"{database}/evergreen")
            stack.enter_context(tracking.running())
            variables = reach_objects | {
                "EVERGREEN_ENVIRONMENT": "stack",
                "EVERGREEN_DATABASE": f"{database}/evergreen",
                "EVERGREEN_OBJECTS": f"s3://evergreen/{folder.name}-{os.getpid()}",
                "EVERGREEN_MLFLOW": tracking.url,
                "EVERGREEN_ONLINE": f"{REDIS}/0",
                "EVERGREEN_CODE": f"127.0.0.1:{free_ports(1)[0]}",
                "MLFLOW_TRACKING_USERNAME": "evergreen",
                "MLFLOW_TRACKING_PASSWORD": objects.keys.password("mlflow/evergreen"),
            }
            stack.enter_context(_set(variables))
            if trains_on_ray:
                nodes = stack.enter_context(running_nodes(cores=2))
                variables["EVERGREEN_RAY"] = os.environ["EVERGREEN_RAY"] = nodes.address
            home = Home(folder / "operator", load_environment())
            stack.callback(remove_features, home)
            instance = stack.enter_context(open_instance(home))
            members = [Member(folder / name, name=name, variables=variables) for name in ("code", "daemon")]
            for member in members:
                stack.enter_context(member.running())
            yield cls(home, postgres, proxy, tracking, *members, instance)

    def launch(self, job: str, night: int, records: Path) -> str:
        """Put a run into the queue, as a click in Dagster does; its id."""
        definition = defs.resolve_job_def(job)
        self.instance.add_dynamic_partitions("as_of", [as_of(night)])
        run = self.instance.create_run_for_job(
            definition,
            tags=definition.get_tags_for_partition_key(as_of(night), None),
            run_config=_config(definition, records, night),
            remote_job_origin=ORIGIN.get_job_origin(job),
            job_code_origin=JobPythonOrigin(job, _CODE),
        )
        self.instance.report_dagster_event(dg.DagsterEvent.job_enqueue(run), run_id=run.run_id)  # the daemon goes on
        return run.run_id

    def result(self, run_id: str) -> bool | None:
        """Whether a run, or the last that Dagster has launched in its place, has succeeded; None while it goes on."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        if again := run.tags.get("dagster/auto_retry_run_id"):
            return self.result(again)
        if not run.is_finished or run.tags.get("dagster/will_retry") == "true":
            return None
        return bool(run.is_success)

    def has_online_features(self) -> bool:
        with suppress(EvergreenError):
            return bool(online_store(served(self.home)))
        return False

    @cached_property
    def chance(self) -> random.Random:
        return random.Random(17)

    def heal(self) -> None:
        self.proxy.faulty = 0.0


@dataclass(frozen=True)
class Lived:
    """A night that has succeeded."""

    struck: int
    launches: int
    retried: int
    """Runs that Dagster has launched in the place of killed ones."""
    seconds: float
    state: State


def live(team: Team, records: Path, night: int, strikes: Sequence[tuple[float, Strike]]) -> Lived:
    """Live a night, struck these seconds after its launch unless it is over by then.

    Raises AssertionError when it has not succeeded after many launches.
    """
    day, begun, left, heals = as_of(night), time.monotonic(), sorted(strikes, key=itemgetter(0)), float("inf")
    launched, struck = [team.launch("refresh", night, records)], 0
    while True:
        now = time.monotonic() - begun
        if left and now > left[0][0] and (harm := left[0][1](team)):
            del left[0]
            struck += 1
            heals = now + harm if harm is not True else heals
        if now > heals:
            team.heal()
            heals = float("inf")
        result = None
        with suppress(*_UNREACHABLE):
            result = team.result(launched[-1])
            if result is False or (result and not team.has_online_features()):
                assert len(launched) < _MOST_LAUNCHES, f"{day} has not succeeded: {launched}"
                launched.append(team.launch("refresh", night, records))
            elif result:
                break
        time.sleep(_LOOK)
    team.heal()
    runs = len(team.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": day})))
    return Lived(struck, len(launched), runs - len(launched), time.monotonic() - begun, state(team.home, night))


@contextmanager
def _proxied(objects: Seaweed) -> Iterator[Proxy]:
    with Proxy(objects.endpoint) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


@contextmanager
def _set(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= variables
    boto3.DEFAULT_SESSION = None
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before
