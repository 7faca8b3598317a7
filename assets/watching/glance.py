"""Reads the ledger without a lock, so that no run ever waits for whoever watches."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from assets.registry.ledger import Entry
from assets.watching.figures import Busy

__all__ = ["glance", "stamp"]

_COLUMNS = "select seq, kind, key, as_of, body, hash from entries order by seq"


def stamp(path: Path) -> tuple[int, int] | None:
    """When a file was written, and its size in bytes; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def glance(path: Path) -> tuple[Entry, ...]:
    """Every entry of a ledger's file, oldest first; none where there is none.

    The file is copied into memory. SQLite keeps a journal next to it for as long as it is being changed. Raises Busy
    when it is, or was in the meantime.
    """
    before = stamp(path)
    content = path.read_bytes() if before else b""
    if path.with_name(f"{path.name}-journal").exists() or stamp(path) != before:
        raise Busy
    if not content:
        return ()
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        rows = connection.execute(_COLUMNS).fetchall()
    return tuple(Entry(seq, kind, key, as_of, json.loads(body), digest) for seq, kind, key, as_of, body, digest in rows)
