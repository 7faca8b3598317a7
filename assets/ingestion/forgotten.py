"""Which records must not come back: a keyed hash of each id, without any of its content.

The lake table `forgotten` has them all in `tombstones.json`. The key is outside the lake, so that who reads the lake
cannot try all ids: `forget.key` in the home or, where machines share it, a row of its database.
"""

import csv
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from assets.database import connected, persistently, prepare
from assets.exceptions import EvergreenError
from assets.hashing import hash_bytes, hash_json
from assets.home import Home
from assets.writing import write_atomically

__all__ = ["TABLE", "Forgotten"]

TABLE = "forgotten"

_FILE = "tombstones.json"
_RECORD_ID, _RAW_TEXT = "record_id", "raw_text"
_KEYS = """
    create schema if not exists evergreen;
    create table if not exists evergreen.forget_key (
        only_one boolean primary key default true check (only_one), key text not null
    )
"""
_BETWEEN_FIELDS = re.compile(r"""[,;:|"'{}\[\]\t\r\n]""")


@dataclass(frozen=True)
class Forgotten:
    """The records that are forgotten in a home."""

    key: bytes
    tombstones: frozenset[str]
    id_column: str
    """The name of the id among the fields of the source; everywhere else it is `record_id`."""

    @classmethod
    def read(cls, home: Home) -> "Forgotten":
        """Those of a home. Raises EvergreenError when the home lacks the key that their hashes were made with."""
        key, stored = _key(home), _stored(home)
        if stored and stored["key"] != _fingerprint(key):
            raise EvergreenError(
                f"{_place(home)} is not the key that records were forgotten with: copy "
                "it from the home in which that was done, or they would come back"
            )
        return cls(key, frozenset(stored.get("tombstones", ())), home.domain.id)

    def with_ids(self, record_ids: Iterable[str]) -> "Forgotten":
        """These and some others."""
        return Forgotten(self.key, self.tombstones | set(map(self.tombstone, record_ids)), self.id_column)

    @property
    def version(self) -> str:
        """The name of what is published of them."""
        return hash_json(self._content)[:16]

    @property
    def _content(self) -> dict[str, Any]:
        return {"key": _fingerprint(self.key), "tombstones": sorted(self.tombstones)}

    def save(self, home: Home) -> None:
        """Publish them; the key first."""
        _keep_key(home, self.key)
        with home.lake.staging(TABLE) as staged:
            (staged / _FILE).write_text(json.dumps(self._content, indent=0))
            home.lake.publish_alone(TABLE, self.version, staged)

    def tombstone(self, record_id: str) -> str:
        """What stands for a record: HMAC-SHA-256 of its id, hexadecimal."""
        return hmac.digest(self.key, record_id.strip(" ").encode(), "sha256").hex()

    def columns(self, names: Iterable[str]) -> list[str]:
        """Those columns of a table by which its rows are told to be of a record."""
        return [name for name in names if name in (_RECORD_ID, _RAW_TEXT, self.id_column)]

    def among(self, rows: pa.Table) -> tuple[pa.Array, set[str]]:
        """Which rows are of forgotten records [rows], by their ids or by a word of a `raw_text`; and of which records.

        The latter only of ids, and of whole fields of a `raw_text`: any word may be in what somebody has written.
        """
        found: pa.Array = pa.repeat(False, len(rows))
        tombstones: set[str] = set()
        for name in self.columns(rows.column_names):
            values = [value for value in pc.unique(rows[name]).to_pylist() if value is not None]
            test, parts = (self.named_in, _fields) if name == _RAW_TEXT else (self.of, _whole)
            named = [value for value in values if test(value)]
            found = pc.or_(found, pc.is_in(rows[name], value_set=pa.array(named, rows[name].type)))
            tombstones |= {tombstone for value in named for tombstone in self.of(*parts(value))}
        return found, tombstones

    def of(self, *record_ids: str) -> set[str]:
        """The tombstones of those of some records that are forgotten."""
        return {self.tombstone(record_id) for record_id in record_ids} & self.tombstones

    def named_in(self, raw_text: str) -> set[str]:
        """The tombstones of the ids in a piece of a source, each a field or a word of its own."""
        fields = _fields(raw_text)
        return self.of(*fields, *(word for field in fields for word in field.split()))


def _whole(record_id: str) -> set[str]:
    return {record_id}


def _fields(raw_text: str) -> set[str]:
    """What may be a field of a piece of a source: between separators of any kind, or by CSV's rules."""
    try:
        quoted = {field for row in csv.reader(StringIO(raw_text)) for field in row}
    except csv.Error:  # a piece that is no record may be no CSV either
        quoted = set()
    return {field.strip() for field in (*quoted, *_BETWEEN_FIELDS.split(raw_text))}


def _key(home: Home) -> bytes:
    """The home's key; a new one in a home without."""
    known = _key_of(home.environment.database) if home.environment.database else _read(_key_file(home))
    return bytes.fromhex(known) if known else secrets.token_bytes(32)


def _key_of(database: str) -> str | None:
    def ask() -> str | None:
        with connected(database) as connection:
            row = connection.execute("select key from evergreen.forget_key").fetchone()
            return str(row[0]) if row else None

    prepare(database, _KEYS)
    return persistently(ask)


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _keep_key(home: Home, key: bytes) -> None:
    """Keep a key, unless the home has one."""
    if database := home.environment.database:

        def add() -> None:
            with connected(database) as connection:
                statement = "insert into evergreen.forget_key (key) values (%s) on conflict do nothing"
                connection.execute(statement, (key.hex(),))

        persistently(add)
    elif not _key_file(home).exists():
        write_atomically(_key_file(home), key.hex())


def _place(home: Home) -> str:
    return f"{database}: evergreen.forget_key" if (database := home.environment.database) else str(_key_file(home))


def _key_file(home: Home) -> Path:
    return home.root / "forget.key"


def _fingerprint(key: bytes) -> str:
    return hash_bytes(key)[:16]


def _stored(home: Home) -> dict[str, Any]:
    if home.lake.version(TABLE) is None:
        return {}
    content: dict[str, Any] = json.loads((home.lake.current(TABLE) / _FILE).read_text())
    return content
