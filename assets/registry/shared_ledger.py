"""The ledger of a home: a file, or where machines share the home, in its PostgreSQL database."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from assets.database import connected, persistently
from assets.home import Home
from assets.objects import Objects
from assets.registry.anchors import Anchor, ObjectAnchor
from assets.registry.ledger import Entry, Ledger
from assets.settings import load_ledger_settings

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

__all__ = ["SharedLedger", "ledger_of"]

_SCHEMA = """
    create schema if not exists evergreen;
    set local search_path to evergreen;
    create table if not exists entries (
        seq bigint primary key,
        kind text not null,
        key text not null,
        as_of text not null,
        body text not null,
        hash text not null,
        unique (kind, key)
    );
    create table if not exists appended (only_one boolean primary key default true check (only_one), seq bigint);
    insert into appended (seq) values (0) on conflict do nothing;
    create or replace function refuse() returns trigger language plpgsql as $$
        begin raise exception 'the ledger is append-only'; end $$;
    create or replace function count_appended() returns trigger language plpgsql as $$
        begin update evergreen.appended set seq = new.seq; return null; end $$;
    create or replace trigger entries_are_not_changed before update or delete or truncate on entries
        execute function refuse();
    create or replace trigger entries_are_counted after insert on entries
        for each row execute function count_appended();
"""
_HEAD = "select seq, hash from evergreen.entries order by seq desc limit 1"


def ledger_of(home: Home) -> Ledger:
    """The ledger of a home, with the anchor of configs/ledger.yaml. Raises SettingsError."""
    anchor, database = load_ledger_settings().anchor, home.environment.database
    if database is None:
        return Ledger(home.ledger, anchor)
    return SharedLedger(home.ledger, anchor, database, home.objects)


@dataclass(frozen=True)
class SharedLedger(Ledger):
    """The same ledger, with the same triggers, in the schema `evergreen` of a database.

    Processes of any machine append at once; work that the database's restart interrupts is done again.
    """

    url: str = ""
    objects: str | None = None
    """The s3://bucket/prefix of the home's state: whoever can write the database need not be able to write there."""
    _counted: ClassVar = "select seq from appended"

    def __str__(self) -> str:
        return self.url

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """An object in the place of the file beside the ledger: one machine's would not know what others append."""
        there = (ObjectAnchor(Objects.at(self.objects)),) if self.objects else ()
        return *there, *self._anchor_elsewhere(self.url)

    def append(self, kind: str, key: str, as_of: str, body: dict[str, Any]) -> Entry:
        return persistently(lambda: super(SharedLedger, self).append(kind, key, as_of, body))

    def entries(self, kind: str | None = None) -> list[Entry]:
        return persistently(lambda: super(SharedLedger, self).entries(kind))

    def head(self) -> tuple[int, str]:
        """A single statement sees a single moment, so it takes no lock: whoever follows the ledger holds up nobody."""
        return persistently(self._head)

    def problem(self) -> str | None:
        return persistently(super().problem)

    def _head(self) -> tuple[int, str]:
        with connected(self.url) as connection:
            from psycopg.errors import UndefinedTable

            with suppress(UndefinedTable):  # nothing was appended yet
                if row := connection.execute(_HEAD).fetchone():
                    return int(row[0]), str(row[1])
        return 0, ""

    @property
    def _is_empty(self) -> bool:
        with connected(self.url) as connection:
            row = connection.execute("select to_regclass('evergreen.entries') is null").fetchone()
        return bool(row and row[0])

    @contextmanager
    def _locked(self, *, shared: bool = False) -> Iterator[None]:
        """The lock ends with the connection, and so with the process."""
        lock = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
        with connected(self.url) as connection:
            connection.execute(f"select {lock}(hashtext('evergreen.entries'))")
            yield

    @contextmanager
    def _transaction(self, mode: str) -> Iterator["_Connection"]:  # type: ignore[override]
        with connected(self.url) as connection, connection.transaction():
            if mode == "immediate" and self._is_empty:
                connection.execute(_SCHEMA)
            connection.execute("set local search_path to evergreen")
            yield _Connection(connection)


class _Connection:
    """A connection to PostgreSQL that takes statements as SQLite's does."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> "Cursor":
        return self._connection.execute(statement.replace("?", "%s"), parameters)
