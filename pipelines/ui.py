"""The user interfaces of a home and the processes behind them, which start and end together."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from socket import AF_INET, AF_UNIX, SOCK_STREAM, socket
from tempfile import TemporaryDirectory, gettempdir

import yaml

from assets.exceptions import EvergreenError
from assets.lake import Home, hash_json, write_atomically
from assets.resources import REPORTS_PORT
from assets.settings import CONFIGS
from pipelines.guard import forget_token, token_of
from pipelines.instance import close_killed_runs, open_instance
from pipelines.servers import WORKSPACE
from pipelines.stopping import Stopped

__all__ = ["PORTS", "Processes", "await_servers", "require_alive", "serve", "serving"]

PROJECT = CONFIGS.parent
_SERVERS = PROJECT / "pipelines" / "servers.py"
HOST = "127.0.0.1"
PORTS = {"dagster": 3000, "mlflow": 5000, "reports": REPORTS_PORT}
"""The ports of the servers for browsers; the code server listens on a socket that only the owner can use."""

Processes = Mapping[str, subprocess.Popen[bytes]]


def serve(home: Home, say: Callable[[str], None], host: str = HOST) -> None:
    """Start Dagster's webserver and daemon, MLflow and the reports, and wait for Ctrl-C.

    They listen on `host` and answer to 127.0.0.1: another host is for a container whose ports are published there.
    Raises EvergreenError when a port is in use or one of the processes ends by itself.
    """
    say(f"Starting; logs are in {home.root / 'logs'}")
    with serving(home, "code", "daemon", *PORTS, host=host) as processes:
        await_servers(home, processes)
        say("Each address lets this browser in, to all three; keep them to yourself.")
        for name, port in PORTS.items():
            say(f"{name.title():<9}http://{HOST}:{port}/?token={token_of(home)}")
        say("Ctrl-C stops all three.")
        _wait(processes)
        say("Stopping; Ctrl-C again ends them at once.")


@contextmanager
def serving(home: Home, *names: str, host: str = HOST) -> Iterator[Processes]:
    """Start some of code, daemon, dagster, mlflow and reports, and stop them at the end.

    Raises EvergreenError when a port is in use.
    """
    for name in names:
        _require_free(name)
    forget_token(home)
    for path in (home.reports, home.mlflow, home.root / "logs"):
        path.mkdir(parents=True, exist_ok=True)
    with open_instance(home) as instance:  # writes dagster.yaml and creates the databases before processes race to
        close_killed_runs(instance, home, restarted=True)
    # A socket's path may have at most 107 bytes, which a home's may exceed; only the owner can use the folder.
    with TemporaryDirectory(prefix=_swept(f"evergreen-{hash_json(str(home.root))[:16]}-")) as folder:
        commands = _commands(home, Path(folder) / "code.sock", host)
        processes = {name: _start(home, name, commands[name]) for name in names}
        try:
            yield processes
        finally:
            _stop(home, processes)


def _swept(prefix: str) -> str:
    """The same, once the remains of a killed one under it are gone."""
    for left in Path(gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    return prefix


def await_servers(home: Home, processes: Processes) -> None:
    """Wait until all of them listen. Raises EvergreenError when one ends by itself."""
    for name in processes:
        while not _answers(home, name):
            require_alive(processes)
            time.sleep(0.3)


def _commands(home: Home, code: Path, host: str) -> dict[str, list[str]]:
    """The command of each process; `code` is the socket of the single server of the definitions.

    Without it, webserver and daemon would load the definitions again and again.
    """
    bin_, workspace = Path(sys.executable).parent, home.dagster / WORKSPACE
    server = {"socket": str(code), "location_name": "evergreen"}
    write_atomically(workspace, yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return {
        "code": [
            *(str(bin_ / "dagster"), "api", "grpc", "--socket", str(code)),
            *("--module-name", "pipelines.definitions", "--location-name", "evergreen"),
        ],
        "daemon": [str(bin_ / "dagster-daemon"), "run", "--workspace", str(workspace)],
        **{name: [str(_SERVERS), name, str(port), "--host", host] for name, port in PORTS.items()},
    }


def _start(home: Home, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "EVERGREEN_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster),
        "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "0",  # its clients are stopped as well
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (home.root / "logs" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.tether", *command],
            stdin=subprocess.PIPE,  # the tether
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=PROJECT,
            start_new_session=True,
        )


def _stop(home: Home, processes: Processes) -> None:
    """Ask the processes and their children to stop, and wait until they have; a second signal kills them at once.

    Dagster stops by an exception, which an import may swallow: a process that is still loading is killed.
    """
    try:
        for name, process in processes.items():
            _signal(process, signal.SIGTERM if _answers(home, name) else signal.SIGKILL)
        for process in processes.values():
            process.wait()
    finally:
        for process in processes.values():
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)


def _require_free(name: str) -> None:
    if (port := PORTS.get(name)) and _listens(AF_INET, (HOST, port)):
        raise EvergreenError(f"port {port} on {HOST} is in use; stop what listens there and try again")


def _answers(home: Home, name: str) -> bool:
    """Whether a process listens where it should; the daemon listens nowhere."""
    if name == "code":
        (location,) = yaml.safe_load((home.dagster / WORKSPACE).read_text())["load_from"]
        return _listens(AF_UNIX, location["grpc_server"]["socket"])
    return name not in PORTS or _listens(AF_INET, (HOST, PORTS[name]))


def _listens(family: int, address: str | tuple[str, int]) -> bool:
    with closing(socket(family, SOCK_STREAM)) as probe:
        return probe.connect_ex(address) == 0


def _wait(processes: Processes) -> None:
    try:
        while True:
            require_alive(processes)
            time.sleep(1)
    except Stopped:
        return


def require_alive(processes: Processes) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise EvergreenError(f"{name} ended with exit code {process.returncode}; see its log in logs/{name}.log")
