"""Real servers: PostgreSQL and Redis on their standard ports, where they are, and servers that the tests start."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import boto3
import pytest

from assets.exceptions import EvergreenError
from assets.features.generations import server_of
from assets.features.redis_client import redis_of
from assets.home import Home
from assets.settings import EMBEDDED
from pipelines.stack import DATABASE, REDIS, Seaweed, Secrets, Stack, free_ports, local_stack

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
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with databases of its own, which are dropped afterwards."""
    name = f"evergreen_test_{uuid4().hex[:12]}"
    with postgres() as server:
        try:
            with local_stack(tmp_path_factory.mktemp("stack"), name) as servers:
                yield servers
        finally:
            for database in (name, f"{name}_mlflow", f"{name}_mlflow_users"):
                server.execute(f"drop database if exists {database} with (force)")
            of_it = {"objects": f"s3://evergreen/{name}", "online": REDIS}
            remove_features(Home(Path(), EMBEDDED.model_copy(update=of_it)))


def remove_features(home: Home) -> None:
    """What FLUSHDB does to a home's keys in the machine's Redis."""
    features = server_of(home)
    assert features is not None
    client = redis_of(REDIS)
    for pattern in (f"evergreen:{features.home}:*", f"*evergreen_{features.home}_*"):
        for key in client.scan_iter(match=pattern, count=1000):
            client.unlink(key)


class OwnPostgres:
    """A PostgreSQL server of a test's own, which it may stop and start."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._data = folder / "data"
        self._options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--pgdata", str(self._data))

    def start(self) -> None:
        log = str(self._data.with_name("log"))
        self._run("pg_ctl", "start", "--wait", "--pgdata", str(self._data), "--log", log, "--options", self._options)

    def crash(self) -> None:
        """End it without a word to its clients, and without writing what it could."""
        self._run("pg_ctl", "stop", "--wait", "--mode", "immediate", "--pgdata", str(self._data))

    def _run(self, program: str, *arguments: str) -> None:
        """Run as the user postgres, where the tests run as root: PostgreSQL refuses to."""
        user = ["setpriv", "--reuid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        command = [*user, str(_program(program)), *arguments]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _program(name: str) -> Path:
    """A program of PostgreSQL's server, which Debian keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found[-1] if found else Path(name)


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    if not shutil.which(_program("initdb")):
        pytest.skip("PostgreSQL's server programs are not installed")
    with TemporaryDirectory(prefix="evergreen-postgres-") as folder:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        server = OwnPostgres(Path(folder), free_ports(1)[0])
        server.start()
        yield server
        server.crash()
