"""`evergreen metrics` of a home that machines share: every part is read, and no run waits for it."""

from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import duckdb
import psycopg
import pytest

from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from assets.settings import EMBEDDED, load_settings
from assets.warehouse.marts import partition_file
from assets.watching.figures import Watch
from assets.watching.home import parts_of
from tests.stack.conftest import Bucket

DAY = "2024-07-01"


@pytest.fixture
def machines(seaweed: Bucket, database: str, tmp_path: Path) -> tuple[Home, Home]:
    """One that works, and one that watches."""
    where = EMBEDDED.model_copy(update={"objects": f"{seaweed.url}/team", "database": database})
    return Home(tmp_path / "works", where), Home(tmp_path / "watches", where)


def told(watch: Watch) -> dict[str, Any]:
    found = {
        figure.name: {" ".join(labels): value for labels, value in figure.values.items()} for figure in watch.figures()
    }
    return {name: values.get("", values) for name, values in found.items()}


def work(home: Home) -> None:
    """Publish small tables, and decide."""
    with home.lake.staging("raw_records") as staged:
        objects = f"copy (select 'o' as object_id, '{DAY}' as landed_on, null as error, null as withdrawn)"
        duckdb.execute(f"{objects} to '{staged / 'objects.parquet'}'")
        home.lake.publish("raw_records", "r1", staged)
    with home.lake.staging("marts") as staged:
        columns = "'o' as object_id, 3 as landed, 2 as valid, 1 as quarantined, 0 as duplicate"
        for name, selected in (("record_counts", columns), ("fct_records", f"timestamp '{DAY}' as received_at")):
            path = partition_file(staged, name, "all")
            duckdb.execute(f"copy (select {selected}) to '{path}'")
        home.lake.publish("marts", "m1", staged)
    append(home, "1")


def append(home: Home, key: str) -> None:
    about = {"version": "1", "training_id": "t1", "reasons": ["so"], "trained_to": DAY, "champion": None, "numbers": {}}
    ledger_of(home).append("verdict", key, DAY, {**about, "decision": "reject"})


def test_every_part_of_a_shared_home_is_readable_from_any_machine(machines: tuple[Home, Home]) -> None:
    works, watches = machines
    watch = Watch(parts_of(watches, load_settings("quick")))
    assert set(told(watch)["evergreen_part_readable"].values()) == {1}
    work(works)
    found = told(watch)
    assert set(found["evergreen_part_readable"].values()) == {1}
    assert found["evergreen_verdicts"]["reject"] == 1
    assert found["evergreen_records"] == {"landed": 3, "valid": 2, "quarantined": 1, "duplicate": 0}
    published = found["evergreen_publication_timestamp_seconds"]
    assert published.keys() == {"raw_records", "marts"}
    assert all(abs(time() - moment) < 600 for moment in published.values())


@pytest.fixture
def appending(machines: tuple[Home, Home]) -> Iterator[None]:
    """A process that holds the ledger's lock, with an entry that it has not committed."""
    works, _ = machines
    work(works)
    with psycopg.connect(str(works.environment.database)) as connection:
        connection.execute("select pg_advisory_lock(hashtext('evergreen.entries'))")
        connection.execute("insert into evergreen.entries values (2, 'failure', 'k', '', '{}', '')")
        yield
        connection.rollback()


@pytest.mark.usefixtures("appending")
def test_whoever_appends_is_not_waited_for(machines: tuple[Home, Home]) -> None:
    assert told(Watch(parts_of(machines[1], load_settings("quick"))))["evergreen_run_failures"] == 0


def test_a_new_entry_is_told_and_an_old_one_is_not_read_again(
    machines: tuple[Home, Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    works, watches = machines
    work(works)
    watch = Watch(parts_of(watches, load_settings("quick")))
    told(watch)
    with monkeypatch.context() as patched:
        patched.setattr("assets.watching.glance._SHARED", "select nonsense")
        assert told(watch)["evergreen_part_readable"]["decisions"] == 1
    append(works, "2")
    assert told(watch)["evergreen_verdicts"]["reject"] == 2
