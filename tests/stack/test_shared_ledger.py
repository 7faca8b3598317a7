"""The ledger of a home that machines share: what holds of the file holds in PostgreSQL."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from assets.database import DatabaseError
from assets.exceptions import RegistryError
from assets.objects import Objects, Stored
from assets.registry.anchors import Head, ObjectAnchor
from assets.registry.shared_ledger import SharedLedger
from tests.stack.conftest import Bucket
from tests.stack.servers import OwnPostgres

DAY = "2024-06-01"


def ledger_in(url: str) -> SharedLedger:
    return SharedLedger(Path("ledger.db"), None, url)


@pytest.fixture
def ledger(database: str) -> SharedLedger:
    return ledger_in(database)


def append_many(url: str, worker: int) -> None:
    ledger = ledger_in(url)
    for number in range(20):
        ledger.append("verdict", f"shared-{number}", DAY, {"by": worker})
        ledger.append("verdict", f"own-{worker}-{number}", DAY, {"by": worker})


def test_a_ledger_before_its_first_entry_is_empty_and_reading_creates_nothing(ledger: SharedLedger) -> None:
    assert ledger.entries() == []
    assert ledger.problem() is None
    with psycopg.connect(ledger.url) as connection:
        assert connection.execute("select to_regclass('evergreen.entries')").fetchone() == (None,)


def test_entries_come_back_oldest_first_and_the_first_of_a_kind_and_key_stands(ledger: SharedLedger) -> None:
    first = ledger.append("verdict", "b", DAY, {"numbers": [1, 2.5, None]})
    second = ledger.append("alias", "a", "2020-01-01", {})
    assert ledger.append("verdict", "b", "2024-06-02", {}) == first
    assert ledger.entries() == [first, second]
    assert ledger.entries("alias") == [second]
    assert ledger.champion_at("2020-01-01") == second
    assert ledger.problem() is None


def test_the_head_is_the_last_entry_and_waits_for_nobody(ledger: SharedLedger) -> None:
    assert ledger.head() == (0, "")
    for key in "ab":
        entry = ledger.append("verdict", key, DAY, {})
        assert ledger.head() == (entry.seq, entry.hash)
    with psycopg.connect(ledger.url) as appending:
        appending.execute("select pg_advisory_lock(hashtext('evergreen.entries'))")
        assert ledger.head() == (entry.seq, entry.hash)


def test_the_head_is_one_statement_on_one_connection(ledger: SharedLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.append("verdict", "k", DAY, {})
    asked: list[object] = []
    execute = psycopg.Connection.execute
    monkeypatch.setattr(psycopg.Connection, "execute", lambda *given: asked.append(given) or execute(*given))
    ledger.head()
    assert len(asked) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "update evergreen.entries set body = '{}'",
        "delete from evergreen.entries",
        "truncate evergreen.entries",
        "insert into evergreen.entries values (1, 'v', 'k', '', '', '') on conflict (seq) do update set body = ''",
    ],
)
def test_the_ledger_is_append_only(ledger: SharedLedger, statement: str) -> None:
    before = [ledger.append("verdict", "k", DAY, {"decision": "reject"})]
    with psycopg.connect(ledger.url) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(statement)
    assert ledger.entries() == before


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("update evergreen.entries set body = '{}' where seq = 2", "entry 2 is not what was appended"),
        ("delete from evergreen.entries where seq = 1", "entry 1 was removed"),
        ("delete from evergreen.entries where seq = 3", "entries after 2 were removed"),
    ],
)
def test_an_owner_who_gets_around_the_triggers_is_found_out(ledger: SharedLedger, statement: str, problem: str) -> None:
    for number in range(3):
        ledger.append("verdict", str(number), DAY, {"number": number})
    with psycopg.connect(ledger.url) as connection:
        connection.execute("alter table evergreen.entries disable trigger all")
        connection.execute(statement)
    assert problem in str(ledger.problem())


def test_an_anchor_elsewhere_remembers_what_the_database_forgot(database: str, tmp_path: Path) -> None:
    ledger = SharedLedger(Path("ledger.db"), tmp_path, database)
    ledger.append("verdict", "k", DAY, {})
    with psycopg.connect(database) as connection:
        connection.execute("drop schema evergreen cascade")
    assert "the ledger is gone" in str(ledger.problem())


@pytest.fixture
def anchored(database: str, seaweed: Bucket) -> SharedLedger:
    """With an anchor on S3."""
    return SharedLedger(Path("ledger.db"), None, database, f"{seaweed.url}/team")


def anchor_of(ledger: SharedLedger) -> ObjectAnchor:
    (anchor,) = ledger.anchors
    assert isinstance(anchor, ObjectAnchor)
    return anchor


def remove_last(url: str) -> None:
    """As the owner of the database can, who also mends the count."""
    with psycopg.connect(url) as connection:
        connection.execute("alter table evergreen.entries disable trigger all")
        connection.execute("delete from evergreen.entries where seq = (select max(seq) from evergreen.entries)")
        connection.execute("update evergreen.appended set seq = seq - 1")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (remove_last, "entries after 2 were removed"),
        (lambda url: psycopg.connect(url, autocommit=True).execute("drop schema evergreen cascade"), "ledger is gone"),
    ],
)
def test_the_anchor_on_s3_knows_what_the_owner_of_the_database_removed(
    anchored: SharedLedger, change: Callable[[str], object], problem: str
) -> None:
    for key in "123":
        entry = anchored.append("verdict", key, DAY, {})
    assert anchored.problem() is None
    change(anchored.url)
    assert ledger_in(anchored.url).problem() is None, "without the anchor nobody would know"
    assert f"{problem}: s3://" in str(anchored.problem())
    with pytest.raises(RegistryError, match=problem):
        anchored.append("verdict", "4", DAY, {})
    assert anchor_of(anchored).read() == (entry.seq, entry.hash), "it does not follow"


def test_entries_that_the_anchor_on_s3_does_not_know_are_found(anchored: SharedLedger) -> None:
    anchored.append("verdict", "1", DAY, {})
    for key in "23":
        ledger_in(anchored.url).append("verdict", key, DAY, {})
    assert str(anchored.problem()).startswith("entries 2 to 3 were not appended by Evergreen: s3://")


def test_a_kill_between_an_entry_and_its_anchor_on_s3_is_no_edit(
    anchored: SharedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchored.append("failure", "1", DAY, {})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("assets.objects.Objects.replace", die)
        with pytest.raises(KeyboardInterrupt):
            anchored.append("failure", "2", DAY, {})
    behind = anchor_of(anchored).read()
    assert (behind and behind.seq, len(anchored.entries())) == (1, 2)
    assert anchored.problem() is None
    last = anchored.append("failure", "3", DAY, {})
    assert anchor_of(anchored).read() == (last.seq, last.hash)
    assert anchored.problem() is None


def test_the_anchor_on_s3_is_never_put_back(anchored: SharedLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another appender moves it just before the first one, whose lock the database has lost, writes."""
    anchor, replace = anchor_of(anchored), Objects.replace
    heads = [Head(seq, f"hash of {seq}") for seq in (1, 2, 3)]
    anchor.write(heads[0], "ledger")

    def overtaken(objects: Objects, name: str, content: bytes, upon: Stored | None) -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(Objects, "replace", replace)
            anchor.write(heads[2], "ledger")
        return replace(objects, name, content, upon)

    with monkeypatch.context() as patched:
        patched.setattr(Objects, "replace", overtaken)
        anchor.write(heads[1], "ledger")
    assert anchor.read() == heads[2]
    anchor.write(heads[1], "ledger")
    assert anchor.read() == heads[2]


def test_a_damaged_anchor_on_s3_says_so(anchored: SharedLedger) -> None:
    anchored.append("failure", "1", DAY, {})
    anchor = anchor_of(anchored)
    anchor.objects.replace(anchor.name, b"{", anchor.objects.read(anchor.name))
    with pytest.raises(RegistryError, match=r"s3://.*/team/ledger\.anchor is damaged"):
        anchored.append("failure", "2", DAY, {})


def append_anchored(ledger: SharedLedger, worker: int) -> None:
    for number in range(15):
        ledger.append("verdict", f"own-{worker}-{number}", DAY, {"by": worker})


def test_two_appenders_leave_the_anchor_on_s3_at_the_last_entry(anchored: SharedLedger) -> None:
    start = multiprocessing.get_context("spawn")
    workers = [start.Process(target=append_anchored, args=(anchored, worker)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    entries = anchored.entries()
    assert len(entries) == 30
    assert anchor_of(anchored).read() == (entries[-1].seq, entries[-1].hash)
    assert anchored.problem() is None


def test_processes_append_at_once_without_loss(ledger: SharedLedger) -> None:
    start = multiprocessing.get_context("spawn")
    workers = [start.Process(target=append_many, args=(ledger.url, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    entries = ledger.entries()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [entry.seq for entry in entries] == list(range(1, 81))
    assert ledger.problem() is None


APPENDING = """
import sys
from tests.stack.test_shared_ledger import DAY, ledger_in
for number in range(200):
    ledger_in(sys.argv[1]).append("verdict", str(number), DAY, {})
    print(number, flush=True)
"""


def test_a_restart_of_the_database_neither_loses_nor_doubles_an_entry(own_postgres: OwnPostgres) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", APPENDING, own_postgres.url]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for wanted in ("50\n", "120\n"):
            while process.stdout.readline() != wanted:
                assert process.poll() is None
            own_postgres.crash()
            own_postgres.start()
        process.communicate()
    assert process.returncode == 0
    ledger = ledger_in(own_postgres.url)
    assert [entry.key for entry in ledger.entries()] == [str(number) for number in range(200)]
    assert ledger.problem() is None


def test_the_head_outlasts_a_restart_of_the_database(own_postgres: OwnPostgres) -> None:
    ledger = ledger_in(own_postgres.url)
    entry = ledger.append("verdict", "k", DAY, {})
    own_postgres.crash()
    with ThreadPoolExecutor(1) as pool:
        head = pool.submit(ledger.head)
        own_postgres.start()
        assert head.result() == (entry.seq, entry.hash)


def test_a_database_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.registry.shared_ledger.persistently", lambda work: work())
    with pytest.raises(
        DatabaseError, match=r"database postgresql://127.0.0.1:1/ours: .*[Cc]onnection refused"
    ) as error:
        ledger_in("postgresql://127.0.0.1:1/ours").entries()
    assert "\n" not in str(error.value)
