"""The append-only record of verdicts, alias moves, approvals and retraining decisions, in one SQLite file.

Every entry carries a hash over itself and the hash of the one before it, so that none can be edited, removed or
reordered without all that follow being written again.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from assets.exceptions import RegistryError

__all__ = ["Entry", "Ledger"]

_SCHEMA = (
    """
    create table if not exists entries (
        seq integer primary key autoincrement,
        kind text not null,
        key text not null,
        as_of text not null,
        body text not null,
        hash text not null,
        unique (kind, key)
    )
    """,
    """
    create trigger if not exists entries_are_not_updated before update on entries
    begin select raise(abort, 'the ledger is append-only'); end
    """,
    """
    create trigger if not exists entries_are_not_deleted before delete on entries
    begin select raise(abort, 'the ledger is append-only'); end
    """,
    # "insert or replace" deletes without firing the trigger above.
    """
    create trigger if not exists entries_are_not_replaced before insert on entries
    when exists (select 1 from entries where seq = new.seq or (kind = new.kind and key = new.key))
    begin select raise(abort, 'the ledger is append-only'); end
    """,
)
_COLUMNS = "select seq, kind, key, as_of, body, hash from entries"
_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """One line of the ledger. `seq` counts from 1 in the order of appending; `as_of` is YYYY-MM-DD."""

    seq: int
    kind: str
    key: str
    as_of: str
    body: dict[str, Any]
    hash: str
    """SHA-256 over the hash of the entry before it and its own fields, hexadecimal."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON: seq, kind, key, as_of, body, hash."""
        return asdict(self)


@dataclass(frozen=True)
class Ledger:
    """The ledger in a file, made on first use. Any number of processes may read and append at once."""

    path: Path

    def append(self, kind: str, key: str, as_of: str, body: dict[str, Any]) -> Entry:
        """Add an entry unless one of this kind and key exists; the entry that then stands is returned.

        `body` must be JSON without NaN. Raises RegistryError when the file cannot be written.
        """
        text = json.dumps(body, sort_keys=True, allow_nan=False)
        with self._transaction("immediate") as connection:
            known = "select 1 from entries where kind = ? and key = ?"
            if connection.execute(known, (kind, key)).fetchone() is None:
                last = connection.execute("select seq, hash from entries order by seq desc limit 1").fetchone()
                seq, before = last or (0, "")
                row = (seq + 1, kind, key, as_of, text)
                insert = "insert into entries (seq, kind, key, as_of, body, hash) values (?, ?, ?, ?, ?, ?)"
                connection.execute(insert, (*row, _hash(before, *row)))
            return _select(connection, "where kind = ? and key = ?", (kind, key))[0]

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Every entry, or every entry of a kind, oldest first. Raises RegistryError when the file cannot be read."""
        if not self.path.exists():
            return []
        with self._transaction("deferred") as connection:
            return _select(connection, "where ? is null or kind = ?", (kind, kind))

    def champion_at(self, day: str) -> Entry | None:
        """The entry that made the champion of a day (YYYY-MM-DD, its end), None before the first."""
        moves = [entry for entry in self.entries("alias") if entry.as_of <= day]
        return moves[-1] if moves else None

    def problem(self) -> str | None:
        """What was done to the entries since they were appended: the first that does not follow; None for nothing."""
        if not self.path.exists():
            return None
        before, count = "", 0
        with self._transaction("deferred") as connection:
            for seq, *row, found in connection.execute(f"{_COLUMNS} order by seq"):
                count += 1
                if seq != count:
                    return f"entry {count} was removed"
                if found != _hash(before, seq, *row):
                    return f"entry {seq} is not what was appended: it, or an entry before it, was edited or reordered"
                before = found
            counted = connection.execute("select seq from sqlite_sequence where name = 'entries'").fetchone()
        return f"entries after {count} were removed" if counted and counted[0] != count else None

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
                connection.execute("pragma synchronous = full")
                connection.execute(f"begin {mode}")
                for statement in _SCHEMA if mode == "immediate" else ():
                    connection.execute(statement)
                yield connection
                connection.execute("commit")
        except sqlite3.DatabaseError as error:
            raise RegistryError(f"ledger {self.path}: {error}") from None


def _select(connection: sqlite3.Connection, where: str, parameters: tuple[str | None, ...]) -> list[Entry]:
    rows = connection.execute(f"{_COLUMNS} {where} order by seq", parameters)
    return [Entry(seq, kind, key, as_of, json.loads(body), found) for seq, kind, key, as_of, body, found in rows]


def _hash(before: str, seq: int, kind: str, key: str, as_of: str, body: str) -> str:
    return sha256(json.dumps([before, seq, kind, key, as_of, body]).encode()).hexdigest()
