"""The time of a scrape of `evergreen metrics`, in a home of some nights: the first, one after a night, and all others.

python bench/metrics.py [--nights N] [--records N]

Compared with reading the nights' small files once, which is what a scrape without a memory would do. Each synthetic
night has a decision in the ledger, a performance report, a drift report of 68 columns and a Dagster run; the marts have
`--records` rows. The last line is the time for which an append to the ledger waits for scrapes that go on all the time.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import dagster as dg
import duckdb

from assets.home import Home
from assets.monitoring.comparison import Column
from assets.monitoring.performance import Performance, Scores, WindowQuality
from assets.monitoring.report import DriftReport
from assets.registry.shared_ledger import ledger_of
from assets.settings import load_settings
from pipelines.instance import open_instance
from pipelines.metrics import Metrics

FIRST, TURNS = date(2024, 1, 1), 30
COLUMNS = tuple(Column(f"column_{n}", "features", "psi", 0.01, 0.02, 0.02, drifted=False) for n in range(68))
SCORES = Scores(1400, 0.89, 0.88)


def publish(home: Home, table: str, file: str, content: dict[str, object]) -> None:
    with home.lake.staging(table) as staged:
        (staged / file).write_text(json.dumps(content))
        home.lake.publish(table, "0123456789abcdef", staged)


def data(home: Home, nights: int, records: int) -> None:
    """The newest publication of `records` records that landed in as many objects as there are nights."""
    with home.lake.staging("raw_records") as raw, home.lake.staging("marts") as marts, duckdb.connect() as connection:
        for name in ("record_counts", "fct_records"):
            (marts / name).mkdir()
        each, first = records // nights, FIRST.isoformat()
        objects = f"select n::text as object_id, (date '{first}' + n::int)::text as landed_on, null::text as error, "
        objects += f"null::text as withdrawn from range({nights}) t(n)"
        counts = (
            f"select n::text as object_id, {each} as landed, {each - 2} as valid, 1 as quarantined, 1 as duplicate "
        )
        rows = f"select timestamp '{first}' + to_seconds(n) as received_at from range({records}) t(n)"
        for sql, path in (
            (objects, raw / "objects.parquet"),
            (f"{counts} from range({nights}) t(n)", marts / "record_counts" / "all.parquet"),
            (rows, marts / "fct_records" / "all.parquet"),
        ):
            connection.execute(f"copy ({sql}) to '{path}' (format parquet)")
        home.lake.publish("raw_records", f"r{nights}", raw)
        home.lake.publish("marts", f"m{nights}", marts)


def night(home: Home, instance: dg.DagsterInstance, nth: int, policy: dict[str, object]) -> None:
    day = (FIRST + timedelta(nth)).isoformat()
    numbers = {"champion": "t1", "accuracy": 0.89, "mature_rows": 1400, "estimated_accuracy": 0.9, "spent": 1.0}
    numbers |= {"evaluated_accuracy": 0.9, "evaluated_rows": 500, "drifted": [nth % 20 == 0]}
    decision = {"decision": "skip", "reason": "nothing calls for it; " * 15, "numbers": numbers, "policy": policy}
    ledger_of(home).append("retraining", day, day, decision)
    windows = (WindowQuality(day, 1400, 1300, 0.9, 0.89),) * (1 + nth % 50)
    measured = Performance(day, "1", SCORES, SCORES, SCORES, 1400, 700, 0.9, 10, "right", {}, windows=windows)
    publish(home, f"performance/{day}", "performance.json", asdict(measured))
    drift = DriftReport(day, "1", False, 0.0, "calm", 1400, 1400, COLUMNS, share_threshold=0.3)
    publish(home, f"drift/{day}", "drift.json", asdict(drift))
    tags = {"dagster/partition": day}
    run = {"status": dg.DagsterRunStatus.SUCCESS, "tags": tags}
    instance.add_run(dg.DagsterRun(job_name="observe", run_id=str(uuid4()), **run))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def append_under_load(home: Home, metrics: Metrics) -> tuple[float, float]:
    """The median seconds of an append to the ledger, alone and while scrapes that read it go on all the time."""
    ledger, stop = ledger_of(home), Event()

    def scrape() -> None:
        while not stop.is_set():
            metrics.answer()

    def appends(name: str) -> float:
        return statistics.median(
            seconds(lambda n=n: ledger.append("attempt", f"{name}{n}", "2024-01-01", {"decision": 0, "attempt": n}))
            for n in range(TURNS)
        )

    alone, thread = appends("a"), Thread(target=scrape)
    thread.start()
    beside = appends("b")
    stop.set()
    thread.join()
    return alone, beside


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nights", type=int, default=40)
    parser.add_argument("--records", type=int, default=1_000_000)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVERGREEN_HOME"] = folder
        home, policy = Home(Path(folder)), load_settings("quick").retraining.model_dump()
        home.claim()
        data(home, wanted.nights, wanted.records)
        with open_instance(home) as instance, Metrics(home, instance) as metrics:
            for nth in range(wanted.nights):
                night(home, instance, nth, policy)
            files = sorted(home.lake.root.glob("*/*/*/*.json"))
            read = seconds(lambda: [json.loads(path.read_text()) for path in files])
            first = seconds(metrics.answer)
            again = statistics.median(seconds(metrics.answer) for _ in range(TURNS))
            night(home, instance, wanted.nights, policy)
            after = seconds(metrics.answer)
            alone, beside = append_under_load(home, metrics)
            size = len(metrics.answer().body)
    print(f"{wanted.nights} nights, {wanted.records:,} records, an answer of {size / 1e3:.0f} kB")
    print(f"first scrape {first * 1e3:.1f} ms, after a night {after * 1e3:.1f} ms, any other {again * 1e3:.1f} ms")
    print(f"reading {len(files)} small files once {read * 1e3:.1f} ms; ratio of any other scrape {again / read:.2f}")
    print(f"an append to the ledger {alone * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms beside scrapes without a pause")


if __name__ == "__main__":
    main()
