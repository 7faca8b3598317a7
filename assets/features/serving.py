"""The online store: each key's newest features as of one date, and the features of rows to be scored."""

import contextlib
import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from assets.as_of import instant
from assets.exceptions import NotPublished
from assets.features.store import (
    SERVICE,
    Definitions,
    apply_definitions,
    apply_repository,
    definitions,
    digest,
    open_store,
)
from assets.lake import Home

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

__all__ = ["OnlineReader", "OnlineStore", "materialize", "online_features", "online_store", "pinned"]

_BEGINNING = datetime(1700, 1, 1)
"""Before every record, and not long after the first nanosecond timestamp."""
_CHUNK_ROWS = 5000
"""Rows per request to Feast, which holds a message per value in memory."""


@dataclass(frozen=True)
class OnlineStore:
    """The content of the online store, a function of the date, the marts and the definitions."""

    as_of: str
    marts: str
    definitions: str
    keys: dict[str, int]
    """The number of its keys, by feature view."""


def materialize(home: Home, as_of: str, accept: Callable[[Path], bool] = lambda _: True) -> OnlineStore:
    """Fill the online store with each key's newest features as of a date, which may be earlier than what it has.

    It is filled in a temporary folder and moved into place when `accept`, given that folder, returns true: a reader
    sees the features of one date or another, never a mixture. A store that already has this content is reused. Raises
    NotPublished without marts.
    """
    marts = home.lake.current("marts")
    applied = apply_definitions(home)
    present, wanted = _stamp(home.features), (as_of, marts.name, applied.digest)
    if present is not None and (present.as_of, present.marts, present.definitions) == wanted:
        accept(home.features)
        return present
    with home.lake.staging("online_features") as staged:
        filled = _fill(home, as_of, marts, applied.digest, staged)
        if accept(staged):
            (staged / "online.db").replace(home.features / "online.db")
    return filled


@contextlib.contextmanager
def pinned(home: Home, as_of: str, marts: Path, scratch: Path) -> Iterator[Path]:
    """A folder under `scratch` with the online store as of a date from some marts, whatever other runs do meanwhile.

    It is a copy of the home's if that has this content, and is filled here otherwise. Raises NotPublished when the
    home's was never filled.
    """
    online_store(home.features)
    with tempfile.TemporaryDirectory(prefix=".online-", dir=scratch) as name:
        folder = Path(name)
        shutil.copyfile(home.features / "online.db", folder / "online.db")
        copy = online_store(folder)
        if (copy.as_of, copy.marts, copy.definitions) != (as_of, marts.name, digest()):
            (folder / "online.db").unlink()
            _fill(home, as_of, marts, digest(), folder)
        yield folder


def online_store(folder: Path) -> OnlineStore:
    """The content of the online store in a folder. Raises NotPublished when it was never filled."""
    present = _stamp(folder)
    if present is None:
        raise NotPublished("the online store is empty; materialize online_features first")
    return present


def online_features(home: Home, rows: pd.DataFrame, folder: Path | None = None) -> pd.DataFrame:
    """Rows with the feature service's columns appended, as float64, NaN where nothing is known about a key.

    Rows need the domain's columns that are known when a record comes in; order and index are kept. `folder`
    holds the online store to read, by default the home's. Raises NotPublished when it was never filled, or with other
    definitions than the current ones, whose code computes the request features.
    """
    return OnlineReader.open(home, folder).features(rows)


@dataclass(frozen=True)
class OnlineReader:
    """An opened online store: one that is read again and again stays open as long as its content is the same."""

    content: OnlineStore
    _folder: Path
    _store: "FeatureStore"
    _service: "FeatureService"
    _applied: Definitions

    @classmethod
    def open(cls, home: Home, folder: Path | None = None) -> "OnlineReader":
        """The store in a folder, by default the home's. Raises NotPublished as `online_features` does."""
        folder = folder or home.features
        content = online_store(folder)
        if content.definitions != digest():
            raise NotPublished(
                "the feature definitions have changed since the online store was filled; materialize it again"
            )
        store = open_store(home, folder=folder)
        return cls(content, folder, store, store.get_feature_service(SERVICE), definitions(home))

    @property
    def is_current(self) -> bool:
        """Whether the store still has the content that it was opened with. Raises NotPublished when it has none."""
        return online_store(self._folder) == self.content

    def features(self, rows: pd.DataFrame) -> pd.DataFrame:
        """As `online_features`."""
        names = list(self._applied.features)
        chunks = [rows.iloc[first : first + _CHUNK_ROWS] for first in range(0, len(rows), _CHUNK_ROWS)]
        values = [np.zeros((0, len(names))), *(_fetch(self._store, self._service, c, self._applied) for c in chunks)]
        return rows.join(pd.DataFrame(np.concatenate(values), columns=names, index=rows.index))


def _fill(home: Home, as_of: str, marts: Path, definitions: str, folder: Path) -> OnlineStore:
    store = open_store(home, marts=marts, folder=folder)
    apply_repository(store)
    # Feast prints its progress to standard output, which belongs to the caller.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.materialize(_BEGINNING, instant(as_of))
    filled = OnlineStore(as_of, marts.name, definitions, _count_keys(folder / "online.db", store))
    _write_stamp(folder / "online.db", filled)
    return filled


def _fetch(
    store: "FeatureStore", service: "FeatureService", rows: pd.DataFrame, applied: Definitions
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    inputs = {name: rows[name].fillna("unknown").tolist() for name in applied.entities}
    inputs |= {name: rows[name].fillna("").tolist() for name in applied.request}
    columns = store.get_online_features(features=service, entity_rows=inputs).to_dict()
    return np.array([columns[name] for name in applied.features], dtype=np.float64).T


def _count_keys(path: Path, store: "FeatureStore") -> dict[str, int]:
    views = [view.name for view in store.list_batch_feature_views()]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count = 'select count(distinct entity_key) from "{}_{}"'
        return {view: connection.execute(count.format(store.project, view)).fetchone()[0] for view in sorted(views)}


def _write_stamp(path: Path, filled: OnlineStore) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table filled_with (description text not null)")
        connection.execute("insert into filled_with values (?)", [json.dumps(asdict(filled))])


def _stamp(folder: Path) -> OnlineStore | None:
    """The description inside an online store: in the same file, so that it moves with the store."""
    if not (folder / "online.db").exists():
        return None
    with contextlib.closing(sqlite3.connect(folder / "online.db")) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'filled_with'").fetchone():
            return None
        return OnlineStore(**json.loads(connection.execute("select description from filled_with").fetchone()[0]))
