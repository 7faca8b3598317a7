"""The user interfaces of a home and the processes behind them, which start and end together."""

import errno
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from html import escape
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import NoReturn
from urllib.parse import urlsplit

import yaml

from assets.addresses import HOST, PORTS, address, ports, set_ports
from assets.exceptions import EvergreenError, describe
from assets.hashing import hash_json
from assets.home import Home
from assets.locks import claimed
from assets.settings import CONFIGS
from assets.writing import write_atomically
from pipelines.guard import forget_token, token_of
from pipelines.instance import LOCATION, close_killed_runs, launched_runs, open_instance
from pipelines.servers import WORKSPACE
from pipelines.stopping import Stopped

__all__ = ["Processes", "await_servers", "of_this_machine", "require_alive", "serve", "serving"]

PROJECT = CONFIGS.parent
_SERVERS = PROJECT / "pipelines" / "servers.py"
_NAMES = {"front": "The front door", "dagster": "Dagster", "mlflow": "MLflow", "code": "The graph"}
"""What people call the servers; the daemon listens nowhere."""

_PATIENCE = 1.0
"""Seconds within which a server that is ready answers."""

_LOOKS = 1.0
"""Seconds between two looks at the processes and the runs."""

_SEARCHES = 15.0
"""Seconds between two searches for runs whose processes died, on this machine or another."""

_log = logging.getLogger("evergreen")

Processes = Mapping[str, subprocess.Popen[bytes]]
Say = Callable[[str], None]


def serve(
    home: Home,
    say: Say,
    show: Callable[[str], None],
    host: str = HOST,
    port: int | None = None,
    opens: bool = False,
    names: Sequence[str] = (),
) -> None:
    """Start the front door, Dagster's webserver and daemon, and MLflow, or only those named, and wait for Ctrl-C.

    They listen on `host` and answer to 127.0.0.1: another host is for a container whose ports are published there.
    `say` gets a line of progress at a time, and `show` the one address to open; with `opens` a browser opens it. `port`
    is the front door's. Raises EvergreenError when the home is served already or one of the processes ends by itself.
    """
    say(f"Starting; logs are in {home.root / 'logs'}")
    begun = time.monotonic()
    wanted = PORTS | ({} if port is None else {"front": port})
    with serving(home, *(names or of_this_machine(home)), host=host, wanted=wanted, say=say) as processes:
        await_servers(home, processes, lambda name: say(f"{time.monotonic() - begun:6.1f} s  {name} is ready"))
        if "front" in processes:
            show(address(home, "front", f"?token={token_of(home)}"))
            others = "Dagster and MLflow" if "mlflow" in processes else "Dagster"
            say(f"It lets this browser in, to {others}, too; keep it to yourself. Ctrl-C stops all.")
        if opens and not _open(home):
            say("There is no browser to open it in.")
        _wait(home, processes, say)
        say("Stopping; Ctrl-C again ends them at once.")


def of_this_machine(home: Home) -> list[str]:
    """The processes that the home's environment has nowhere else."""
    elsewhere = {name for name in ("code", "mlflow") if getattr(home.environment, name)}
    return [name for name in ("code", "daemon", *PORTS) if name not in elsewhere]


@contextmanager
def serving(
    home: Home, *names: str, host: str = HOST, wanted: Mapping[str, int] = PORTS, say: Say = lambda _: None
) -> Iterator[Processes]:
    """Start some of code, daemon, front, dagster and mlflow, and stop them at the end.

    `wanted` are the ports; one that is in use is replaced by a free one, and links follow. Raises EvergreenError when a
    port may not be used, and when the home is served already: two daemons would launch everything twice. A daemon of
    another machine is waited for instead.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not stack.enter_context(claimed(home.root / ".ui.lock", wait=False)):
            raise EvergreenError(f"{home.root} is served already, at {address(home, 'front')}; stop that first")
        sockets = {
            name: stack.enter_context(_listening(name, host, wanted[name], say)) for name in names if name in PORTS
        }
        if sockets:
            set_ports(home, _elsewhere(home) | {name: one.getsockname()[1] for name, one in sockets.items()})
            forget_token(home)
        for path in (home.reports, home.mlflow, home.root / "logs"):
            path.mkdir(parents=True, exist_ok=True)
        with open_instance(home) as instance:  # writes dagster.yaml and makes the databases before processes race to
            close_killed_runs(instance, home, restarted=True)
        if home.environment.is_shared and "daemon" in names:
            stack.enter_context(home.exclusively("daemon", "the daemon"))
        # A socket's path may have 107 bytes, which a home's may exceed; the folder is the owner's alone.
        prefix = _swept(f"evergreen-{hash_json(str(home.root))[:16]}-")
        commands = _commands(home, host, Path(stack.enter_context(TemporaryDirectory(prefix=prefix))) / "code.sock")
        processes = {name: _start(home, name, commands, sockets.get(name)) for name in names}
        try:
            yield processes
        finally:
            _stop(home, processes)


def _elsewhere(home: Home) -> dict[str, int]:
    """The port of an MLflow server that is not ours, as people reach it: its own, published on this machine."""
    server = home.environment.mlflow
    return {"mlflow": urlsplit(server).port or PORTS["mlflow"]} if server else {}


def _listening(name: str, host: str, port: int, say: Say) -> socket.socket:
    """A listening socket for a server to inherit: requests wait for it, and nothing else can get the port."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise EvergreenError(f"port {port} on {host} cannot be used: {error.strerror}") from None
    found = socket.create_server((host, 0))
    say(f"Port {port} is in use; {_NAMES[name]} has {found.getsockname()[1]}")
    return found


def _swept(prefix: str) -> str:
    """The same, once the remains of a killed one under it are gone."""
    for left in Path(gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    return prefix


def await_servers(home: Home, processes: Processes, ready: Callable[[str], None] = lambda _: None) -> None:
    """Wait until all of them answer; `ready` gets the name of each that does.

    Raises EvergreenError when one ends by itself.
    """
    waiting = [name for name in processes if name in _NAMES]
    while waiting:
        require_alive(processes)
        for name in [name for name in waiting if _answers(home, name)]:
            ready(_NAMES[name])
            waiting.remove(name)
        time.sleep(0.3 if waiting else 0)


def _open(home: Home) -> bool:
    """Open the front door in a browser, through a file: a program's arguments can be read by other users."""
    url = address(home, "front", f"?token={token_of(home)}")
    file = home.root / "open.html"
    write_atomically(
        file, f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={escape(url)}"><title>Evergreen</title>'
    )
    return webbrowser.open(file.as_uri())


def _commands(home: Home, host: str, code: Path) -> dict[str, list[str]]:
    """The command of each process; `code` is the socket of the single server of the definitions.

    Without it, webserver and daemon would load the definitions again and again. Where the environment has it elsewhere,
    it listens there, on `host`.
    """
    bin_, workspace = Path(sys.executable).parent, home.dagster / WORKSPACE
    where, port = (home.environment.code or ":").split(":")
    server = {"host": where, "port": int(port)} if port else {"socket": str(code)}
    write_atomically(workspace, yaml.safe_dump({"load_from": [{"grpc_server": server | {"location_name": LOCATION}}]}))
    return {
        "code": [
            *(str(bin_ / "dagster"), "api", "grpc"),
            *(("--host", host, "--port", port) if port else ("--socket", str(code))),
            *("--module-name", "pipelines.definitions", "--location-name", LOCATION),
        ],
        "daemon": [str(bin_ / "dagster-daemon"), "run", "--workspace", str(workspace)],
        **{name: [str(_SERVERS), name, str(port)] for name, port in ports(home).items()},
    }


def _start(
    home: Home, name: str, commands: Mapping[str, list[str]], listening: socket.socket | None
) -> subprocess.Popen[bytes]:
    handed = [] if listening is None else [listening.fileno()]
    environment = os.environ | {
        "EVERGREEN_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster),
        "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "0",  # its clients are stopped as well
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (home.root / "logs" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.tether", *commands[name], *map(str, handed)],
            pass_fds=handed,
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


def _answers(home: Home, name: str) -> bool:
    """Whether a process of this machine answers, by whatever name others know it; the daemon listens nowhere."""
    if name == "code":
        (location,) = yaml.safe_load((home.dagster / WORKSPACE).read_text())["load_from"]
        server = location["grpc_server"]
        local = "socket" in server
        with closing(socket.socket(socket.AF_UNIX if local else socket.AF_INET)) as probe:
            return probe.connect_ex(server["socket"] if local else (HOST, server["port"])) == 0
    if name not in PORTS:
        return True
    with closing(HTTPConnection(HOST, ports(home)[name], timeout=_PATIENCE)) as connection:
        try:
            connection.request("GET", "/")
            return bool(connection.getresponse().status)
        except (OSError, HTTPException):
            return False


def _wait(home: Home, processes: Processes, say: Say) -> None:
    """Wait for Ctrl-C, and for a person's agreement to what it would end."""
    while True:
        try:
            _look_after(home, processes)
        except Stopped as stopped:
            if _may_stop(home, processes, say, asks=stopped.number == signal.SIGINT and sys.stdin.isatty()):
                return


def _look_after(home: Home, processes: Processes) -> NoReturn:
    """Whoever has the daemon closes runs whose processes died on machines that share the home, for it to retry."""
    searches, searched = "daemon" in processes and home.environment.is_shared, time.monotonic()
    while True:
        require_alive(processes)
        time.sleep(_LOOKS)
        if searches and time.monotonic() - searched > _SEARCHES:
            _close_killed(home)
            searched = time.monotonic()


def _close_killed(home: Home) -> None:
    try:
        with open_instance(home) as instance:
            close_killed_runs(instance, home)
    except Stopped:
        raise
    except Exception as error:  # servers restart: whatever it is, the next search may do
        _log.warning("no search for killed runs: %s", describe(error))


def _may_stop(home: Home, processes: Processes, say: Say, *, asks: bool) -> bool:
    """Say which runs a stop would end; with `asks`, ask whether to."""
    if not (runs := _under_way(home)):
        return True
    say(f"Under way: {', '.join(runs)}")
    if not asks:
        say("They are told to end; what is published stays, and a training continues when it is launched again.")
        return True
    say("End them? y: yes. w: wait for them, then stop. Anything else: go on serving.")
    try:
        answer = input().strip().lower()
        if answer == "w":
            while _under_way(home):
                require_alive(processes)
                time.sleep(_LOOKS)
        return answer in ("y", "w")
    except (Stopped, EOFError):
        return True


def _under_way(home: Home) -> list[str]:
    with open_instance(home) as instance:
        return launched_runs(instance)


def require_alive(processes: Processes) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise EvergreenError(f"{name} ended with exit code {process.returncode}; see its log in logs/{name}.log")
