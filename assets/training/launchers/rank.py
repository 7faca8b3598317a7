"""A rank on a Ray worker: the training program in a process of its own, watched.

The program stays as it is: it has its main thread for signals, its own memory and threads, and ends with its worker.
"""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR

from assets.cluster.driver import FAILURE
from assets.cluster.exchange import Exchange, files_under
from assets.exceptions import TrainingError
from assets.locks import locked
from assets.training.launchers.cluster import BASE_MODEL, BUNDLE, PLAN, PREPARED, SNAPSHOT
from assets.training.plan import TrainingPlan

__all__ = ["Rank", "run_rank"]

_LOOK_SECONDS = 1.0
"""How often a worker asks whether its machine is about to be taken away."""
_START_SECONDS = 600
"""How long a program may take until its first line: imports, and the rows of the snapshot as tokens."""


@dataclass(frozen=True)
class Rank:
    """What the driver tells its ranks: the exchange's address, a name of the attempt, and the actor to report to."""

    exchange: str
    attempt: str
    reports: Any


def run_rank(config: dict[str, Any]) -> None:
    """Run one rank, or nothing where the rows of a step cannot be shared by all workers.

    `config` has the fields of a `Rank`. Raises TrainingError when the program ends early: Ray Train then ends the other
    ranks, too.
    """
    import ray.train.collective

    rank, place = Rank(**config), ray.train.get_context()
    exchange = Exchange(rank.exchange)
    whole = TrainingPlan.model_validate_json(exchange.read(PLAN) or "")
    address, port = ray.train.collective.broadcast_from_rank_zero(_free_address())
    ranks = _shareable(whole.settings.optimizer.batch_rows, place.get_world_size())
    number, local = place.get_world_rank(), place.get_local_rank()
    if number >= ranks:
        return
    folder = _folder(whole.training_id)
    plan = _prepare(whole, exchange, folder, rank.attempt, number, ranks)
    joined = {"RANK": number, "WORLD_SIZE": ranks, "LOCAL_RANK": local, "MASTER_ADDR": address, "MASTER_PORT": port}
    told = {"EVERGREEN_THREADS": plan.settings.cluster.rank_cpus, **(joined if ranks > 1 else {})}
    file = plan.output.with_suffix(".json")
    file.write_text(plan.model_dump_json())
    command = [sys.executable, "-m", "assets.training.program.worker", str(file)]
    _run(command, {name: str(value) for name, value in told.items()}, plan, number, rank.reports, exchange)
    if number == 0:
        exchange.put(BUNDLE, files_under(plan.output))
    if local == 0:
        shutil.rmtree(folder, ignore_errors=True)


def _shareable(rows: int, workers: int) -> int:
    """The most ranks, of some workers, that share a step's rows evenly."""
    return next(ranks for ranks in range(min(workers, rows), 0, -1) if rows % ranks == 0)


def _free_address() -> tuple[str, int]:
    """This machine's address, and a port of it that is free."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), int(probe.getsockname()[1])


def _folder(training: str) -> Path:
    """A folder of this user's for a training on this machine; another attempt finds there what does not change.

    Ray numbers the ranks of a machine by its address, too: the first of them fetches for those that share the folder.
    """
    import ray

    root = Path(tempfile.gettempdir()) / f"evergreen-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise TrainingError(f"{root} is not this user's: remove it")
    return root / str(ray.util.get_node_ip_address()) / training


def _prepare(
    plan: TrainingPlan, exchange: Exchange, folder: Path, attempt: str, number: int, ranks: int
) -> TrainingPlan:
    """The plan with the folders of this node, and in them what the plan needs."""
    own = folder / f"attempt-{attempt}"
    with locked(folder / ".lock"):
        for name in (SNAPSHOT, BASE_MODEL, *([PREPARED] if plan.prepared else [])):
            exchange.fetch(name, folder / name)
        for old in set(folder.glob("attempt-*")) - {own}:
            shutil.rmtree(old, ignore_errors=True)
    output = own / f"rank-{number}"
    output.mkdir(parents=True)
    paths = {"snapshot": folder / SNAPSHOT, "base_model": folder / BASE_MODEL, "cache": folder / "cache"}
    paths |= {"prepared": folder / PREPARED} if plan.prepared else {}
    checkpoints = own / "checkpoints" / plan.checkpoints.name
    return plan.model_copy(update=paths | {"checkpoints": checkpoints, "output": output, "world_size": ranks})


def _run(
    command: list[str], told: dict[str, str], plan: TrainingPlan, number: int, reports: Any, exchange: Exchange
) -> None:
    """Run the program to its end; the first rank's lines go to the driver. Raises TrainingError when it ends early."""
    silence = plan.settings.cluster.silence_seconds
    with _started(command, os.environ | told) as process:
        try:
            for line in _lines(process, *((max(silence, _START_SECONDS), silence) if number == 0 else (None, None))):
                print(line, file=sys.stderr)  # noqa: T201 - the worker's log, in Ray's dashboard
                if number == 0 and (message := _message(line)):
                    reports.tell.remote(message)
            why = _ending(process.wait())
        except queue.Empty:
            process.kill()
            why = f"no line of progress in {silence:g} s (training.cluster.silence_seconds): the ranks hang"
    if why is None:
        return
    import ray

    if process.returncode == 1 and plan.failure.exists():
        exchange.write(FAILURE, plan.failure.read_text())
    ray.get(reports.tell.remote(f"rank {number}: {why}"))
    raise TrainingError(f"rank {number}: {why}")


def _ending(status: int) -> str | None:
    """Why a program ended early, by its exit status; None if it did not."""
    if status == 128 + signal.SIGTERM:
        return "was told to stop, and is saved"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}; its last lines are in the worker's log" if status else None


@contextmanager
def _started(command: list[str], environment: dict[str, str]) -> "Iterator[subprocess.Popen[str]]":
    """A program that gets SIGTERM when Ray gives notice that a machine of the training is to be taken away."""
    import ray.train

    ended = Event()
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=pipe, env=environment, text=True, errors="replace"
    ) as process:

        def look() -> None:
            with suppress(Exception):  # Ray's, when it ends the worker in the meantime
                while not ended.wait(_LOOK_SECONDS):
                    if ray.train.get_preemption_info() is not None:
                        process.terminate()
                        return

        Thread(target=look, daemon=True).start()
        try:
            yield process
        finally:
            ended.set()


def _lines(process: "subprocess.Popen[str]", first: float | None, silence: float | None) -> Iterator[str]:
    """A program's lines, until it ends.

    Raises queue.Empty when the first has not come within `first` seconds, or another within `silence` of the one
    before.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    stderr = process.stderr
    assert stderr is not None

    def read() -> None:
        for line in stderr:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    Thread(target=read, daemon=True).start()
    line = lines.get(timeout=first)
    while line is not None:
        yield line
        line = lines.get(timeout=silence)


def _message(line: str) -> str | dict[str, Any] | None:
    """What the program says in a line: a text, or the payload of a message about its curves; None for other messages.

    Without Dagster the line itself.
    """
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        return line
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(line)
        if said["method"] == "log":
            return str(said["params"]["message"])
        return dict(said["params"]["payload"]) if said["method"] == "report_custom_message" else None
    return None
