"""What landed night by night, and the same files landed at once, are the same as of every day."""

import re
import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from assets.features.checks import check_landed, check_online, rows_at
from assets.features.serving import materialize, online_features
from assets.features.snapshot import build_training_set, with_features
from assets.features.store import definitions
from assets.home import Home
from assets.ingestion.landing import ingest
from assets.settings import IngestionSettings, load_settings
from assets.warehouse.project import build_marts, built
from complaints.simulation import simulate

START, DAYS, LATE = date(2024, 1, 1), 60, 15
NIGHTS, AFTERWARDS = ("2024-02-20", "2024-02-28", "2024-03-08"), "2024-03-20"
KEYS_TELL, LANDING_TELLS = (
    load_settings("quick").ingestion.model_copy(update={"published_in_key": pattern})
    for pattern in (r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)", "(?P<year>no)(?P<month>key)")
)
SETTINGS = load_settings("quick").snapshot.model_copy(update={"test_rows": 100, "min_train_rows": 100})


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a day, each named by the day on which it is delivered, 15 days after it was filed."""
    filed, folder = tmp_path_factory.mktemp("filed"), tmp_path_factory.mktemp("delivered")
    written = simulate(filed, START, START + timedelta(days=DAYS - 1), 30, 3, "calm", daily=True)
    for path in written.files:
        day = date.fromisoformat(re.findall(r"\d{4}-\d\d-\d\d", path.name)[0]) + timedelta(days=LATE)
        shutil.copyfile(path, folder / f"records-{day}.csv")
    return folder


def publish(home: Home, source: Path, as_of: str, settings: IngestionSettings) -> None:
    """As a night does, but for the audit."""
    ingest([str(source)], home.lake, settings, home.domain, as_of)
    build_marts(home)
    with home.lake.staging("marts") as folder:
        shutil.copytree(built(home), folder, dirs_exist_ok=True)
        home.lake.publish("marts", f"of-{as_of}", folder)


@pytest.fixture(scope="module")
def at_once(delivered: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("at-once"))
    publish(home, delivered, AFTERWARDS, KEYS_TELL)
    return home


def nights(home: Home, delivered: Path, source: Path) -> Iterator[str]:
    """Land each day's file on its day; give each of the nights, published."""
    source.mkdir()
    for path in sorted(delivered.iterdir()):
        day = path.stem.removeprefix("records-")
        shutil.copyfile(path, source / path.name)
        if day in NIGHTS:
            publish(home, source, day, LANDING_TELLS)
            yield day
        else:
            ingest([str(source)], home.lake, LANDING_TELLS, home.domain, day)


@pytest.mark.slow
def test_nights_and_one_landing_give_the_same_snapshots_and_what_is_served(
    delivered: Path, at_once: Home, tmp_path: Path
) -> None:
    home, ids = Home(tmp_path / "home"), []
    for night in nights(home, delivered, tmp_path / "source"):
        snapshot = build_training_set(home, night, SETTINGS)
        same = build_training_set(at_once, night, SETTINGS)
        assert snapshot.id == same.id
        assert check_landed(home, snapshot).passed
        assert check_landed(at_once, same).passed
        ids.append(snapshot.id)
        materialize(home, night)
        assert check_online(home, night).passed
        _serves_what_training_rows_get(home, at_once, night)
    assert len(set(ids)) == len(NIGHTS)


def _serves_what_training_rows_get(home: Home, later: Home, night: str) -> None:
    """The online store of a night, against training rows of that day by marts that know what came afterwards."""
    rows = rows_at(home.lake.current("marts"), datetime.fromisoformat(night), home.domain.known)
    features = list(definitions(home).features)
    online = online_features(home, rows)[features]
    table = pa.Table.from_pandas(rows, preserve_index=False)
    trained = with_features(later, later.lake.current("marts"), table, tuple(features)).to_pandas()[features]
    pd.testing.assert_frame_equal(online, trained, check_dtype=False)
    assert online["company_records_7d"].max() == 0
    assert online["company_records_30d"].max() > 5
