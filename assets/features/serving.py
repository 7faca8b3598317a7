"""The online store: each key's newest features as of one date, and the features of rows to be scored.

It is a file in the home, or a fill of the environment's server: a `Place`.
"""

import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    closing,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from assets.as_of import instant
from assets.exceptions import NotPublished
from assets.features.generations import Generation, OnlineStore, server_of
from assets.features.store import (
    SERVICE,
    Definitions,
    Place,
    apply_definitions,
    apply_repository,
    definitions,
    digest,
    open_store,
)
from assets.home import Home

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

__all__ = ["OnlineReader", "OnlineStore", "Place", "materialize", "online_features", "online_store", "pinned", "served"]

_BEGINNING = datetime(1700, 1, 1)
"""Before every record, and not long after the first nanosecond timestamp."""
_CHUNK_ROWS = 5000
"""Rows per request to Feast, which holds a message per value in memory."""


def materialize(home: Home, as_of: str, accept: Callable[[Place], bool] = lambda _: True) -> OnlineStore:
    """Fill the online store with each key's newest features as of a date, which may be earlier than what it has.

    It is filled beside the one in use, and takes its place in one step when `accept`, given the new one, returns true:
    a reader sees the features of one date or another, never a mixture. A store that already has this content is reused.
    Raises NotPublished without marts, and DatabaseError when a server does not answer.
    """
    marts = home.lake.current("marts")
    applied = apply_definitions(home)
    in_use, wanted = _in_use(home), (as_of, marts.name, applied.digest)
    if in_use is not None and _made_of(present := online_store(in_use)) == wanted:
        accept(in_use)
        return present
    with _beside(home) as (place, publish):
        filled = _fill(home, as_of, marts, applied.digest, place)
        if accept(place):
            publish()
    return filled


def _in_use(home: Home) -> Place | None:
    """Where the online store is that is in use; None before it was filled."""
    with suppress(NotPublished):
        place = served(home)
        online_store(place)
        return place
    return None


def _made_of(content: OnlineStore) -> tuple[str, str, str]:
    return content.as_of, content.marts, content.definitions


@contextmanager
def _beside(home: Home) -> Iterator[tuple[Place, Callable[[], object]]]:
    """An empty place to fill, and how to let readers see it."""
    if server := server_of(home):
        with server.filling() as filling:
            yield filling
    else:
        with home.lake.staging("online_features") as staged:
            yield staged, lambda: (staged / "online.db").replace(home.features / "online.db")


@contextmanager
def pinned(home: Home, as_of: str, marts: Path, scratch: Path) -> Iterator[Path]:
    """A folder under `scratch` with the online store as of a date from some marts, whatever other runs do meanwhile.

    It is a copy of the home's if that has this content, and is filled here otherwise, or if a server has it. Raises
    NotPublished when it was never filled.
    """
    online_store(served(home))
    with tempfile.TemporaryDirectory(prefix=".online-", dir=scratch) as name:
        folder = Path(name)
        if server_of(home) is None:
            shutil.copyfile(home.features / "online.db", folder / "online.db")
        copied = _stamp(folder)
        if copied is None or _made_of(copied) != (as_of, marts.name, digest()):
            (folder / "online.db").unlink(missing_ok=True)
            _fill(home, as_of, marts, digest(), folder)
        yield folder


def served(home: Home) -> Place:
    """Where the online store is that is in use. Raises NotPublished for a server without one, and DatabaseError."""
    server = server_of(home)
    return server.served() if server else home.features


def online_store(place: Place) -> OnlineStore:
    """The content of the online store in a place. Raises NotPublished when it was never filled."""
    present = _stamp(place) if isinstance(place, Path) else place.content
    if present is None:
        raise NotPublished("the online store is empty; materialize online_features first")
    return present


def online_features(home: Home, rows: pd.DataFrame, place: Place | None = None) -> pd.DataFrame:
    """Rows with the feature service's columns appended, as float64, NaN where nothing is known about a key.

    Rows need the domain's columns that are known when a record comes in; order and index are kept. `place`
    is the online store to read, by default the one in use. Raises NotPublished when it was never filled, or with other
    definitions than the current ones, whose code computes the request features; and DatabaseError when a server does
    not answer.
    """
    return OnlineReader.open(home, place).features(rows)


@dataclass(frozen=True)
class OnlineReader:
    """An opened online store: one that is read again and again stays open as long as its content is the same."""

    content: OnlineStore
    _home: Home
    _place: Place
    _store: "FeatureStore"
    _service: "FeatureService"
    _applied: Definitions

    @classmethod
    def open(cls, home: Home, place: Place | None = None) -> "OnlineReader":
        """The store in a place, by default the one in use. Raises the same errors as `online_features`."""
        place = place or served(home)
        content = online_store(place)
        if content.definitions != digest():
            raise NotPublished(
                "the feature definitions have changed since the online store was filled; materialize it again"
            )
        store = open_store(home, place=place)
        return cls(content, home, place, store, store.get_feature_service(SERVICE), definitions(home))

    @property
    def is_current(self) -> bool:
        """Whether the store in use is still this one. Raises NotPublished when there is none, and DatabaseError."""
        place = served(self._home)
        return place == self._place and online_store(place) == self.content

    def features(self, rows: pd.DataFrame) -> pd.DataFrame:
        """As `online_features`; a Redis that has lost its content knows nothing about any key, and says so nowhere."""
        names = list(self._applied.features)
        chunks = [rows.iloc[first : first + _CHUNK_ROWS] for first in range(0, len(rows), _CHUNK_ROWS)]
        with _errors(self._place):
            values = [
                np.zeros((0, len(names))),
                *(_fetch(self._store, self._service, c, self._applied) for c in chunks),
            ]
        if isinstance(self._place, Generation) and self._place.is_lost:
            raise NotPublished(f"the online store {self._place.server.url} has lost its content; materialize it again")
        return rows.join(pd.DataFrame(np.concatenate(values), columns=names, index=rows.index))


def _fill(home: Home, as_of: str, marts: Path, definitions: str, place: Place) -> OnlineStore:
    store = open_store(home, marts=marts, place=place)
    # Feast prints its progress to standard output, which belongs to the caller.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), _errors(place):
        apply_repository(store)
        store.materialize(_BEGINNING, instant(as_of))
    filled = OnlineStore(as_of, marts.name, definitions, _count_keys(place, store))
    if isinstance(place, Path):
        _write_stamp(place / "online.db", filled)
    else:
        place.describe(filled)
    return filled


def _errors(place: Place) -> AbstractContextManager[None]:
    return nullcontext() if isinstance(place, Path) else place.server.errors()


def _fetch(
    store: "FeatureStore", service: "FeatureService", rows: pd.DataFrame, applied: Definitions
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    inputs = {name: rows[name].fillna("unknown").tolist() for name in applied.entities}
    inputs |= {name: rows[name].fillna("").tolist() for name in applied.request}
    columns = store.get_online_features(features=service, entity_rows=inputs).to_dict()
    return np.array([columns[name] for name in applied.features], dtype=np.float64).T


def _count_keys(place: Place, store: "FeatureStore") -> dict[str, int]:
    views = sorted(view.name for view in store.list_batch_feature_views())
    if not isinstance(place, Path):
        return {view: place.server.count(place.name, view) for view in views}
    with closing(sqlite3.connect(place / "online.db")) as connection:
        count = 'select count(distinct entity_key) from "{}_{}"'
        return {view: connection.execute(count.format(store.project, view)).fetchone()[0] for view in views}


def _write_stamp(path: Path, filled: OnlineStore) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table filled_with (description text not null)")
        connection.execute("insert into filled_with values (?)", [json.dumps(asdict(filled))])


def _stamp(folder: Path) -> OnlineStore | None:
    """The description inside an online store: in the same file, so that it moves with the store."""
    if not (folder / "online.db").exists():
        return None
    with closing(sqlite3.connect(folder / "online.db")) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'filled_with'").fetchone():
            return None
        return OnlineStore(**json.loads(connection.execute("select description from filled_with").fetchone()[0]))
