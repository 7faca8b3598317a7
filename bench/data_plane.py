"""One million simulated records from files to a published snapshot: seconds and peak memory of each stage.

Each stage runs in a process of its own, beside the same work as hand-written DuckDB SQL in the same run, on the same
files. The goals: 180 s in all and 4 GB at most. `--records N` for another size.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

AS_OF, DAYS = "2024-07-01", 182
GOAL_SECONDS, GOAL_GB = 180, 4

OURS = {
    "ingestion": """
from assets.ingestion.landing import ingest
ingest([source], home.lake, settings.ingestion, as_of)
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
create table fct as select "Complaint ID" as complaint_id, known_at, label_known_at, Company as company, State as state,
    Product as queue, "Consumer complaint narrative" as narrative from typed
    where known_at is not null and "Complaint ID" is not null
    qualify row_number() over (partition by "Complaint ID" order by line desc) = 1;
copy (select * from fct order by complaint_id) to '{folder}/fct.parquet' (format parquet, compression zstd);
{statistics}""",
    "validation": """
select count(*), count(distinct complaint_id), count(*) filter (known_at is null), min(known_at), max(known_at),
    count(*) filter (label_known_at < known_at), count(distinct queue),
    max(length(narrative)) from '{folder}/fct.parquet';
""",
    "features": """
create table rows as select * from '{folder}/fct.parquet'
    where narrative is not null and known_at <= timestamp '{as_of}' and label_known_at <= timestamp '{as_of}'
    order by known_at desc limit 200000;
copy (select rows.*, c.n7, c.n30, c.n90, s.n7 as s7, s.n30 as s30, s.n90 as s90 from rows
    asof left join '{folder}/company.parquet' c on rows.company = c.company and rows.known_at >= c.event_timestamp
    asof left join '{folder}/state.parquet' s on rows.state = s.state and rows.known_at >= s.event_timestamp
    order by rows.known_at, rows.complaint_id) to '{folder}/train.parquet' (format parquet, compression zstd);
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
from assets.lake import Home
from assets.settings import load_settings
home, source, as_of, settings = Home(Path({home!r})), {source!r}, {as_of!r}, load_settings("full")
"""

PEER = """
import duckdb
duckdb.connect({database!r}).execute({sql!r})
"""


@dataclass(frozen=True)
class Cost:
    seconds: float
    gigabytes: float


def statistics(entity: str, folder: str) -> str:
    """Rolling counts over 7, 30 and 90 days, by window functions."""
    counts = ", ".join(COUNT.format(entity=entity, before=days - 1, days=days) for days in (7, 30, 90))
    return STATISTICS.format(entity=entity, counts=counts, folder=folder)


def cost(code: str) -> Cost:
    """Seconds and peak resident gigabytes of a process, the largest of its children included."""
    report = "import resource as r; print(max(r.getrusage(w).ru_maxrss for w in (r.RUSAGE_SELF, r.RUSAGE_CHILDREN)))"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], stdout=subprocess.PIPE, text=True, check=True)
    return Cost(time.perf_counter() - started, int(done.stdout.splitlines()[-1]) / 1024**2)


def measure(folder: Path, stage: str) -> tuple[Cost, Cost]:
    names = {"home": f"{folder}/home", "source": f"{folder}/source", "as_of": AS_OF, "folder": f"{folder}/sql"}
    names["statistics"] = "".join(statistics(entity, names["folder"]) for entity in ("company", "state"))
    ours = cost(PRELUDE.format(**names) + OURS[stage])
    peer = cost(PEER.format(database=f"{folder}/sql/peer.duckdb", sql=SQL[stage].format(**names)))
    print(f"{stage:<12}{ours.seconds:>8.1f} s {ours.gigabytes:>6.2f} GB    {peer.seconds:>8.1f} s "
          f"{peer.gigabytes:>6.2f} GB  {ours.seconds / peer.seconds:>6.1f}")  # fmt: skip
    return ours, peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    rate = str(parser.parse_args().records // DAYS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sql").mkdir()
        os.environ["EVERGREEN_HOME"] = f"{folder}/home"
        days = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", rate, "--seed", "7"]
        evergreen = Path(sys.executable).with_name("evergreen")
        subprocess.run([evergreen, "simulate", "--output", folder / "source", *days], check=True)
        print(f"{'':<12}{'Evergreen':>20}    {'DuckDB SQL by hand':>20}   ratio")
        costs = [measure(folder, stage) for stage in OURS]
    seconds, memory = sum(ours.seconds for ours, _ in costs), max(ours.gigabytes for ours, _ in costs)
    print(f"{'in all':<12}{seconds:>8.1f} s {memory:>6.2f} GB    {sum(peer.seconds for _, peer in costs):>8.1f} s")
    print(f"of the goals {seconds / GOAL_SECONDS:>8.2f}   {memory / GOAL_GB:>6.2f}")


if __name__ == "__main__":
    main()
