"""Real servers: PostgreSQL and Redis on their standard ports, where they are, and servers that the tests start."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

psycopg: Any = import_module("psycopg") if find_spec("psycopg") else None
if psycopg is None:  # `make test` does without the stack's clients, which `make stack-test` installs
    collect_ignore_glob = ["test_*.py"]

SERVER = "postgresql://postgres@127.0.0.1:5432"

STARTS_WITHIN = 120
"""Seconds that a server may take to start on a busy machine."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 from 20,000 on where nothing listens."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", 20_000 + secrets.randbelow(12_000)))
                found.append(probe.getsockname()[1])
    return found


@dataclass
class Seaweed:
    """An S3 server that asks for a key and its secret; once killed and started again it has what it had."""

    program: str
    folder: Path
    access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16))
    ports: list[int] = field(default_factory=lambda: free_ports(8))
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def variables(self) -> dict[str, str]:
        """What tells a process where it is, and by which key."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1", **keys}

    def client(self) -> Any:
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10)
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=once, **keys)

    def start(self) -> None:
        """Start it, and wait until it takes an object."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        client, deadline = self.client(), time.monotonic() + STARTS_WITHIN
        while not self._takes_an_object(client):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"SeaweedFS does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _command(self) -> list[str]:
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self.ports
        options = {
            **{"dir": self.folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1"},
            **{"master.port": master, "master.port.grpc": master_grpc, "master.telemetry": "false"},
            **{"volume.port": volume, "volume.port.grpc": volume_grpc, "volume.max": 500},
            **{"filer.port": filer, "filer.port.grpc": filer_grpc, "filer.localSocket": self.folder / "filer.sock"},
            **{"s3.port": s3, "s3.port.grpc": s3_grpc, "s3.localSocket": self.folder / "s3.sock"},
            **{"s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": self._identities()},
        }
        return [self.program, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    def _identities(self) -> Path:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        admin = {"name": "team", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        path = self.folder / "identities.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"identities": [admin]}))
        return path

    @staticmethod
    def _takes_an_object(client: Any) -> bool:
        try:
            client.create_bucket(Bucket="probe")
        except client.exceptions.BucketAlreadyExists:
            pass
        except (BotoCoreError, ClientError):
            return False
        try:
            client.put_object(Bucket="probe", Key="probe", Body=b"probe")
        except (BotoCoreError, ClientError):
            return False
        return True


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of a server."""

    server: Seaweed
    name: str

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    @property
    def access_key(self) -> str:
        return self.server.access_key

    @property
    def secret_key(self) -> str:
        return self.server.secret_key

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
    program = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if program is None:
        pytest.skip("there is no SeaweedFS: it is in the dependency group `stack`")
    server = Seaweed(program, tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


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


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database of the machine's PostgreSQL, which is dropped afterwards."""
    name = f"evergreen_test_{uuid4().hex[:12]}"
    try:
        server = psycopg.connect(f"{SERVER}/postgres", autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        pytest.skip(f"there is no PostgreSQL on 127.0.0.1:5432: {error}")
    with closing(server):
        server.execute(f"create database {name}")
        try:
            yield f"{SERVER}/{name}"
        finally:
            server.execute(f"drop database {name} with (force)")


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
