"""The user interfaces of a home and what they stand on, as processes that live and die together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket

import yaml

from assets.exceptions import EvergreenError
from assets.lake import Home, write_atomically
from assets.resources import REPORTS_PORT
from assets.settings import CONFIGS
from pipelines.runs import open_instance

__all__ = ["WORKSPACE", "await_ports", "serve", "serving"]

PROJECT = CONFIGS.parent
HOST, DAGSTER_PORT, MLFLOW_PORT, CODE_PORT = "127.0.0.1", 3000, 5000, 3002
PORTS = {"code": CODE_PORT, "webserver": DAGSTER_PORT, "daemon": None, "mlflow": MLFLOW_PORT, "reports": REPORTS_PORT}
WORKSPACE = "workspace.yaml"
"""In the Dagster instance's folder: where the definitions are served."""


def serve(home: Home, say: Callable[[str], None]) -> None:
    """Start Dagster's webserver and daemon, MLflow and the reports, and wait for Ctrl-C.

    Raises EvergreenError when a port is taken or one of the processes ends by itself.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    say(f"Starting; logs are in {home.root / 'logs'}")
    with serving(home, *PORTS) as processes:
        await_ports(processes)
        say(f"Dagster  http://{HOST}:{DAGSTER_PORT}\nMLflow   http://{HOST}:{MLFLOW_PORT}")
        say(f"Reports  http://{HOST}:{REPORTS_PORT}\nCtrl-C stops all three.")
        _wait(processes)


@contextmanager
def serving(home: Home, *names: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start some of code, webserver, daemon, mlflow and reports, and stop them at the end.

    Raises EvergreenError when a port is taken.
    """
    for name in names:
        _require_free(PORTS[name])
    for folder in (home.reports, home.mlflow, home.root / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    with open_instance(home):
        pass  # writes dagster.yaml and creates the databases before two processes race to
    commands = _commands(home)
    processes = {name: _start(home, name, commands[name]) for name in names}
    try:
        yield processes
    finally:
        _stop(processes.values())


def await_ports(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait until all of them listen. Raises EvergreenError when one ends by itself."""
    for port in filter(None, map(PORTS.__getitem__, processes)):
        while True:
            _require_alive(processes)
            with closing(socket(AF_INET, SOCK_STREAM)) as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    break
            time.sleep(0.3)


def _commands(home: Home) -> dict[str, list[str]]:
    bin_ = Path(sys.executable).parent
    store = f"sqlite:///{home.mlflow / 'mlflow.db'}"
    definitions = ["--workspace", str(_workspace(home))]
    return {
        "code": [
            *(str(bin_ / "dagster"), "code-server", "start", "--host", HOST, "--port", str(CODE_PORT)),
            *("--module-name", "pipelines.definitions", "--location-name", "evergreen"),
        ],
        "webserver": [str(bin_ / "dagster-webserver"), "-h", HOST, "-p", str(DAGSTER_PORT), *definitions],
        "daemon": [str(bin_ / "dagster-daemon"), "run", *definitions],
        "mlflow": [
            *(str(bin_ / "mlflow"), "server", "--host", HOST, "--port", str(MLFLOW_PORT), "--workers", "1"),
            *(
                "--backend-store-uri",
                store,
                "--serve-artifacts",
                "--artifacts-destination",
                str(home.mlflow / "served"),
            ),
        ],
        "reports": [
            *(sys.executable, "-m", "http.server", str(REPORTS_PORT), "--bind", HOST, "--directory", str(home.reports)),
        ],
    }


def _workspace(home: Home) -> Path:
    """One server of the definitions for both: by themselves, webserver and daemon load them again and again."""
    server = {"host": HOST, "port": CODE_PORT, "location_name": "evergreen"}
    path = home.dagster / WORKSPACE
    write_atomically(path, yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return path


def _start(home: Home, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "EVERGREEN_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (home.root / "logs" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=PROJECT, start_new_session=True
        )


def _stop(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """End the processes and their children together; those that do not listen within five seconds are killed."""
    patience = time.monotonic() + 5
    for process in processes:
        _signal(process, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, patience - time.monotonic()))
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)


def _require_free(port: int | None) -> None:
    if port is None:
        return
    with closing(socket(AF_INET, SOCK_STREAM)) as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise EvergreenError(f"port {port} on {HOST} is taken; stop what listens there and try again")


def _wait(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    try:
        while True:
            _require_alive(processes)
            time.sleep(1)
    except KeyboardInterrupt:
        return


def _require_alive(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise EvergreenError(f"{name} ended with exit code {process.returncode}; see its log in logs/{name}.log")
