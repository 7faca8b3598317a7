"""The append-only record of verdicts, alias moves, approvals and retraining decisions, in one SQLite file.

A home that machines share has it in a PostgreSQL database (assets/registry/shared_ledger.py).

Every entry has a hash over itself and the hash of the one before it, so that none can be edited, removed or reordered
without rewriting all that follow. Anchors (assets/registry/anchors.py) remember the last entry, so that the ledger
cannot be truncated or replaced unnoticed: a small file next to it and, by a setting, one elsewhere.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from assets.exceptions import RegistryError
from assets.hashing import hash_json
from assets.locks import locked
from assets.registry.anchors import Anchor, FileAnchor, Head

__all__ = ["Entry", "Ledger", "entries_of"]

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
"""Only a foreign program can hold the file this long; one left open in a transaction holds it for ever."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger. `seq` counts from 1 in the order of appending; `as_of` is text as in `assets.as_of`."""

    seq: int
    kind: str
    key: str
    as_of: str
    body: dict[str, Any]
    hash: str
    """SHA-256 over the hash of the entry before it and its own fields, hexadecimal."""

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON: seq, kind, key, as_of, body, hash."""
        return asdict(self)


@dataclass(frozen=True)
class Ledger:
    """The ledger in a file, created on first use. Any number of processes may read and append at once."""

    path: Path
    elsewhere: Path | None = None
    """A folder for a second anchor, out of reach of anyone who can write the first."""

    def __str__(self) -> str:
        """Where it is."""
        return str(self.path)

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """What remembers the last entry: a file next to the ledger, and one elsewhere."""
        return FileAnchor(self.path.with_suffix(".anchor")), *self._anchor_elsewhere(str(self.path.absolute()))

    def _anchor_elsewhere(self, place: str) -> tuple[Anchor, ...]:
        """The anchor in the folder elsewhere, if there is one, named after where the ledger is."""
        return (FileAnchor(self.elsewhere / f"ledger-{hash_json(place)[:16]}.anchor"),) if self.elsewhere else ()

    def append(self, kind: str, key: str, as_of: str, body: dict[str, Any]) -> Entry:
        """Add an entry unless one with this kind and key exists; returns the one that then exists.

        `body` must be JSON without NaN. Raises RegistryError when the file cannot be written, and when it is not the
        ledger that an anchor remembers: then nothing is written, and the anchor stays unchanged.
        """
        text = json.dumps(body, sort_keys=True, allow_nan=False)
        with self._locked():
            with self._transaction("immediate") as connection:
                head = self._anchored_head(connection)
                known = "select 1 from entries where kind = ? and key = ?"
                if connection.execute(known, (kind, key)).fetchone() is None:
                    row = (head.seq + 1, kind, key, as_of, text)
                    head = Head(head.seq + 1, _hash(head.hash, *row))
                    insert = "insert into entries (seq, kind, key, as_of, body, hash) values (?, ?, ?, ?, ?, ?)"
                    connection.execute(insert, (*row, head.hash))
                entry = _select(connection, "where kind = ? and key = ?", (kind, key))[0]
            self._anchor(head)
        return entry

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Every entry, or every entry of a kind, oldest first. Raises RegistryError when the file cannot be read."""
        if self._is_empty:
            return []
        with self._locked(shared=True), self._transaction("deferred") as connection:
            return _select(connection, "where cast(? as text) is null or kind = ?", (kind, kind))

    def head(self) -> tuple[int, str]:
        """The last entry's number and hash, (0, "") for none: cheap to ask again and again."""
        if self._is_empty:
            return Head(0, "")
        with self._locked(shared=True), self._transaction("deferred") as connection:
            row = connection.execute("select seq, hash from entries order by seq desc limit 1").fetchone()
        return Head(*row) if row else Head(0, "")

    def champion_at(self, as_of: str) -> Entry | None:
        """The entry that made the champion as of an instant, None before the first."""
        moves = [entry for entry in self.entries("alias") if entry.as_of <= as_of]
        return moves[-1] if moves else None

    def newest_day(self) -> str:
        """The latest as-of day of any entry; empty without entries."""
        return max((entry.as_of for entry in self.entries()), default="")

    def problem(self) -> str | None:
        """How the entries were altered since they were appended, at the first that does not follow; None if not."""
        promised = self._remembered()
        hashes, problem = self._chain()
        problem = problem or _lost(promised, hashes)
        # The anchors are read again: entries appended in the meantime are anchored by now, except for the last.
        return problem or _unknown(self._remembered(), hashes)

    _counted: ClassVar = "select seq from sqlite_sequence where name = 'entries'"
    """Selects the number of the last entry that was appended, whether it still exists or not."""

    @property
    def _is_empty(self) -> bool:
        """Whether nothing was appended yet; SQLite leaves an empty file when a first append is interrupted."""
        return not self.path.exists() or self.path.stat().st_size == 0

    def _chain(self) -> tuple[dict[int, str], str | None]:
        """The entries' hashes by number, and a message about the first that does not follow from those before it."""
        if self._is_empty:
            return {}, None
        hashes: dict[int, str] = {0: ""}
        with self._locked(shared=True), self._transaction("deferred") as connection:
            for seq, *row, digest in connection.execute(f"{_COLUMNS} order by seq"):
                if seq != len(hashes):
                    return hashes, f"entry {len(hashes)} was removed"
                if digest != _hash(hashes[seq - 1], seq, *row):
                    why = f"entry {seq} is not what was appended: it, or an entry before it, was edited or reordered"
                    return hashes, why
                hashes[seq] = digest
            counted = connection.execute(self._counted).fetchone()
        ends = len(hashes) - 1
        return hashes, f"entries after {ends} were removed" if counted and counted[0] != ends else None

    def _anchored_head(self, connection: sqlite3.Connection) -> Head:
        """The last entry, once every anchor has it: a kill may have left an anchor behind."""
        anchors = self._remembered()
        found = connection.execute("select seq, hash from entries order by seq desc limit 1").fetchall()
        for remembered in anchors.values():
            found += connection.execute("select seq, hash from entries where seq = ?", (remembered.seq,)).fetchall()
        if problem := _lost(anchors, dict(found)) or _unknown(anchors, dict(found)):
            raise RegistryError(f"ledger {self}: {problem}; nothing more is written until that is undone")
        head = Head(*found[0]) if found else Head(0, "")
        self._anchor(head)
        return head

    def _remembered(self) -> dict[Anchor, Head]:
        """The entry that each existing anchor remembers."""
        if self.elsewhere and not self.elsewhere.is_dir():
            raise RegistryError(f"configs/ledger.yaml: anchor: there is no folder {self.elsewhere}")
        read = {anchor: anchor.read() for anchor in self.anchors}
        return {anchor: head for anchor, head in read.items() if head is not None}

    def _anchor(self, head: Head) -> None:
        known = self._remembered()
        for anchor in self.anchors:
            if head.seq and known.get(anchor) != head:
                anchor.write(head, str(self))

    def _locked(self, *, shared: bool = False) -> AbstractContextManager[None]:
        """One process at a time appends and anchors, and none reads in the meantime."""
        return locked(self.path.with_suffix(".lock"), shared=shared)

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[sqlite3.Connection]:
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


def _lost(anchors: dict[Anchor, Head], hashes: dict[int, str]) -> str | None:
    """A message about the first anchor that remembers an entry which does not exist."""
    ends = max(hashes, default=0)
    for anchor, head in anchors.items():
        if head.seq > ends:
            what = f"entries after {ends} were removed" if ends else "the ledger is gone"
            return f"{what}: {anchor} remembers entry {head.seq}"
        if hashes.get(head.seq) != head.hash:
            return f"entry {head.seq} is not the one that {anchor} remembers"
    return None


def _unknown(anchors: dict[Anchor, Head], hashes: dict[int, str]) -> str | None:
    """A message about the first anchor that lacks more than one entry, as a kill can cost it only one."""
    ends = max(hashes, default=0)
    for anchor, head in anchors.items():
        if ends > head.seq + 1:
            return f"entries {head.seq + 1} to {ends} were not appended by Evergreen: {anchor} does not know them"
    return None


def _select(connection: sqlite3.Connection, where: str, parameters: tuple[str | None, ...]) -> list[Entry]:
    return entries_of(connection.execute(f"{_COLUMNS} {where} order by seq", parameters))


def entries_of(rows: Iterable[tuple[Any, ...]]) -> list[Entry]:
    """Rows of the table, in the order of its columns, as entries."""
    return [Entry(seq, kind, key, as_of, json.loads(body), digest) for seq, kind, key, as_of, body, digest in rows]


def _hash(before: str, seq: int, kind: str, key: str, as_of: str, body: str) -> str:
    return sha256(json.dumps([before, seq, kind, key, as_of, body]).encode()).hexdigest()
