"""Real servers: PostgreSQL and Redis on their standard ports, where they are, and servers of the tests' own."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

psycopg = pytest.importorskip("psycopg", reason="the stack's clients are not installed: run make stack-test")

SERVER = "postgresql://postgres@127.0.0.1:5432"


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
        server = OwnPostgres(Path(folder), free_port())
        server.start()
        yield server
        server.crash()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])
