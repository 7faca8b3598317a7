import fcntl
import multiprocessing
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assets.exceptions import RegistryError
from assets.registry.ledger import Ledger

DAY = "2024-06-01"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "new" / "ledger.db")


def append_many(path: Path, worker: int) -> None:
    ledger = Ledger(path)
    for number in range(20):
        ledger.append("verdict", f"shared-{number}", DAY, {"by": worker})
        ledger.append("verdict", f"own-{worker}-{number}", DAY, {"by": worker})


def test_a_ledger_without_a_file_is_empty_and_reading_makes_none(ledger: Ledger) -> None:
    assert ledger.entries() == []
    assert not ledger.path.exists()


def test_entries_come_back_oldest_first(ledger: Ledger) -> None:
    appended = [
        ledger.append("verdict", "b", DAY, {"numbers": [1, 2.5, None]}),
        ledger.append("alias", "a", "2020-01-01", {}),
    ]
    assert ledger.entries() == appended
    assert [entry.seq for entry in appended] == [1, 2]
    assert appended[0].body == {"numbers": [1, 2.5, None]}
    assert [entry.key for entry in ledger.entries("alias")] == ["a"]


def test_the_head_is_the_last_entry(ledger: Ledger) -> None:
    assert ledger.head() == (0, "")
    for key in "ab":
        entry = ledger.append("verdict", key, DAY, {})
        assert ledger.head() == (entry.seq, entry.hash)


def test_the_first_entry_of_a_kind_and_key_stands(ledger: Ledger) -> None:
    first = ledger.append("verdict", "k", DAY, {"decision": "reject"})
    assert ledger.append("verdict", "k", "2024-06-02", {"decision": "promote"}) == first
    assert ledger.append("alias", "k", DAY, {}).seq == 2
    assert len(ledger.entries()) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "update entries set body = '{}'",
        "delete from entries",
        "insert or replace into entries (kind, key, as_of, body, hash) values ('verdict', 'k', '', '{}', '')",
        "insert or replace into entries (seq, kind, key, as_of, body, hash) values (1, 'x', 'y', '', '{}', '')",
    ],
)
def test_the_ledger_is_append_only(ledger: Ledger, statement: str) -> None:
    before = [ledger.append("verdict", "k", DAY, {"decision": "reject"})]
    with sqlite3.connect(ledger.path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    assert ledger.entries() == before


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ('update entries set body = \'{"decision": "promote"}\' where seq = 2', "entry 2 is not what was appended"),
        ("update entries set as_of = '2024-01-01' where seq = 1", "entry 1 is not what was appended"),
        ("update entries set hash = 'x' where seq = 3", "entry 3 is not what was appended"),
        ("delete from entries where seq = 1", "entry 1 was removed"),
        ("delete from entries where seq = 2", "entry 2 was removed"),
        ("delete from entries where seq = 4", "entries after 3 were removed"),
        ("delete from entries", "entries after 0 were removed"),
        (
            "update entries set seq = -2 where seq = 2; update entries set seq = 2 where seq = 3;"
            "update entries set seq = 3 where seq = -2",
            "entry 2 is not what was appended",
        ),
    ],
)
def test_an_edited_removed_or_reordered_entry_is_found(ledger: Ledger, statement: str, problem: str) -> None:
    for key in "abcd":
        ledger.append("verdict", key, DAY, {"decision": "reject"})
    assert ledger.problem() is None
    with sqlite3.connect(ledger.path) as connection:
        connection.executescript(
            "drop trigger entries_are_not_updated; drop trigger entries_are_not_deleted;" + statement
        )
    assert str(ledger.problem()).startswith(problem)


def test_a_number_that_is_not_json_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ledger.append("verdict", "k", DAY, {"accuracy": float("nan")})


def test_processes_append_at_once_without_loss(ledger: Ledger) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=append_many, args=(ledger.path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    entries = ledger.entries()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [entry.seq for entry in entries] == list(range(1, 81))
    assert len({entry.key for entry in entries}) == 80
    assert ledger.problem() is None


def test_a_ledger_that_another_process_holds_is_one_line(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.append("verdict", "k", DAY, {})
    monkeypatch.setattr("assets.registry.ledger._BUSY_SECONDS", 0.0)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        for act in (lambda: ledger.append("verdict", "l", DAY, {}), ledger.entries, ledger.problem):
            with pytest.raises(RegistryError, match=r"^ledger .*ledger\.db: database is locked$"):
                act()
        holder.execute("rollback")
    assert ledger.append("verdict", "l", DAY, {}).seq == 2
    assert ledger.problem() is None


def test_an_append_that_was_cut_short_leaves_an_empty_ledger(ledger: Ledger) -> None:
    ledger.path.parent.mkdir()
    with pytest.raises(RegistryError), ledger._transaction("immediate") as connection:
        connection.execute("select no_such_column from entries")
    assert ledger.path.exists()
    assert (ledger.entries(), ledger.problem()) == ([], None)


def test_a_file_that_is_not_a_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database" * 100)
    with pytest.raises(RegistryError, match=r"ledger .*ledger\.db: file is not a database"):
        Ledger(tmp_path / "ledger.db").entries()


@pytest.mark.parametrize("read", [Ledger.entries, Ledger.problem])
def test_none_reads_while_another_appends(
    ledger: Ledger, read: Callable[[Ledger], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would give up on whoever takes longer than a time; a lock of the kernel is waited for."""
    ledger.append("verdict", "k", DAY, {})
    connect, tried = sqlite3.connect, []

    def connected(*arguments: Any, **settings: Any) -> sqlite3.Connection:
        with ledger.path.with_suffix(".lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(True)
        return connect(*arguments, **settings)

    monkeypatch.setattr(sqlite3, "connect", connected)
    read(ledger)
    assert tried
