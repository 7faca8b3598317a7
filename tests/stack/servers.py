"""Servers that a test may strike: a PostgreSQL of its own, and what stands between it and S3; Redis, emptied."""

import os
import random
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse

from assets.features.generations import server_of
from assets.features.redis_client import redis_of
from assets.home import Home
from pipelines.stack import free_ports

__all__ = ["OwnPostgres", "Proxy", "remove_features"]


def remove_features(home: Home) -> None:
    """What FLUSHDB does to a home's keys in the machine's Redis."""
    features = server_of(home)
    assert features is not None
    client = redis_of(features.url)
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

    @staticmethod
    def is_installed() -> bool:
        return shutil.which(_program("initdb")) is not None

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["OwnPostgres"]:
        """One in a folder of its own, which its user can reach."""
        with TemporaryDirectory(prefix="evergreen-postgres-") as folder:
            if os.getuid() == 0:
                shutil.chown(folder, "postgres")
            server = cls(Path(folder), free_ports(1)[0])
            server.start()
            try:
                yield server
            finally:
                server.crash()

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


class Proxy(ThreadingHTTPServer):
    """Hands requests to S3, and spoils the share `faulty` of them: one way after the other."""

    daemon_threads = True
    faulty = 0.0

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.chance, self.spoilt = urlparse(target).netloc, random.Random(17), 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients are killed, too."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self._fault()
        if fault in (500, 503):
            return self._answer(fault, [], b"")
        if fault == "before":
            return self._reset()
        connection = HTTPConnection(self.server.target)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        if fault == "within":
            connection.endheaders(body[: len(body) // 2])
            connection.close()
            return self._reset()
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "after":
            return self._reset()
        return self._answer(answer.status, answer.getheaders(), content, half=fault == "half")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _hand_on  # noqa: N815

    def _fault(self) -> Any:
        if self.server.chance.random() >= self.server.faulty:
            return None
        self.server.spoilt += 1
        return (500, 503, "before", "within", "after", "half")[self.server.spoilt % 6]

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length", len(content))
        self.send_header("Content-Length", str(length if self.command == "HEAD" else len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)
        self.close_connection = self.close_connection or half

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""
