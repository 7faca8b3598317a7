"""Nights of a team's home that are struck at random moments, next to the same nights of a home that nothing happens to.

python bench/faults.py [--faults NAME...] [--times N] [--nights N] [--folder DIR] [--seed N] [--together]

Each fault has a home of its own, on servers of its own: PostgreSQL, SeaweedFS behind a proxy, MLflow, Dagster's daemon
and code server; Redis is the machine's. A night is a run of the whole graph, training included. It is struck up to four
times, at moments drawn over twice the time that an undisturbed night takes, and launched again until it has succeeded,
as its schedule would. Then everything that the home has come to is compared with an embedded home that lived the same
nights undisturbed: every table by its content, the weights, the predictions, the ledger, the versions and the champion,
the online features. With `--folder` the records and the undisturbed nights are kept, for runs beside each other.
`--together` launches ten runs of five jobs at the same moment instead, and compares with the same runs one by one.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import dagster as dg
import psutil

from assets.home import Home
from assets.writing import write_atomically
from tests.stack.nights import Lived, Strike, Team, as_of, embedded, live, simulate, state
from tests.stack.servers import remove_features

A_MINUTE = 60.0
A_TRAINING = 20.0
"""Seconds within which a Ray worker is struck, which lives about as long."""
EACH = 4
"""Strikes that a night gets at most."""
RAY_WORKER = "Ray worker"
COUNTED = ("struck", "launches", "retried")


def kill_run_worker(team: Team) -> bool:
    """The process of the run, which the code server has started."""
    return _kill(team.code.inner(), lambda process: "spawn_main" in " ".join(process.cmdline()), recursive=False)


def kill_rank(team: Team) -> bool:
    """A process that trains."""
    return _kill(team.code.inner(), lambda process: "assets.training.program.worker" in process.cmdline())


def kill_ray_worker(_: Team) -> bool:
    """The process in which Ray Train watches a rank, at an age that is drawn; another takes its place at once."""

    def is_it(process: psutil.Process) -> bool:
        age = random.Random(process.pid).uniform(0, A_TRAINING)
        return process.name().startswith("ray::RayTrainW") and time.time() - process.create_time() > age

    return _kill(psutil.Process(), is_it)


def _kill(above: psutil.Process | None, is_it: Callable[[psutil.Process], bool], recursive: bool = True) -> bool:
    """Kill the first process of those below another that is it; false without one."""
    for process in above.children(recursive) if above else []:
        with suppress(psutil.NoSuchProcess):  # others end at any moment
            if is_it(process):
                process.kill()
                return True
    return False


def kill_mlflow(team: Team) -> bool:
    team.tracking.kill()
    team.tracking.start()
    return True


def restart_postgres(team: Team) -> bool:
    team.postgres.crash()
    team.postgres.start()
    return True


def spoil_s3(team: Team) -> float:
    """Answers of 500 and 503, resets and half bodies, for some or all requests."""
    team.proxy.faulty = team.chance.choice((0.3, 0.6, 1.0))
    return A_MINUTE


def flush_redis(team: Team) -> bool:
    remove_features(team.home)
    return True


FAULTS: dict[str, Strike] = {
    "run worker": kill_run_worker,
    "daemon": lambda team: team.daemon.strike(),
    "code server": lambda team: team.code.strike(),
    "rank": kill_rank,
    RAY_WORKER: kill_ray_worker,
    "MLflow": kill_mlflow,
    "PostgreSQL": restart_postgres,
    "S3": spoil_s3,
    "Redis": flush_redis,
}


def undisturbed(folder: Path, nights: int) -> list[dict[str, Any]]:
    """What each night comes to when nothing happens, and how many seconds it takes."""
    kept = folder / "undisturbed.json"
    known: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    if not known:
        simulate(folder / "records", nights)
    for night in range(len(known), nights):
        begun = time.monotonic()
        embedded(home := folder / "embedded", "refresh", night, folder / "records")
        known.append({"state": state(Home(home), night), "seconds": time.monotonic() - begun})
        write_atomically(kept, json.dumps(known))
        print(f"{as_of(night)} undisturbed: {known[-1]['seconds']:.0f} s", flush=True)
    return known[:nights]


def strike(
    folder: Path, name: str, times: int, known: list[dict[str, Any]], chance: random.Random
) -> Iterator[tuple[Lived, list[str]]]:
    """Nights with a fault, until it has struck often enough or there are no more, and in what each ends differently."""
    struck = 0
    with (
        tempfile.TemporaryDirectory(prefix="evergreen-faults-") as place,
        Team.running(Path(place), trains_on_ray=name == RAY_WORKER) as team,
    ):
        for night, expected in enumerate(known):
            end = 0 if name == RAY_WORKER else 2 * expected["seconds"]
            strikes = [(chance.uniform(0, end), FAULTS[name]) for _ in range(EACH)]
            lived = live(team, folder / "records", night, strikes)
            reached = json.loads(json.dumps(lived.state))
            yield lived, list(differences(reached, expected["state"]))
            struck += lived.struck
            if struck >= times:
                return


def together(folder: Path) -> bool:
    """Launch ten runs at the same moment; whether all succeed, and end as the same runs one by one in an embedded home.

    There they follow each other as they published the marts, or began to read them.
    """
    runs = [(job, night) for night in (1, 2) for job in ("ingest", "retrain", "score", "observe", "refresh")]
    with tempfile.TemporaryDirectory(prefix="evergreen-together-") as place:
        with Team.running(Path(place) / "team") as team:
            live(team, folder / "records", 0, [])
            ids = [team.launch(job, night, folder / "records") for job, night in runs]
            while any(team.result(run) is None for run in ids):
                time.sleep(1)
            succeeded, reached = sum(bool(team.result(run)) for run in ids), _reached(team.home)
            order = sorted(range(len(ids)), key=lambda number: _moment(team.instance, ids[number]))
        print(f"{succeeded} of {len(ids)} runs launched at once have succeeded; their order is {order}", flush=True)
        differs = list(differences(reached, _one_by_one(folder, Path(place) / "alone", [runs[each] for each in order])))
    print("; ".join(differs) or "they end as one by one")
    return succeeded == len(ids) and not differs


def _moment(instance: dg.DagsterInstance, run: str) -> float:
    """When a run published the marts, or first began to read them."""
    of_type = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS}
    events = {(entry.step_key, entry.dagster_event_type): entry.timestamp for entry in instance.all_logs(run, of_type)}
    published = events.get(("marts", dg.DagsterEventType.STEP_SUCCESS))
    read = [events.get((step, dg.DagsterEventType.STEP_START)) for step in ("training_set", "online_features")]
    return published or min(filter(None, read))


def _one_by_one(folder: Path, home: Path, runs: list[tuple[str, int]]) -> dict[str, Any]:
    for job, night in [("refresh", 0), *runs]:
        embedded(home, job, night, folder / "records")
    return _reached(Home(home))


def _reached(home: Home) -> dict[str, Any]:
    """What two nights have come to; runs of different jobs write into the ledger beside each other."""
    reached = {f"{part} of {night}": there for night in (1, 2) for part, there in state(home, night).items()}
    return {part: sorted(there, key=str) if part.startswith("ledger") else there for part, there in reached.items()}


def differences(reached: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    """What is in each part of a state too often, and what too rarely."""
    for part, there in reached.items():
        more, less = Counter(_items(there)), Counter(_items(expected[part]))
        if there != expected[part]:
            yield f"{part}: {[*(more - less).elements()]} in the place of {[*(less - more).elements()]}"


def _items(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [*value.items()] if isinstance(value, dict) else [value]
    return [json.dumps(item) for item in items]


def show(name: str, nights: list[tuple[Lived, list[str]]]) -> None:
    """A line of the table."""
    struck, launches, retried = (sum(getattr(lived, what) for lived, _ in nights) for what in COUNTED)
    equal, median = sum(not differs for _, differs in nights), statistics.median(lived.seconds for lived, _ in nights)
    print(
        f"{name:<12} {struck:>7} {len(nights):>7} {launches - len(nights):>9} {retried:>8} {median:>9.0f} {equal:>6}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", action="store_true", help="launch ten runs at once, and do nothing else")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evergreen-nights-") as temporary:
        folder, whole = asked.folder or Path(temporary), True
        known = undisturbed(folder, asked.nights)
        if asked.together:
            return 0 if together(folder) else 1
        print(f"{'':<12} {'strikes':>7} {'nights':>7} {'relaunched':>9} {'retried':>8} {'seconds':>9} {'equal':>6}")
        for name in asked.faults:
            nights: list[tuple[Lived, list[str]]] = []
            for lived, differs in strike(folder, name, asked.times, known, random.Random(f"{name} {asked.seed}")):
                nights.append((lived, differs))
                print(f"  {lived.struck} of {name}, {lived.seconds:.0f} s: {', '.join(differs) or 'equal'}", flush=True)
            show(name, nights)
            often = sum(lived.struck for lived, _ in nights) >= asked.times
            whole = whole and often and not any(differs for _, differs in nights)
    print(
        "every night ends in the same state"
        if whole
        else "NOT every night ends in the same state, or struck too rarely"
    )
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
