"""`evergreen serve` beside one at a time and beside a plain FastAPI; and no answer lost while the champion changes.

python bench/serving.py [--home HOME] [--records FILE] [--seconds N] [--connections N] [--changing N]

The server, the same server with batches of one, and a plain FastAPI with the same model (bench/peers/plain_fastapi.py)
answer the same records in turns, on one core and on two, to a load generator in a process of its own that keeps each
connection busy. CPU is that of the server's process. Then the champion changes five times under load; every answer is
checked against the ledger. Without --home the records are simulated and the graph is run twice first (minutes).
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

import numpy as np
import psutil

from assets.home import Home
from assets.ingestion.records import Record
from assets.settings import load_serving_settings, load_settings

TURNS, CHANGES, KEY = 2, 5, "bench"
GOAL_SPEED, GOAL_CPU = 1.8, 0.6
CONTENDERS = ("batches", "one at a time", "plain FastAPI")
EVERGREEN = Path(sys.executable).with_name("evergreen")


@dataclass(frozen=True)
class Measured:
    """One turn of a contender."""

    seconds: float
    cpu: float
    """Seconds of the server's process."""
    milliseconds: list[float]
    failed: int

    @property
    def speed(self) -> float:
        return len(self.milliseconds) / self.seconds

    @property
    def cpu_each(self) -> float:
        """Milliseconds of CPU a request."""
        return 1000 * self.cpu / max(1, len(self.milliseconds))


def prepare(home: Path) -> None:
    """Half a year of records and a champion; a month more and a challenger."""
    source, environment = str(home / "source"), os.environ | {"EVERGREEN_HOME": str(home)}

    def evergreen(*arguments: str) -> None:
        subprocess.run([EVERGREEN, *arguments], env=environment, check=True, capture_output=True)

    simulated = ("simulate", "--output", source, "--seed", "7", "--from")
    evergreen(*simulated, "2024-01-01", "--to", "2024-06-30")
    evergreen("run", "--source", source, "--as-of", "2024-07-01")
    evergreen(*simulated, "2024-07-01", "--to", "2024-07-31")
    evergreen("run", "--source", source, "--as-of", "2024-08-01", "--history")


def bodies(home: Home, records: Path, most: int = 2000) -> list[bytes]:
    """Requests with a record each, of those in a file that have a text."""
    from assets.ingestion.inputs import model_inputs
    from assets.ingestion.reading import read_rows

    found = list[bytes]()
    for row in read_rows(records, load_settings("quick").ingestion, home.domain):
        if isinstance(row, Record) and model_inputs(home.domain, row)["text"]:
            known = {name: row.fields[name] for name in home.domain.source.fields if name not in home.domain.outcomes}
            one = {name: value for name, value in known.items() if value is not None}
            found.append(json.dumps({"records": [one]}).encode())
        if len(found) == most:
            break
    return found


def serve(contender: str, port: int) -> None:
    """Be the server, in this process."""
    from pipelines.answering import listen

    limits: dict[str, Any] = {"records_per_second": 1e9, "burst_records": 10**9, "queue_records": 10_000}
    if contender == "one at a time":
        limits |= {"batch_records": 1, "wait_milliseconds": 0}
    settings = load_serving_settings().model_copy(update=limits)
    listen(Home.from_environment(), load_settings("quick"), settings, "127.0.0.1", port, lambda _: None)


@contextmanager
def server(contender: str, home: Path, cores: str) -> Iterator[tuple[psutil.Process, int]]:
    """A server, ready, on some cores: its process and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours = [str(Path(__file__)), "--serve", contender, "--port", str(port)]
    program = [str(HERE / "bench/peers/plain_fastapi.py"), str(port)] if contender == CONTENDERS[2] else ours
    environment = os.environ | {"EVERGREEN_HOME": str(home), "OMP_WAIT_POLICY": "PASSIVE"}
    command = ["taskset", "-c", cores, sys.executable, *program]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_ready(port):
            assert process.poll() is None, f"{contender} ended with {process.returncode}"
            time.sleep(0.1)
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.wait()


def is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


async def generate(port: int, key: str, sent: list[bytes], seconds: float, connections: int) -> list[list[Any]]:
    """Keep every connection busy: for each request its start, end, status, and the answer's version and entry."""
    ends, found, turn = time.time() + seconds, list[list[Any]](), iter(range(10**9))
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"

    async def keep_busy() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.time() < ends:
            body, started = sent[next(turn) % len(sent)], time.time()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            said = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in said.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            answer = await reader.readexactly(length)
            status = int(said.split(b" ", 2)[1])
            first = json.loads(answer)["answers"][0] if status == 200 else {}
            found.append([started, time.time(), status, first.get("training_id"), first.get("ledger_entry")])
        writer.close()

    async def robust() -> None:
        try:
            await keep_busy()
        except (OSError, asyncio.IncompleteReadError):
            found.append([time.time(), time.time(), 0, None, None])

    await asyncio.gather(*(robust() for _ in range(connections)))
    return found


def load(port: int, key: str, sent: Path, seconds: float, connections: int) -> list[list[Any]]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--load", str(port), "--key", key, "--sent", str(sent)]
    command += ["--seconds", str(seconds), "--connections", str(connections)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(contender: str, home: Path, key: str, sent: Path, cores: str, seconds: float, many: int) -> Measured:
    with server(contender, home, cores) as (process, port):
        load(port, key, sent, 2, many)  # warm
        before, started = process.cpu_times(), time.time()
        found = load(port, key, sent, seconds, many)
        after = process.cpu_times()
    good = [row for row in found if row[2] == 200]
    spent = after.user + after.system - before.user - before.system
    took = max(row[1] for row in found) - min(row[0] for row in found) if found else time.time() - started
    return Measured(took, spent, [1000 * (row[1] - row[0]) for row in good], len(found) - len(good))


def compare(home: Path, key: str, sent: Path, seconds: float, connections: int) -> None:
    for cores, named in (("0", "one core"), ("0,1", "two cores")):
        turns: dict[str, list[Measured]] = {name: [] for name in CONTENDERS}
        for _ in range(TURNS):
            for name in CONTENDERS:
                turns[name].append(measure(name, home, key, sent, cores, seconds, connections))
        print(f"\n{named}, {connections} connections, load average {os.getloadavg()[0]:.1f}")
        print(f"{'':<16}{'requests/s':>11}{'p50 ms':>8}{'p99 ms':>8}{'CPU ms':>8}{'speed':>7}{'CPU':>6}{'failed':>8}")
        alone = turns["one at a time"]
        for name, measured in turns.items():
            all_ = [one for turn in measured for one in turn.milliseconds]
            speed, cpu = (sum(getattr(one, what) for one in measured) / TURNS for what in ("speed", "cpu_each"))
            ratio = speed / (sum(one.speed for one in alone) / TURNS)
            spent = cpu / (sum(one.cpu_each for one in alone) / TURNS)
            p50, p99 = np.percentile(all_, [50, 99]) if all_ else (0, 0)
            failed = sum(one.failed for one in measured)
            print(f"{name:<16}{speed:>11.1f}{p50:>8.0f}{p99:>8.0f}{cpu:>8.2f}{ratio:>7.2f}{spent:>6.2f}{failed:>8}")
        for name in CONTENDERS[:2]:
            lone = measure(name, home, key, sent, cores, seconds / 2, 1)
            p50, p99 = np.percentile(lone.milliseconds, [50, 99])
            print(f"{name}, a single connection: p50 {p50:.1f} ms, p99 {p99:.1f} ms, CPU {lone.cpu_each:.1f} ms")
        print(f"goals: batches at least {GOAL_SPEED} times as fast, at most {GOAL_CPU} of the CPU", flush=True)


def change(home: Home, number: int) -> None:
    """Make the other of two versions the champion; a verdict has to have made it one before it can return."""
    from assets.evaluation.gate import decide
    from assets.evaluation.report import read_evaluation, table
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    registry = Registry(home)
    reigning = registry.last_move()
    assert reigning is not None
    other = next(v for v in reversed(registry.versions()) if v.training_id != reigning.body["training_id"])
    former = {entry.body["training_id"] for entry in registry.ledger.entries("alias")}
    if other.training_id in former:
        Succession(registry).rollback(other.version, f"change {number} of the benchmark")
        return
    evaluation = read_evaluation(home.lake.path(table(other.as_of), other.tags["evaluation"]))
    policy, champion = load_settings("quick").gate, reigning.body["training_id"]
    verdict = decide(evaluation, policy, home.domain, champion)
    Succession(registry).enact(other.version, replace(verdict, decision="promote"))


def follow(home: Path, key: str, sent: Path, seconds: float, connections: int) -> None:
    """Change the champion under load, and check every answer against the ledger."""
    from assets.registry.registry import Registry

    lived, moved = Home(home), list[tuple[float, int]]()
    with server("batches", home, "0,1") as (_, port):
        command = [sys.executable, __file__, "--load", str(port), "--key", key, "--sent", str(sent)]
        command += ["--seconds", str(seconds), "--connections", str(connections)]
        generator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started = time.time()
        for number in range(1, CHANGES + 1):
            while time.time() < started + number * seconds / (CHANGES + 1):
                time.sleep(0.05)
            change(lived, number)
            last = Registry(lived).last_move()
            assert last is not None
            moved.append((time.time(), last.seq))
        found = json.loads(generator.communicate()[0])
    moves = {entry.seq: entry.body["training_id"] for entry in Registry(lived).ledger.entries("alias")}
    failed = sum(row[2] != 200 for row in found)
    wrong = sum(row[2] == 200 and moves.get(row[4]) != row[3] for row in found)
    late = [row[0] - at for row in found for at, seq in moved if row[2] == 200 and row[0] > at and row[4] < seq]
    used = len({row[4] for row in found if row[2] == 200})
    print(f"\n{len(found):,} requests in {seconds:g} s, load average {os.getloadavg()[0]:.1f}")
    print(f"the champion changed {len(moved)} times; {used} entries of the ledger were answered by")
    print(f"failed requests: {failed}; answers of a version that was not champion: {wrong}")
    print(f"a former champion answered for at most {max(late, default=0):.1f} s after the ledger had moved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--records", type=Path, help="a file of the domain's source; by default the home's newest")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--changing", type=float, default=120, help="seconds of load while the champion changes")
    for hidden in ("--serve", "--port", "--load", "--key", "--sent"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, int(given.port))
    elif given.load:
        sent = [line for line in Path(given.sent).read_bytes().split(b"\n") if line]
        print(json.dumps(asyncio.run(generate(int(given.load), given.key, sent, given.seconds, given.connections))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(given, Path(folder))


def run(given: argparse.Namespace, folder: Path) -> None:
    from assets.serving.keys import add_key

    home = folder / "home"
    if given.home:
        shutil.copytree(given.home, home, symlinks=True)
    else:
        prepare(home)
    os.environ["EVERGREEN_HOME"] = str(home)
    (home / "serving" / "keys").unlink(missing_ok=True)
    key = add_key(home / "serving" / "keys", KEY)
    records = given.records or max((home / "source").glob("*.*"))
    (folder / "sent").write_bytes(b"\n".join(bodies(Home(home), records)))
    compare(home, key, folder / "sent", given.seconds, given.connections)
    follow(home, key, folder / "sent", given.changing, given.connections)


if __name__ == "__main__":
    main()
