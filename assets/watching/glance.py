"""Reads the ledger without a lock, so that no run ever waits for whoever watches."""

import sqlite3
from collections.abc import Hashable
from contextlib import closing
from pathlib import Path

from assets.database import connected
from assets.home import Home
from assets.registry.ledger import Entry, entries_of
from assets.watching.figures import Busy

__all__ = ["glance", "head"]

_COLUMNS = "select seq, kind, key, as_of, body, hash from entries order by seq"
_SHARED = "select seq, kind, key, as_of, body, hash from evergreen.entries order by seq"
_NEWEST = "select max(seq) from evergreen.entries"
_IS_THERE = "select to_regclass('evergreen.entries') is not null"


def head(home: Home) -> Hashable:
    """What is another whenever the ledger is; None where there is none.

    A database that does not answer is not waited for: DatabaseError, as of `glance`.
    """
    return _stamp(home.ledger) if home.environment.database is None else _newest(home.environment.database)


def glance(home: Home) -> tuple[Entry, ...]:
    """Every entry of a home's ledger, oldest first; none where there is none. Raises Busy while its file is changed."""
    return _in_file(home.ledger) if home.environment.database is None else _in_database(home.environment.database)


def _newest(url: str) -> Hashable:
    with connected(url) as connection:
        there = connection.execute(_IS_THERE).fetchone() == (True,)
        return connection.execute(_NEWEST).fetchone() if there else None


def _in_database(url: str) -> tuple[Entry, ...]:
    """A plain select sees a single moment, and holds up nobody who appends."""
    with connected(url) as connection:
        there = connection.execute(_IS_THERE).fetchone() == (True,)
        return tuple(entries_of(connection.execute(_SHARED).fetchall() if there else ()))


def _in_file(path: Path) -> tuple[Entry, ...]:
    """The file is copied into memory. SQLite keeps a journal next to it for as long as it is being changed."""
    before = _stamp(path)
    content = path.read_bytes() if before else b""
    if path.with_name(f"{path.name}-journal").exists() or _stamp(path) != before:
        raise Busy
    if not content:
        return ()
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        return tuple(entries_of(connection.execute(_COLUMNS).fetchall()))


def _stamp(path: Path) -> tuple[int, int] | None:
    """When a file was written, and its size in bytes; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
