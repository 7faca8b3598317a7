"""The ASOF join against brute force: late arrivals, ttl, ties and keys without history."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.features.store import apply_definitions, open_store
from assets.home import Home

START = datetime(2021, 1, 1)
Row = tuple[str, datetime, datetime, int]


def hours(rng: random.Random, most: int) -> timedelta:
    return timedelta(hours=rng.randint(0, most))


@pytest.fixture
def history() -> list[Row]:
    """Three values a day for four companies, a fifth of them up to ten days late; of equals the last one counts."""
    rng = random.Random(1)
    rows = []
    for value in range(600):
        event = START + timedelta(days=value // 12) + hours(rng, 23)
        created = event + (hours(rng, 240) if rng.random() < 0.2 else timedelta())
        rows.append((rng.choice("ABCD"), event, created, value))
    return rows


@pytest.fixture
def entities() -> pd.DataFrame:
    rng = random.Random(2)
    companies = [rng.choice("ABCDE") for _ in range(400)]
    instants = [START + hours(rng, 24 * 70) - timedelta(days=5) for _ in companies]
    return pd.DataFrame({"company": companies, "event_timestamp": instants, "note": range(len(companies))})


def write(path: Path, history: list[Row]) -> Path:
    columns = list(zip(*history, strict=True))
    pq.write_table(pa.table(columns, names=["company", "event", "created", "value"]), path)
    return path


def join(home: Home, path: Path, entities: pd.DataFrame, ttl: timedelta | None, created: bool) -> pd.DataFrame:
    apply_definitions(home)
    store = open_store(home)
    from feast import FeatureView, Field, FileSource
    from feast.types import Int64

    source = FileSource(path=str(path), timestamp_field="event", created_timestamp_column="created" if created else "")
    fields = [Field(name="value", dtype=Int64)]
    view = FeatureView(name="view", entities=[store.get_entity("company")], schema=fields, source=source, ttl=ttl)
    view.entity_columns = store.get_feature_view("company_statistics").entity_columns
    job = store.provider.get_historical_features(
        store.config, [view], ["view:value"], entities, store.registry, store.project, False
    )
    frame: pd.DataFrame = job.to_df()
    return frame


def expected(history: list[Row], entities: pd.DataFrame, ttl: timedelta | None, created: bool) -> Iterator[Any]:
    for entity in entities.itertuples():
        known = [
            (event, arrived if created else event, value)
            for company, event, arrived, value in history
            if company == entity.company and event <= entity.event_timestamp
            if not created or arrived <= entity.event_timestamp
        ]
        event, _, value = max(known, default=(None, None, None))
        yield value if event is not None and (ttl is None or entity.event_timestamp - event <= ttl) else None


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("ttl", [None, timedelta(0), timedelta(hours=7), timedelta(days=3)])
def test_join_equals_brute_force(
    home: Home, tmp_path: Path, history: list[Row], entities: pd.DataFrame, ttl: timedelta | None, created: bool
) -> None:
    found = join(home, write(tmp_path / "h.parquet", history), entities, ttl, created)
    wanted = list(expected(history, entities, ttl or None, created))
    assert [None if pd.isna(value) else value for value in found["value"]] == wanted
    assert None in wanted
    assert len(set(wanted)) > 50


def test_rows_keep_their_order_and_their_other_columns(
    home: Home, tmp_path: Path, history: list[Row], entities: pd.DataFrame
) -> None:
    found = join(home, write(tmp_path / "h.parquet", history), entities, None, True)
    assert found["note"].tolist() == list(range(len(entities)))


def test_a_value_that_arrives_late_is_seen_from_its_arrival(home: Home, tmp_path: Path) -> None:
    late = START + timedelta(days=4)
    path = write(tmp_path / "h.parquet", [("A", START, START, 1), ("A", START + timedelta(days=1), late, 2)])
    instants = [late - timedelta(microseconds=1), late]
    found = join(home, path, pd.DataFrame({"company": ["A", "A"], "event_timestamp": instants}), None, True)
    assert found["value"].tolist() == [1, 2]


def test_materialisation_pulls_the_newest_known_value_of_each_key(
    home: Home, tmp_path: Path, history: list[Row]
) -> None:
    apply_definitions(home)
    store = open_store(home)
    from feast import FileSource

    source = FileSource(path=str(write(tmp_path / "h.parquet", history)), timestamp_field="event")
    as_of = START + timedelta(days=20)
    pull = store.provider.offline_store.pull_latest_from_table_or_query
    found = pull(store.config, source, ["company"], ["value"], "event", "created", START, as_of).to_df()
    at = pd.DataFrame({"company": list("ABCD"), "event_timestamp": [as_of] * 4})
    assert found["value"].tolist() == list(expected(history, at, None, True))


def test_of_the_same_instant_materialisation_pulls_the_last_row_of_the_last_file(home: Home, tmp_path: Path) -> None:
    apply_definitions(home)
    store = open_store(home)
    from feast import FileSource

    write(tmp_path / "a.parquet", [("A", START, START, 1), ("B", START, START, 2), ("C", START, START, 3)])
    write(tmp_path / "b.parquet", [("A", START, START, 4), ("A", START, START, 5), ("B", START, START, None)])
    source = FileSource(path=str(tmp_path / "*.parquet"), timestamp_field="event")
    pull = store.provider.offline_store.pull_latest_from_table_or_query
    found = pull(store.config, source, ["company"], ["value"], "event", "created", START, START).to_arrow()
    assert found.to_pydict() == {
        "company": ["A", "B", "C"], "value": [5, None, 3], "event": [START] * 3, "created": [START] * 3
    }  # fmt: skip


def test_a_repository_that_renames_columns_is_refused(home: Home, tmp_path: Path, history: list[Row]) -> None:
    apply_definitions(home)
    store = open_store(home)
    from feast import FileSource

    source = FileSource(path="h.parquet", timestamp_field="event", field_mapping={"a": "b"})
    with pytest.raises(ValueError, match="rename the columns"):
        store.provider.validate_data_source(store.config, source)
