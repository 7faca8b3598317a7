"""Real servers: PostgreSQL and Redis on their standard ports, where they are, and servers that the tests start."""

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from assets.exceptions import EvergreenError
from assets.features.redis_client import redis_of
from assets.home import Home
from assets.settings import EMBEDDED
from pipelines.stack import DATABASE, REDIS, Seaweed, Secrets, Stack, local_stack
from tests.conftest import reach_objects
from tests.stack.cluster import BUCKET, Nodes, running_nodes
from tests.stack.servers import OwnPostgres, remove_features

psycopg: Any = import_module("psycopg") if find_spec("psycopg") else None
if psycopg is None:  # `make test` does without the stack's clients, which `make stack-test` installs
    collect_ignore_glob = ["test_*.py"]


def home_on(folder: Path, objects: str) -> Home:
    """A home on S3, with a folder of this machine's."""
    return Home(folder, EMBEDDED.model_copy(update={"objects": objects}))


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of a server."""

    server: Seaweed
    name: str

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def client(self) -> Any:
        return self.server.client()

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    folder = tmp_path_factory.mktemp("seaweed")
    server = Seaweed(folder, keys=Secrets.in_folder(folder / "secrets"))
    try:
        server.command()
    except EvergreenError as error:
        pytest.skip(str(error))
    with server.running():
        yield server


@pytest.fixture
def seaweed(seaweed_server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of the test's own, and the variables by which this process and its children reach it."""
    for name, value in seaweed_server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which would remember the keys of the first test
    bucket = Bucket(seaweed_server, f"team-{secrets.token_hex(6)}")
    bucket.client().create_bucket(Bucket=bucket.name)
    return bucket


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.stack)


@contextmanager
def postgres() -> Iterator[Any]:
    """A connection to the machine's PostgreSQL server; without one the test is skipped."""
    try:
        server = psycopg.connect(f"{DATABASE}/postgres", autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        pytest.skip(f"there is no PostgreSQL on 127.0.0.1:5432: {error}")
    with closing(server):
        yield server


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database of the machine's PostgreSQL, which is dropped afterwards."""
    name = f"evergreen_test_{uuid4().hex[:12]}"
    with postgres() as server:
        server.execute(f"create database {name}")
        try:
            yield f"{DATABASE}/{name}"
        finally:
            server.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def redis_server() -> str:
    """The URL of the machine's Redis server; without one the test is skipped."""
    redis = pytest.importorskip("redis")
    try:
        redis_of(REDIS).ping()
    except redis.RedisError as error:
        pytest.skip(f"there is no Redis on 127.0.0.1:6379: {error}")
    return f"{REDIS}/0"


@contextmanager
def new_stack(folder: Path) -> Iterator[Stack]:
    """A stack with databases of its own, which are dropped afterwards."""
    name = f"evergreen_test_{uuid4().hex[:12]}"
    with postgres() as server:
        try:
            with local_stack(folder, name) as servers:
                yield servers
        finally:
            for database in (name, f"{name}_mlflow", f"{name}_mlflow_users"):
                server.execute(f"drop database if exists {database} with (force)")
            of_it = {"objects": f"s3://evergreen/{name}", "online": REDIS}
            remove_features(Home(Path(), EMBEDDED.model_copy(update=of_it)))


@pytest.fixture(scope="module")
def nodes(objects_server: str) -> Iterator[Nodes]:
    """A Ray cluster of two nodes which, like this process, reaches an S3 server."""
    with pytest.MonkeyPatch.context() as patch:
        reach_objects(objects_server, patch)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        with running_nodes() as started:
            yield started


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    if not OwnPostgres.is_installed():
        pytest.skip("PostgreSQL's server programs are not installed")
    with OwnPostgres.running() as server:
        yield server
