"""Removal in a home of several machines: nobody at work is disturbed, and nothing forgotten is read again."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.exceptions import EvergreenError
from assets.home import Home
from assets.ingestion.forgotten import Forgotten
from assets.ingestion.served import TABLE as SERVED
from assets.registry.shared_ledger import ledger_of
from assets.retention.forget import ENTRY, forget
from assets.retention.marks import Marks
from assets.retention.prune import alone, prune
from assets.settings import EMBEDDED, RetentionSettings, load_settings
from tests.retention.conftest import spend_night
from tests.stack.conftest import Bucket

ROOT = Path(__file__).parents[2]
READER = """
import sys
from pathlib import Path
from assets.home import Home
from assets.settings import EMBEDDED
home = Home(Path(sys.argv[1]), EMBEDDED.model_copy(update={"objects": sys.argv[2], "database": sys.argv[3]}))
with home.in_use(sys.argv[4]):
    marts = home.lake.current("marts")
    print(marts.name, flush=True)
    sys.stdin.readline()
    print(len((marts / "fct_records.json").read_text()), flush=True)
"""


@pytest.fixture
def machines(seaweed: Bucket, database: str, tmp_path: Path) -> tuple[Home, Home]:
    where = EMBEDDED.model_copy(update={"objects": f"{seaweed.url}/team", "database": database})
    return Home(tmp_path / "one", where), Home(tmp_path / "two", where)


@pytest.fixture
def policy() -> RetentionSettings:
    few = {"publications": 1, "days": 2, "page_days": 1}
    return load_settings("quick").retention.model_copy(update=few)


@contextmanager
def reader(home: Home, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process of another machine that has come upon the current marts."""
    about = [str(home.root), str(home.objects), str(home.environment.database), name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", READER, *about], cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def swept(home: Home, policy: RetentionSettings) -> set[str]:
    return {Path(item.path).name for item in prune(home, policy).removed if item.path.startswith("lake/marts/")}


def test_a_reader_of_another_machine_keeps_what_it_came_upon_and_no_more(
    machines: tuple[Home, Home], policy: RetentionSettings
) -> None:
    one, two = machines
    for night in range(2):
        spend_night(one, night)
    assert swept(one, policy) == set()
    with reader(two, "evergreen-status-a1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "m001\n"
        spend_night(one, 2)
        assert swept(one, policy) == {"m000"}, "marked before it came"
        spend_night(one, 3)
        assert swept(one, policy) == set(), "m001 was marked while it was at work"
        assert Marks.read(one.lake).readers == {"evergreen-status-a1": 1}
        assert process.communicate("\n")[0] == "5000\n"
    spend_night(one, 4)
    assert swept(one, policy) == {"m001", "m002"}


def test_nothing_is_swept_while_a_run_may_need_it_again_and_its_own_run_is_none(
    machines: tuple[Home, Home], policy: RetentionSettings
) -> None:
    one, two = machines
    for night in range(2):
        spend_night(one, night)
    swept(one, policy)
    spend_night(one, 2)
    with two.in_use("a-run"):
        done = prune(one, policy)
        assert (done.removed, done.at_work) == ((), ("a-run",))
        assert prune(one, policy, own="a-run").at_work == ()
    assert [version for _, version in two.lake.versions("marts")] == ["m001", "m002"]


def test_nobody_comes_in_while_things_are_put_out_of_sight(
    machines: tuple[Home, Home], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = machines
    came = Event()

    def come() -> None:
        with two.in_use("late"):
            came.set()

    with ThreadPoolExecutor() as pool:
        with one.closed() as others:
            assert others == ()
            coming = pool.submit(come)
            while "waiting for another run to finish with removing what nothing needs" not in caplog.text:
                assert not coming.done()
                Event().wait(0.05)
            assert not came.is_set()
        coming.result()
    assert came.is_set()


def test_two_machines_remove_one_after_the_other(
    machines: tuple[Home, Home], policy: RetentionSettings, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = machines
    spend_night(one, 0)
    with ThreadPoolExecutor() as pool:
        with alone(one):
            pruning = pool.submit(prune, two, policy)
            while "waiting for another run to finish with removing" not in caplog.text:
                assert not pruning.done()
                Event().wait(0.05)
        assert pruning.result().at_work == ()


def serve(home: Home, *ids: str) -> None:
    """What requests have said, as a table of the lake."""
    table = f"{SERVED}/2024-03-01T10-00-00-000000-aa"
    with home.lake.staging(table) as staged:
        pq.write_table(
            pa.table({"record_id": list(ids), "record": [f"{i} says" for i in ids]}), staged / "events.parquet"
        )
        home.lake.publish(table, "v", staged)


def test_who_is_forgotten_on_one_machine_is_on_all(machines: tuple[Home, Home], seaweed: Bucket) -> None:
    one, two = machines
    serve(one, "ada-1", "ben-2")
    copy = two.lake.path(f"{SERVED}/2024-03-01T10-00-00-000000-aa", "v")
    with two.in_use("a-run"), pytest.raises(EvergreenError, match="others are at work: a-run; run again when they are"):
        forget(one, ["ada-1"])
    done = forget(one, ["ada-1"])
    assert sum(found.rows for found in done.found) == 1
    assert b"ada-1" in (copy / "events.parquet").read_bytes(), "this machine has not looked yet"
    with two.in_use("a-run"):
        assert not copy.exists()
        (now,) = (two.lake.path(table, "v") for table, _ in two.lake.versions(SERVED))
        found = duckdb.sql(f"select record_id from read_parquet('{now}/events.parquet')").fetchall()
    assert found == [("ben-2",)]
    for key in seaweed.keys("team/"):
        content = seaweed.client().get_object(Bucket=seaweed.name, Key=key)["Body"].read()
        assert b"ada-1" not in content, key
    (entry,) = ledger_of(two).entries(ENTRY)
    assert (entry.seq, entry.body["records"], "ada" in str(entry.body)) == (done.entry, 1, False)
    assert Forgotten.read(two).of("ada-1", "ben-2") == Forgotten.read(one).of("ada-1") != set()
    assert not (one.root / "forget.key").exists()
    assert forget(two, ["ada-1"]).found == ()
