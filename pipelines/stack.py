"""The team's stack on this machine, for its tests and for a person to look at: `python -m pipelines.stack serve`.

PostgreSQL and Redis are those on their standard ports of 127.0.0.1. SeaweedFS, which speaks S3, and MLflow's server are
started, on free ports, and end with the process that started them.
"""

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from assets.exceptions import EvergreenError
from assets.home import Home
from assets.objects import Objects
from assets.settings import CONFIGS
from assets.writing import write_atomically
from pipelines.stopping import Stopped, listen
from pipelines.tracking_server import create_database

__all__ = ["DATABASE", "REDIS", "Seaweed", "Secrets", "Stack", "Tracking", "free_ports", "local_stack"]

DATABASE = "postgresql://postgres@127.0.0.1:5432"
"""The machine's PostgreSQL server."""
REDIS = "redis://127.0.0.1:6379"
_STARTS_WITHIN = 120
"""Seconds that a server may take to start on a busy machine."""
_BUCKET = "evergreen"


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
class Server:
    """A server that is killed and started again by its owner; it keeps what it has in a folder."""

    folder: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Start it, and wait until it answers. Raises EvergreenError with the end of its log if it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                self.command(), stdout=file, stderr=file, cwd=CONFIGS.parent, env=os.environ | self.environment()
            )
        deadline = time.monotonic() + _STARTS_WITHIN
        while not self.answers():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-2000:]
                raise EvergreenError(f"{type(self).__name__} does not start; its log {log} ends: {end}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it until the end of the context."""
        try:
            self.start()
            yield
        finally:
            self.kill()

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def answers(self) -> bool:
        raise NotImplementedError


@dataclass
class Seaweed(Server):
    """An S3 server that asks for a key and its secret; once killed and started again it has what it had."""

    keys: "Secrets" = field(kw_only=True)
    ports: list[int] = field(default_factory=lambda: free_ports(8))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def command(self) -> list[str]:
        program = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
        if program is None:
            raise EvergreenError("there is no SeaweedFS: make stack and make stack-test install it")
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self.ports
        options = {
            **{"dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1"},
            **{"master.port": master, "master.port.grpc": master_grpc, "master.telemetry": "false"},
            **{"volume.port": volume, "volume.port.grpc": volume_grpc, "volume.max": 500},
            **{"filer.port": filer, "filer.port.grpc": filer_grpc, "filer.localSocket": self.folder / "filer.sock"},
            **{"s3.port": s3, "s3.port.grpc": s3_grpc, "s3.localSocket": self.folder / "s3.sock"},
            **{"s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": self.keys.folder / "s3_identities"},
        }
        return [program, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    @property
    def variables(self) -> dict[str, str]:
        """What tells a process where it is, and by which key."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1", **self.keys.of_s3}

    def client(self) -> Any:
        """A client that asks once."""
        import boto3
        from botocore.config import Config

        keys: dict[str, Any] = {name.lower(): value for name, value in self.keys.of_s3.items()}
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10)
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=once, **keys)

    def answers(self) -> bool:
        """Whether it takes an object."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client().put_object(Bucket="probe", Key="probe", Body=b"probe")
        except (BotoCoreError, ClientError):
            return False
        return True


@dataclass
class Tracking(Server):
    """MLflow's server for a team (pipelines/tracking_server.py)."""

    keys: "Secrets" = field(kw_only=True)
    database: str = field(kw_only=True)
    """Its own and, with `_users` behind the name, that of its users."""
    files: str = field(kw_only=True)
    objects: dict[str, str] = field(kw_only=True)
    """The variables by which it reaches S3."""
    port: int = field(default_factory=lambda: free_ports(1)[0])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "pipelines.tracking_server", "--database", self.database),
            *("--users", f"{self.database}_users", "--files", self.files),
            *("--passwords", str(self.keys.folder / "mlflow"), "--port", str(self.port)),
        ]

    def environment(self) -> dict[str, str]:
        return self.objects

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@dataclass(frozen=True)
class Secrets:
    """A folder of secrets, one per file, as docker-compose.yml hands them to the servers and to us."""

    folder: Path

    @classmethod
    def in_folder(cls, folder: Path) -> "Secrets":
        """Those of a folder; what is missing is made up at random, and what is there stays."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name, text in _contents(folder):
            if not (folder / name).exists():
                write_atomically(folder / name, text())
            (folder / name).chmod(0o600 if name in _OURS else 0o644)
        return cls(folder)

    @property
    def of_s3(self) -> dict[str, str]:
        """The variables with its keys."""
        (identity,) = json.loads((self.folder / "s3_identities").read_text())["identities"]
        (keys,) = identity["credentials"]
        return {"AWS_ACCESS_KEY_ID": keys["accessKey"], "AWS_SECRET_ACCESS_KEY": keys["secretKey"]}

    def password(self, name: str) -> str:
        return (self.folder / name).read_text()


_OURS = {"pgpass", "aws_credentials", "mlflow_credentials", "serving_key"}
"""Read by our own user alone; PostgreSQL's client refuses the first otherwise, and no container has the last. Each
server's user reads its own: the folder keeps everybody else out."""


def _contents(folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Each file and how its text is made, of those before it."""

    def text_of(name: str) -> str:
        return (folder / name).read_text()

    def password() -> str:
        return secrets.token_urlsafe(24)

    def identities() -> str:
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        return json.dumps({"identities": [{"name": "evergreen", "credentials": [keys], "actions": actions}]})

    def credentials() -> str:
        return "[default]\n" + "".join(f"{name.lower()} = {key}\n" for name, key in Secrets(folder).of_s3.items())

    yield "postgres_password", password
    yield "pgpass", lambda: f"*:*:*:evergreen:{text_of('postgres_password')}\n"
    yield "redis_password", password
    yield (
        "redis_settings",
        lambda: f"requirepass {text_of('redis_password')}\nappendonly yes\nmaxmemory-policy noeviction\n",
    )
    yield "s3_identities", identities
    yield "aws_credentials", credentials
    for user in ("admin", "evergreen", "reader"):
        yield f"mlflow/{user}", password
    yield "serving_key", password
    yield "serving_keys", lambda: f"local:{hashlib.sha256(text_of('serving_key').encode()).hexdigest()}\n"
    yield "metrics_token", password
    yield (
        "mlflow_credentials",
        lambda: (
            f"[mlflow]\nmlflow_tracking_username = evergreen\n"
            f"mlflow_tracking_password = {text_of('mlflow/evergreen')}\n"
        ),
    )


@dataclass(frozen=True)
class Stack:
    """The servers of a stack, and the variables by which a home is on it."""

    objects: Seaweed
    tracking: Tracking
    variables: dict[str, str]


@contextmanager
def local_stack(folder: Path, name: str) -> Iterator[Stack]:
    """Start the servers of a stack. `name`: of its databases, which are made unless they exist, and of its prefix, by
    which its features are told apart in Redis."""
    keys = Secrets.in_folder(folder / "secrets")
    with ExitStack() as stack:
        objects = Seaweed(folder / "objects", keys=keys)
        stack.enter_context(objects.running())
        _make_bucket(objects.client(), _BUCKET)
        tracking = Tracking(
            folder / "mlflow",
            keys=keys,
            database=f"{DATABASE}/{name}_mlflow",
            files=f"s3://{_BUCKET}/mlflow",
            objects=objects.variables,
        )
        create_database(f"{DATABASE}/{name}")
        stack.enter_context(tracking.running())
        variables = {
            "EVERGREEN_ENVIRONMENT": "stack",
            "EVERGREEN_DATABASE": f"{DATABASE}/{name}",
            "EVERGREEN_OBJECTS": f"s3://{_BUCKET}/{name}",
            "EVERGREEN_MLFLOW": tracking.url,
            "EVERGREEN_ONLINE": f"{REDIS}/0",
            "MLFLOW_TRACKING_USERNAME": "evergreen",
            "MLFLOW_TRACKING_PASSWORD": keys.password("mlflow/evergreen"),
        }
        yield Stack(objects, tracking, objects.variables | variables)


app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command("secrets")
def write_secrets(folder: Path) -> None:
    """Write random passwords into a folder, as docker-compose.yml reads them; what is there stays."""
    Secrets.in_folder(folder)


@app.command()
def serve() -> None:
    """Start the servers, run the graph as `make run` does unless it has run, and serve it until Ctrl-C."""
    from pipelines import ui
    from pipelines.output import say, show

    folder = Home.from_environment().root
    say(f"Starting SeaweedFS and MLflow; what they keep is in {folder / 'servers'}")
    with local_stack(folder / "servers", "evergreen_stack") as stack:
        os.environ |= stack.variables
        home = Home.from_environment()
        for command in _first_run(home):
            done = subprocess.run([str(Path(sys.executable).with_name("evergreen")), *command], check=False)
            if done.returncode:
                raise typer.Exit(done.returncode)
        password = stack.tracking.keys.folder / "mlflow" / "evergreen"
        say(f"MLflow asks for a user: evergreen, with the password in {password}")
        ui.serve(home, say, show)


def _first_run(home: Home) -> list[list[str]]:
    """The commands of `make run`, for a home that has no champion yet."""
    if home.lake.tables("verdict"):
        return []
    source = str(home.source)
    span = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7", "--scenario", "calm"]
    return [["simulate", "--output", source, *span], ["run", "--source", source, "--as-of", "2024-07-01"]]


@app.command("bucket")
def create_bucket(objects: str) -> None:
    """Create the bucket of an s3://bucket/prefix, unless there is one."""
    from assets.exceptions import ObjectsError
    from assets.s3 import s3_client, s3_errors

    with s3_errors(objects, ObjectsError, ObjectsError):
        _make_bucket(s3_client(), Objects.at(objects).bucket)


def _make_bucket(client: Any, bucket: str) -> None:
    with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    listen()
    try:
        app()
    except Stopped as stopped:
        sys.exit(128 + stopped.number)
    except EvergreenError as error:
        sys.exit(f"evergreen: {error}")
