"""One million simulated records from files to a published snapshot: time and peak memory of each stage.

python bench/data_plane.py [--records N] [--source FOLDER] [--beside TREE]

Each stage runs in its own process, next to hand-written DuckDB SQL that does the same work on the same files in the
same run. Goals: at most twice the CPU seconds of the SQL, 180 s in total and 4 GB. `--source` reads existing files
instead of simulated ones; `--beside` also measures another checkout, its stages alternating with these.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

AS_OF, DAYS = "2024-07-01", 182
GOAL_RATIO, GOAL_SECONDS, GOAL_GB = 2, 180, 4

OURS = {
    "ingestion": """
from inspect import signature
from assets.ingestion.landing import ingest
# Another checkout may be of before a domain declared its source.
domain = [home.domain] if "domain" in signature(ingest).parameters else []
ingest([source], home.lake, settings.ingestion, *domain, as_of)
""",
    "warehouse": """
from assets.warehouse.project import build_marts
build_marts(home)
""",
    "validation": """
from assets.validation.audit import audit, publish
publish(home, audit(home, as_of, settings.warehouse), settings.warehouse)
""",
    "features": """
from assets.features.snapshot import build_training_set
from assets.features.store import apply_definitions
apply_definitions(home)
build_training_set(home, as_of, settings.snapshot)
""",
}

SQL = {
    "ingestion": """
copy (select *, row_number() over () as line from read_csv('{source}/*.csv', all_varchar = true, header = true,
    strict_mode = false, ignore_errors = true, quote = '"', escape = '"')) to '{folder}/raw.parquet' (format parquet);
""",
    "warehouse": """
create table typed as select *, try_cast("Date received" as timestamp) as known_at,
    try_cast("Date sent to company" as timestamp) as label_known_at, md5(concat_ws('|', columns(*))) as content_hash
    from '{folder}/raw.parquet';
create table fct as select "Complaint ID" as record_id, known_at, label_known_at, Company as company, State as state,
    Product as label, "Consumer complaint narrative" as text from typed
    where known_at is not null and "Complaint ID" is not null
    qualify row_number() over (partition by "Complaint ID" order by line desc) = 1;
copy (select * from fct order by record_id) to '{folder}/fct.parquet' (format parquet, compression zstd);
{statistics}""",
    "validation": """
select count(*), count(distinct record_id), count(*) filter (known_at is null), min(known_at), max(known_at),
    count(*) filter (label_known_at < known_at), count(distinct label),
    max(length(text)) from '{folder}/fct.parquet';
""",
    "features": """
create table rows as select * from '{folder}/fct.parquet'
    where text is not null and known_at <= timestamp '{as_of}' and label_known_at <= timestamp '{as_of}'
    order by known_at desc limit 200000;
copy (select rows.*, c.n7, c.n30, c.n90, s.n7 as s7, s.n30 as s30, s.n90 as s90 from rows
    asof left join '{folder}/company.parquet' c on rows.company = c.company and rows.known_at >= c.event_timestamp
    asof left join '{folder}/state.parquet' s on rows.state = s.state and rows.known_at >= s.event_timestamp
    order by rows.known_at, rows.record_id) to '{folder}/train.parquet' (format parquet, compression zstd);
""",
}

STATISTICS = """
copy (select {entity}, known_at + interval 1 day as event_timestamp, {counts}
    from fct qualify row_number() over (partition by {entity}, known_at) = 1) to '{folder}/{entity}.parquet';
"""

COUNT = """count(*) over (partition by {entity} order by known_at
    range between interval {before} day preceding and current row) as n{days}"""

PRELUDE = """
import sys
from pathlib import Path
from assets.home import Home
from assets.settings import load_settings
home, source, as_of, settings = Home(Path({home!r})), {source!r}, {as_of!r}, load_settings("full")
"""

REPORT = """
import resource
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(one.ru_utime + one.ru_stime for one in used), max(one.ru_maxrss for one in used))
"""

PEER = """
import duckdb
duckdb.connect({database!r}).execute({sql!r})
"""


@dataclass(frozen=True)
class Cost:
    seconds: float = 0.0
    cpu: float = 0.0
    """CPU seconds, of children too."""
    gigabytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        most = max(self.gigabytes, other.gigabytes)
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu, most)

    def __str__(self) -> str:
        return f"{self.seconds:>8.1f} s {self.cpu:>7.1f} CPU s {self.gigabytes:>6.2f} GB"


def statistics(entity: str, folder: str) -> str:
    """Rolling counts over 7, 30 and 90 days, by window functions."""
    counts = ", ".join(COUNT.format(entity=entity, before=days - 1, days=days) for days in (7, 30, 90))
    return STATISTICS.format(entity=entity, counts=counts, folder=folder)


def cost(code: str, python: Path) -> Cost:
    """What a process costs; its memory is the peak of the largest, itself or a child."""
    started = time.perf_counter()
    command, tree = [python, "-c", f"{code}\n{REPORT}"], python.parents[2]
    done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True, check=True)
    cpu, kilobytes = done.stdout.splitlines()[-1].split()
    return Cost(time.perf_counter() - started, float(cpu), int(kilobytes) / 1024**2)


def measure(folder: Path, source: Path, stage: str, trees: dict[str, Path]) -> dict[str, Cost]:
    """What a stage costs each checkout, and SQL by hand."""
    names = {"source": str(source), "as_of": AS_OF, "folder": f"{folder}/sql"}
    names["statistics"] = "".join(statistics(entity, names["folder"]) for entity in ("company", "state"))
    peer = PEER.format(database=f"{folder}/sql/peer.duckdb", sql=SQL[stage].format(**names))
    costs = {"SQL by hand": cost(peer, Path(sys.executable))}
    for name, python in trees.items():
        costs[name] = cost(PRELUDE.format(home=f"{folder}/{name}", **names) + OURS[stage], python)
    report(stage, costs)
    return costs


def report(stage: str, costs: dict[str, Cost]) -> None:
    hand = costs["SQL by hand"]
    for name, one in costs.items():
        print(f"{stage:<12}{name:<12}{one}{one.seconds / hand.seconds:>8.1f}{one.cpu / hand.cpu:>8.1f}", flush=True)


def simulate(records: int, source: Path) -> None:
    days = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", str(records // DAYS), "--seed", "7"]
    subprocess.run([Path(sys.executable).with_name("evergreen"), "simulate", "--output", source, *days], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--beside", type=Path)
    options = parser.parse_args()
    trees = {"Evergreen": Path(sys.executable)}
    if options.beside:
        trees["beside"] = options.beside.absolute() / ".venv" / "bin" / "python"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sql").mkdir()
        source = options.source.absolute() if options.source else folder / "source"
        if not options.source:
            simulate(options.records, source)
        print(f"{'':<60}ratio, seconds and CPU seconds")
        costs = [measure(folder, source, stage, trees) for stage in OURS]
    total = {name: sum((stage[name] for stage in costs), Cost()) for name in costs[0]}
    report("in all", total)
    ours, hand = total["Evergreen"], total["SQL by hand"]
    shares = ours.cpu / hand.cpu / GOAL_RATIO, ours.seconds / GOAL_SECONDS, ours.gigabytes / GOAL_GB
    print("of the goals: {:.2f} of the ratio, {:.2f} of the seconds, {:.2f} of the memory".format(*shares))


if __name__ == "__main__":
    main()
