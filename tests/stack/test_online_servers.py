"""Online features on Redis and PostgreSQL (assets/features/generations.py): a file's values, in whole fills."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest

from assets.exceptions import DatabaseError, NotPublished, Superseded
from assets.features import generations, serving
from assets.features.checks import check_online
from assets.features.generations import server_of
from assets.features.redis_client import redis_of
from assets.features.serving import OnlineReader, materialize, online_features, online_store, pinned, served
from assets.home import Home
from assets.serving.features import Features
from assets.settings import EMBEDDED, load_serving_settings
from tests.features.conftest import publish_marts, records
from tests.stack.servers import remove_features

LATE, EARLY = "2020-03-10", "2020-02-01"
REDIS = "redis://127.0.0.1:6379/0"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with marts, and with online features in a file."""
    home = Home(tmp_path_factory.mktemp("embedded"))
    publish_marts(home, records())
    return home


@pytest.fixture(params=["redis", "postgresql"])
def home(request: pytest.FixtureRequest, filled: Home, tmp_path: Path) -> Iterator[Home]:
    """The marts of that home, with online features on a server, whose names are removed afterwards."""
    url = request.getfixturevalue("redis_server" if request.param == "redis" else "database")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "lake").symlink_to(filled.root / "lake")
    home = Home(tmp_path / "home", EMBEDDED.model_copy(update={"online": url}))
    yield home
    if request.param == "redis":
        remove_features(home)


def names_on(home: Home) -> set[str]:
    """The generations that have a key or a table."""
    server = server_of(home)
    if home.environment.online == REDIS:
        keys = redis_of(REDIS).scan_iter(match=f"*evergreen_{server.home}_*", count=1000)
        return {key[key.index(b"evergreen_") :].decode() for key in keys}
    with import_module("psycopg").connect(home.environment.online) as connection:
        found = connection.execute("select nspname from pg_namespace where nspname like 'evergreen\\_%\\_%'").fetchall()
    return {name for (name,) in found}


@pytest.fixture
def rows() -> pd.DataFrame:
    known = {"zip_code": None, "tags": None, "channel": "Web"}
    return pd.DataFrame(
        [
            {"record_id": "9", "text": "They owe me $5", "company": "BETA", "state": "NY", **known},
            {"record_id": "7", "text": None, "company": None, "state": "CA", **known},
            {"record_id": "8", "text": "XXXX", "company": "NEVER SEEN", "state": None, **known},
        ]
    )


def test_the_same_values_as_from_a_file(home: Home, filled: Home, rows: pd.DataFrame) -> None:
    for as_of in (LATE, EARLY):
        found, expected = materialize(home, as_of), materialize(filled, as_of)
        assert found == expected == online_store(served(home))
        assert min(found.keys.values()) > 0
        pd.testing.assert_frame_equal(online_features(home, rows), online_features(filled, rows), check_exact=True)
        assert check_online(home, as_of).passed
        with pinned(home, as_of, home.lake.current("marts"), home.root) as copy:
            pd.testing.assert_frame_equal(online_features(home, rows, copy), online_features(filled, rows))


def test_nothing_is_filled_again_that_is_there(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first, place = materialize(home, LATE), served(home)
    monkeypatch.setattr(serving, "apply_repository", None)
    assert materialize(home, LATE) == first
    assert served(home) == place


def test_before_the_first_fill_and_after_a_flush_it_says_so(home: Home, rows: pd.DataFrame) -> None:
    with pytest.raises(NotPublished, match="was never filled, or has lost its content"):
        online_features(home, rows)
    materialize(home, LATE)
    if home.environment.online == REDIS:
        reader = OnlineReader.open(home)
        assert reader.is_current
        remove_features(home)
        with pytest.raises(NotPublished, match="has lost its content"):
            reader.features(rows)
        with pytest.raises(NotPublished):
            online_features(home, rows)
        materialize(home, LATE)
        assert online_features(home, rows)["company_labels"].notna().any()


def test_a_server_of_answers_is_not_ready_while_the_store_in_use_is_empty(home: Home) -> None:
    settings = load_serving_settings()
    assert "never filled" in str(Features(home, settings).problem())
    materialize(home, LATE)
    assert Features(home, settings).problem() is None
    if home.environment.online == REDIS:
        remove_features(home)
        assert "has lost its content" in str(Features(home, settings).problem())


def test_what_is_refused_is_never_seen_and_leaves_nothing(home: Home, rows: pd.DataFrame) -> None:
    materialize(home, EARLY)
    before, place = online_features(home, rows), served(home)
    materialize(home, LATE, lambda _: False)
    with pytest.raises(ZeroDivisionError):
        materialize(home, LATE, lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    assert served(home) == place
    assert names_on(home) == {place.name}
    pd.testing.assert_frame_equal(online_features(home, rows), before)


def test_a_reader_goes_on_with_the_fill_that_it_opened(
    home: Home, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize(home, EARLY)
    reader = OnlineReader.open(home)
    early = reader.features(rows)
    materialize(home, LATE)
    assert not reader.is_current
    pd.testing.assert_frame_equal(reader.features(rows), early)
    monkeypatch.setattr(generations, "GRACE_SECONDS", -1)
    materialize(home, EARLY)
    assert names_on(home) == {served(home).name}
    with pytest.raises((NotPublished, DatabaseError)):
        reader.features(rows)


def test_two_that_fill_at_once_end_with_one_whole_fill(home: Home, filled: Home, rows: pd.DataFrame) -> None:
    start = Barrier(2)

    def fill(as_of: str) -> None:
        def accept(_: object) -> bool:
            start.wait()
            return True

        materialize(home, as_of, accept)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, (EARLY, LATE)))
    as_of = online_store(served(home)).as_of
    assert as_of in (EARLY, LATE)
    materialize(filled, as_of)
    pd.testing.assert_frame_equal(online_features(home, rows), online_features(filled, rows), check_exact=True)


def test_a_fill_that_was_given_up_is_not_published(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "GRACE_SECONDS", -1)

    def overtaken(_: object) -> bool:
        materialize(home, EARLY)
        return True

    with pytest.raises(Superseded, match="was given up; run again"):
        materialize(home, LATE, overtaken)
    assert online_store(served(home)).as_of == EARLY
    assert names_on(home) == {served(home).name}


_KILLED = """
import os, signal, sys
from pathlib import Path
from assets.features import generations, serving
from assets.features.store import feast_imports
from assets.home import Home
from assets.serving.features import Features
from assets.settings import EMBEDDED, load_serving_settings
with feast_imports():
    from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStore
    from feast.infra.online_stores.redis import RedisOnlineStore

def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half(write):
    return lambda self, config, table, data, progress: (write(self, config, table, data[:3], progress), killed())

root, url, as_of, moment = sys.argv[1:]
if moment == "half":
    for store in (PostgreSQLOnlineStore, RedisOnlineStore):
        store.online_write_batch = half(store.online_write_batch)
elif moment == "written":
    serving._count_keys = killed
else:
    generations.Server.show = killed
serving.materialize(Home(Path(root), EMBEDDED.model_copy(update={"online": url})), as_of)
"""


@pytest.mark.parametrize("moment", ["half", "written", "described"])
def test_a_killed_fill_changes_nothing_and_is_removed_later(
    home: Home, rows: pd.DataFrame, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize(home, EARLY)
    before, place = online_features(home, rows), served(home)
    arguments = [str(home.root), str(home.environment.online), LATE, moment]
    done = subprocess.run([sys.executable, "-c", _KILLED, *arguments], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert served(home) == place
    assert len(names_on(home)) == 2
    pd.testing.assert_frame_equal(online_features(home, rows), before)
    monkeypatch.setattr(generations, "GRACE_SECONDS", -1)
    materialize(home, LATE)
    assert names_on(home) == {served(home).name}


def test_a_server_that_is_not_there_is_named(filled: Home, tmp_path: Path, rows: pd.DataFrame) -> None:
    for url in ("redis://127.0.0.1:9/0", "postgresql://nobody@127.0.0.1:9/nothing"):
        with pytest.raises(DatabaseError, match=url) as raised:
            online_features(Home(tmp_path, EMBEDDED.model_copy(update={"online": url})), rows)
        assert "\n" not in str(raised.value)
