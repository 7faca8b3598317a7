"""What the other benchmarks do not measure of docs/scale.md, each beside a named peer or limit in the same run.

python bench/scale.py [PART ...] [--keys N] [--megabytes N] [--segments N]
    ledger   appends to the ledger on PostgreSQL, by its length, beside plain INSERTs that are committed one by one
    online   a fill of the online features in SQLite, Redis and PostgreSQL, beside pipelined HSETs of the same values
    s3       publishing and fetching a version on S3 (SeaweedFS), beside boto3's upload_file and download_file
    served   a look at what was asked and answered in many segments, beside the same in one

CPU seconds are those of this side, with children and without imports; a server's own are not among them. PostgreSQL and
Redis are those on their standard ports of 127.0.0.1, where names of the benchmark's own are removed at the end.
"""

import argparse
import json
import os
import resource
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from assets.features.generations import server_of
from assets.features.redis_client import redis_of
from assets.home import Home
from assets.ingestion.served import _EVENTS, _asked_before, served_sources
from assets.registry.shared_ledger import SharedLedger
from assets.s3 import s3_client
from assets.settings import EMBEDDED
from pipelines.stack import DATABASE, REDIS, Seaweed, Secrets

AS_OF, APPENDS, FILES = "2024-07-01", 50, 16


class Cost(NamedTuple):
    """Wall-clock and CPU seconds of some work, the peak memory of its process in bytes, and what it returned."""

    seconds: float
    cpu: float
    peak: int
    result: Any = None


def spent(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> Cost:
    """What the work costs that `prepare` returns, in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_spent, prepare, *arguments).result()


def _spent(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> Cost:
    work = prepare(*arguments)
    started, before = time.perf_counter(), time.process_time()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(time.perf_counter() - started, time.process_time() - before, peak, result)


def show(what: str, cost: Cost, peer: Cost, count: float, unit: str) -> None:
    """One line of what `count` units cost, and their ratio to the peer's, which did as many."""
    each = f"{cost.seconds / count:>9.4f} s {cost.cpu / count:>8.4f} CPU s a {unit}"
    ratio = f"{cost.seconds / peer.seconds:>8.2f} {cost.cpu / peer.cpu:>8.2f} times the peer"
    print(f"{what:<40}{each}{ratio}{cost.peak / 1e6:>8,.0f} MB", flush=True)


@contextmanager
def database() -> Iterator[str]:
    """An empty database of the machine's PostgreSQL, dropped afterwards."""
    name = f"evergreen_bench_{secrets.token_hex(6)}"
    with closing(psycopg.connect(f"{DATABASE}/postgres", autocommit=True)) as server:
        server.execute(f"create database {name}")
        try:
            yield f"{DATABASE}/{name}"
        finally:
            server.execute(f"drop database {name} with (force)")


BODY = {"decision": "skip", "reason": "nothing calls for it; " * 15, "numbers": {f"n{n}": n / 7 for n in range(40)}}
LENGTHEN = """
    insert into evergreen.entries select n, 'filler', n::text, '2024-01-01', repeat('x', 1500), md5(n::text)
    from generate_series((select max(seq) + 1 from evergreen.entries), %s) n
"""


def append(url: str) -> Callable[[], object]:
    ledger, mark = SharedLedger(Path(), None, url), secrets.token_hex(4)
    ledger.append("first", mark, AS_OF, BODY)
    return lambda: [ledger.append("bench", f"{mark}{n}", AS_OF, BODY).seq for n in range(APPENDS)]


def insert(url: str) -> Callable[[], object]:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("create table plain (seq bigserial primary key, body text)")
    statement = "insert into plain (body) values (%s)"
    return lambda: [connection.execute(statement, (json.dumps(BODY),)).rowcount for _ in range(APPENDS)]


def ledger(_: argparse.Namespace) -> None:
    with database() as url:
        peer = spent(insert, url)
        show("plain INSERT", peer, peer, APPENDS, "entry")
        append(url)
        for length in (100, 1_000, 10_000, 100_000):
            with psycopg.connect(url) as connection:
                connection.execute(LENGTHEN, (length,))
            show(f"append to {length:,} entries", spent(append, url), peer, APPENDS, "entry")


def marts(home: Home, keys: int) -> None:
    """Publish marts with the statistics of one day: `keys` of the domain's first entity, 60 of each other one."""
    with home.lake.staging("marts") as staged, duckdb.connect() as connection:
        for place, entity in enumerate(home.domain.entities):
            (staged / f"{entity}_daily").mkdir()
            counts = [f"{entity}_{name}" for name in ("records_7d", "records_30d", "records_90d", "labels")]
            shares = [f"{entity}_{name}" for name in ("text_share", *(f"share_{name}" for name in home.domain.labels))]
            columns = [f"(random() * 999)::bigint as {name}" for name in counts]
            columns += [f"random() as {name}" for name in shares]
            sql = f"select 'A KEY OF SOME LENGTH ' || n as {entity}, timestamp '2024-06-30' as event_timestamp, "
            sql += f"{', '.join(columns)} from range({60 if place else keys}) t(n)"
            connection.execute(f"copy ({sql}) to '{staged}/{entity}_daily/all.parquet' (format parquet)")
        home.lake.publish("marts", "0123456789abcdef", staged)


def online_home(folder: Path, url: str | None) -> Home:
    return Home(folder, EMBEDDED.model_copy(update={"online": url}))


def fill(folder: Path, url: str | None) -> Callable[[], object]:
    from assets.features.serving import materialize
    from assets.features.store import apply_definitions

    home = online_home(folder, url)
    apply_definitions(home)
    return lambda: materialize(home, AS_OF).keys


def hset(folder: Path, url: str, keys: int) -> Callable[[], object]:
    client, server = redis_of(url), server_of(online_home(folder, url))
    names = list(server._keys(server.current()))
    fields = client.hgetall(names[0])

    def work() -> float:
        for first in range(0, keys, 1000):
            with client.pipeline(transaction=False) as pipe:
                for name in names[first : first + 1000]:
                    pipe.hset(b"evergreen_bench:" + name, mapping=fields)
                pipe.execute()
        return sum(client.memory_usage(name) for name in names[:500]) / 500

    return work


def remove(folder: Path, url: str) -> None:
    """Remove the fill, and what was written beside it."""
    client, server = redis_of(url), server_of(online_home(folder, url))
    for pattern in (f"evergreen:{server.home}:*", f"*evergreen_{server.home}_*"):
        for key in client.scan_iter(match=pattern, count=1000):
            client.unlink(key)


def online(options: argparse.Namespace) -> None:
    url, unit = f"{REDIS}/0", (options.keys / 100_000, "100,000 keys")
    with tempfile.TemporaryDirectory() as name, database() as postgres:
        folder = Path(name)
        marts(online_home(folder, None), options.keys)
        try:
            ours, peer = spent(fill, folder, url), spent(hset, folder, url, options.keys)
        finally:
            remove(folder, url)
        show("pipelined HSET", peer, peer, *unit)
        show("Redis", ours, peer, *unit)
        show("PostgreSQL", spent(fill, folder, postgres), peer, *unit)
        show("SQLite", spent(fill, folder, None), peer, *unit)
        with psycopg.connect(postgres) as connection:
            ((size,),) = connection.execute("select pg_database_size(current_database())")
        keys, file = options.keys, (folder / "features" / "online.db").stat().st_size
        print(f"bytes a key: Redis {peer.result:,.0f}, PostgreSQL {size / keys:,.0f}, SQLite {file / keys:,.0f}")


def on_s3(folder: Path) -> Home:
    return Home(folder, EMBEDDED.model_copy(update={"objects": "s3://bench/home"}))


def publish(folder: Path, source: Path) -> Callable[[], object]:
    lake = on_s3(folder).lake
    s3_client()  # boto3 is imported before the clock starts

    def work() -> None:
        with lake.staging("table") as staged:
            for path in source.iterdir():
                os.link(path, staged / path.name)
            lake.publish("table", source.name, staged)

    return work


def fetch(folder: Path) -> Callable[[], object]:
    lake = on_s3(folder).lake
    assert lake.version("table")
    return lambda: str(lake.current("table"))


def upload(_: Path, source: Path) -> Callable[[], object]:
    client = s3_client()
    return at_once(source, lambda path: client.upload_file(str(path), "bench", f"peer/{path.name}"))


def download(folder: Path, source: Path) -> Callable[[], object]:
    client = s3_client()
    return at_once(source, lambda path: client.download_file("bench", f"peer/{path.name}", str(folder / path.name)))


def at_once(source: Path, act: Callable[[Path], object]) -> Callable[[], object]:
    pool = ThreadPoolExecutor(8)
    return lambda: len(list(pool.map(act, source.iterdir())))


def s3(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Seaweed(folder / "seaweed", keys=Secrets.in_folder(folder / "secrets"))
        first, second, unit = folder / "first", folder / "second", (options.megabytes / 1000, "GB")
        first.mkdir()
        for number in range(FILES):
            (first / f"{number}").write_bytes(secrets.token_bytes(options.megabytes * 1_000_000 // FILES))
        shutil.copytree(first, second)
        (second / "0").write_bytes((first / "1").read_bytes()[::-1])
        os.environ |= server.variables
        with server.running():
            server.client().create_bucket(Bucket="bench")
            peer = spent(upload, folder, first)
            show("publish, beside upload_file", spent(publish, folder / "writer", first), peer, *unit)
            down = spent(download, folder, first)
            show("fetch, beside download_file", spent(fetch, folder / "reader"), down, *unit)
            show("publish, one file of 16 changed", spent(publish, folder / "writer", second), peer, *unit)
            show("fetch, one file of 16 changed", spent(fetch, folder / "reader"), down, *unit)
            stored = server.client().list_objects_v2(Bucket="bench", Prefix="home/lake/table/")["Contents"]
        times = sum(each["Size"] for each in stored) / options.megabytes / 1e6
        print(f"both versions take {times:.2f} times the space of the first", flush=True)


def segments(folder: Path, count: int, each: int) -> None:
    """Publish segments of what was served, as the server would have, with answers to `each` records."""
    lake, empty = Home(folder).lake, dict.fromkeys(_EVENTS.names)
    record = json.dumps({"record_id": "9900000001", "text": "words " * 60, "name": "A KEY OF SOME LENGTH"})
    for number in range(count):
        about = {"kind": "answer", "at": f"2024-07-01T{number:09}", "record": record, "confidence": 0.9}
        rows = [empty | about | {"record_id": f"{number}-{n}"} for n in range(each)]
        with lake.staging(table := f"served/2024-07-01T{number:09}") as staged:
            pq.write_table(pa.Table.from_pylist(rows, _EVENTS), staged / "events.parquet", compression="zstd")
            lake.publish(table, f"{number:016}", staged)


def look(folder: Path) -> Callable[[], object]:
    """What a run and a segment with feedback ask of all earlier segments."""
    home = Home(folder)
    return lambda: (served_sources(home), len(_asked_before(home.lake, ["0-0", "0-1", "none"])))


def served(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), options.segments * 100
        segments(folder / "one", 1, rows)
        peer = spent(look, folder / "one")
        segments(folder / "many", options.segments, 100)
        show(f"{rows:,} answers in one segment", peer, peer, 1, "look")
        show(f"{rows:,} answers in {options.segments:,} segments", spent(look, folder / "many"), peer, 1, "look")


PARTS = {"ledger": ledger, "online": online, "s3": s3, "served": served}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=320)
    parser.add_argument("--segments", type=int, default=1_000)
    options = parser.parse_args()
    for part in options.parts:
        print(f"\n{part}", flush=True)
        PARTS[part](options)


if __name__ == "__main__":
    main()
