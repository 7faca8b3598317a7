"""The cost of a night after a long history: CPU seconds, bytes read and written, disk space, and peak memory.

python bench/nights.py [--history N] [--nights N] [--records N] [--beside TREE] [--beside-nights N] [--on-s3]

The history is ingested at once, then night by night. A process of its own ingests, builds, audits and publishes a
night and fills the online store; its children are included. Bytes are those of system calls, by the kernel's
accounting. `--beside` measures another checkout on the same nights in the same run. Whole weeks are compared, because
a partition holds a week and fills up during it. `--on-s3` keeps the lake on a SeaweedFS of its own, and shows what that
has more after each night: nothing is removed from it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

from assets.objects import Objects
from pipelines.stack import Seaweed, Secrets

LAST_OF_HISTORY, HISTORY_DAYS, WEEK = date(2024, 3, 31), 1000, 7
FIGURES = ("read", "written", "disk", "on_s3", "peak")
GOAL_FLAT, GOAL_CPU, GOAL_WRITTEN = 1.2, 0.5, 0.1

NIGHT = """
import json, os, resource, sys
from pathlib import Path
home, as_of, *sources = sys.argv[1:]
os.environ["EVERGREEN_HOME"] = home
from assets.features.serving import materialize
from assets.features.store import apply_definitions
from assets.ingestion.landing import ingest
from assets.home import Home
from assets.settings import EMBEDDED, load_settings
from assets.validation.audit import audit, publish
from assets.warehouse.project import build_marts
environment = EMBEDDED.model_copy(update={"objects": os.environ.get("EVERGREEN_OBJECTS")})
home, settings, spent = Home(Path(home), environment), load_settings("full"), {}
def spend(stage):
    who = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    now = sum(use.ru_utime + use.ru_stime for use in who)
    spent[stage], spend.last = now - spend.last, now
spend.last = 0
spend("imports")
ingest(sources, home.lake, settings.ingestion, home.domain, as_of)
spend("ingestion")
build_marts(home)
spend("warehouse")
publish(home, audit(home, as_of, settings.warehouse), settings.warehouse)
spend("validation")
apply_definitions(home)
materialize(home, as_of)
spend("online")
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024
io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
print(json.dumps({"cpu": spent, "read": int(io["rchar"]), "written": int(io["wchar"]), "peak": peak}))
"""


@dataclass(frozen=True)
class Cost:
    """Of a night: CPU seconds by stage, bytes read and written, bytes that the home has more on the disk and on S3, and
    the peak memory of its largest process in bytes."""

    cpu: dict[str, float]
    read: float
    written: float
    disk: float
    on_s3: float
    peak: float

    @property
    def seconds(self) -> float:
        return sum(self.cpu.values())


def simulate(folder: Path, first: date, last: date, rate: int, *more: str) -> None:
    evergreen = Path(sys.executable).with_name("evergreen")
    days = ["--from", first.isoformat(), "--to", last.isoformat(), "--rate", str(rate)]
    subprocess.run([evergreen, "simulate", "--output", folder, *days, *more], check=True, stdout=subprocess.DEVNULL)


def spend(tree: Path, home: Path, as_of: date, *sources: Path) -> Cost:
    """Run one night by the code of a checkout."""
    before, there = disk(home), stored()
    command = [sys.executable, "-c", NIGHT, home, as_of.isoformat(), *sources]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    more = disk(home) - before, stored() - there
    return Cost(found["cpu"], found["read"], found["written"], *more, found["peak"])


def disk(folder: Path) -> int:
    """Bytes on the disk; a file with several names counts once."""
    stats = (path.lstat() for path in folder.rglob("*"))
    return sum({stat.st_ino: stat.st_blocks * 512 for stat in stats}.values())


def stored() -> int:
    """Bytes of the objects of the home."""
    address = os.environ.get("EVERGREEN_OBJECTS")
    return sum(listed.bytes for listed in Objects.at(address).listed()) if address else 0


@contextmanager
def bucket_on(folder: Path) -> Iterator[str]:
    """A bucket on a SeaweedFS of its own, for this process and its children."""
    server = Seaweed(folder / "seaweed", keys=Secrets.in_folder(folder / "secrets"))
    with server.running():
        server.client().create_bucket(Bucket="bench")
        os.environ |= server.variables
        yield "bench"


def mean(costs: Sequence[Cost]) -> Cost:
    number = len(costs)
    stages = {stage: sum(cost.cpu[stage] for cost in costs) / number for stage in costs[0].cpu}
    sums = [sum(getattr(cost, name) for cost in costs) / number for name in FIGURES]
    return Cost(stages, *sums)


def show(name: str, cost: Cost) -> None:
    megabytes = " ".join(f"{value / 1e6:>9.1f}" for value in (getattr(cost, name) for name in FIGURES))
    stages = "  ".join(f"{stage} {seconds:.1f}" for stage, seconds in cost.cpu.items())
    print(f"{name:<22}{cost.seconds:>8.1f} {megabytes}   {stages}", flush=True)


def measure(name: str, tree: Path, folder: Path, nights: int, bucket: str | None) -> list[Cost]:
    """The nights on top of the history, by the code of a checkout."""
    home = folder / name
    if bucket:
        os.environ["EVERGREEN_OBJECTS"] = f"s3://{bucket}/{name}"
    show(f"{name}: history", spend(tree, home, LAST_OF_HISTORY, folder / "history"))
    costs = []
    for night in range(1, nights + 1):
        day = LAST_OF_HISTORY + timedelta(days=night)
        landed = folder / f"{name}-nights"
        landed.mkdir(exist_ok=True)
        for file in (folder / "nights").glob(f"*{day.isoformat()}*"):
            (landed / file.name).hardlink_to(file)
        costs.append(spend(tree, home, day, folder / "history", landed))
        show(f"{name}: night {night}", costs[-1])
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--beside-nights", type=int, default=3)
    parser.add_argument("--on-s3", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, bucket_on(Path(name)) if given.on_s3 else nullcontext() as bucket:
        folder = Path(name)
        first, night = LAST_OF_HISTORY - timedelta(days=HISTORY_DAYS - 1), LAST_OF_HISTORY + timedelta(days=1)
        simulate(folder / "history", first, LAST_OF_HISTORY, given.history // HISTORY_DAYS, "--seed", "7")
        last = night + timedelta(days=given.nights - 1)
        simulate(folder / "nights", night, last, given.records, "--seed", "8", "--daily")
        print(f"{'':<22}{'CPU s':>8} {'read MB':>9} {'written':>9} {'disk':>9} {'S3':>9} {'peak':>9}")
        costs = measure("here", HERE, folder, given.nights, bucket)
        early, late = mean(costs[1 : 1 + WEEK]), mean(costs[-WEEK:])
        show("nights 2 to 8", early)
        show(f"the last {WEEK} nights", late)
        print(f"later / earlier: CPU {late.seconds / early.seconds:.2f}, written {late.written / early.written:.2f}, "
              f"read {late.read / early.read:.2f} (goal {GOAL_FLAT})")  # fmt: skip
        if given.beside:
            beside = mean(measure("beside", given.beside.absolute(), folder, given.beside_nights, bucket))
            same = mean(costs[: given.beside_nights])
            print(f"here / beside, the same nights: CPU {same.seconds / beside.seconds:.2f} (goal {GOAL_CPU}), "
                  f"written {same.written / beside.written:.3f} (goal {GOAL_WRITTEN})")  # fmt: skip


if __name__ == "__main__":
    main()
