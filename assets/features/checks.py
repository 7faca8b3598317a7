"""Checks that a training set and the online store are what they claim, by code independent of what built them.

Nothing here uses the offline store's joins or the search for near duplicates: features are looked up again by plain
SQL over the marts, rows and statistics by other SQL over the raw records as they landed, and texts are compared by
regular expressions and sets.
"""

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from assets.as_of import instant
from assets.duck import connect
from assets.features.landed import open_landed
from assets.features.repository import statistics
from assets.features.serving import Place, online_features, online_store, served
from assets.features.snapshot import Snapshot, with_features
from assets.features.store import definitions, open_store
from assets.home import Home
from assets.settings import Domain
from assets.warehouse.marts import mart

__all__ = [
    "Finding",
    "check_canary",
    "check_columns",
    "check_labels",
    "check_landed",
    "check_online",
    "check_overlap",
    "check_point_in_time",
    "check_rows",
    "check_shift",
    "check_training_set",
    "rows_at",
]

SAMPLE_ROWS = 600
"""Rows whose features are looked up again."""

RECOUNTED_ROWS = 200
"""Rows whose statistics are counted again from the raw records."""

BRUTE_FORCE_ROWS = 200
"""Rows of each side whose shingles are compared pair by pair."""

_PARTS = ("train", "test", "reference")


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: `faults` of `examined`, and what a fault is, in words."""

    name: str
    examined: int
    faults: int
    fault: str

    @property
    def passed(self) -> bool:
        """Whether there are no faults; a check that examined nothing fails."""
        return self.examined > 0 and self.faults == 0

    @property
    def sentence(self) -> str:
        return f"{self.faults:,} {self.fault}, of {self.examined:,} examined"


def check_training_set(home: Home, snapshot: Snapshot) -> list[Finding]:
    """All checks of a training set, the worst fault first."""
    return [
        check_landed(home, snapshot),
        # Without entities there is nothing to look up.
        *([check_point_in_time(home, snapshot)] if home.domain.entities else []),
        check_canary(home, snapshot),
        check_shift(home, snapshot),
        check_labels(snapshot),
        check_overlap(snapshot),
        check_columns(snapshot),
        check_rows(home, snapshot),
    ]


def check_landed(home: Home, snapshot: Snapshot) -> Finding:
    """Every row is the version that had landed by as-of; sampled statistics count what had landed by the day before.

    Half of the sample is of entities with corrected records: late arrivals would show there.
    """
    rows = pd.concat(_read(snapshot, [*home.domain.columns, *snapshot.features]), ignore_index=True)
    with open_landed(home, snapshot) as landed:
        faults = landed.other_rows(rows[list(home.domain.columns)], snapshot.as_of)
        columns = ("record_id", *home.domain.entities)
        doubtful = np.logical_or.reduce([rows[name].isin(landed.corrected(name)) for name in columns])
        sampled = _sample(rows[doubtful], RECOUNTED_ROWS // 2), _sample(rows, RECOUNTED_ROWS // 2)
        sample = pd.concat(sampled, ignore_index=True)
        for key in home.domain.entities:
            expected = landed.statistics(key, sample[_row(home)])
            actual = sample[list(expected.columns)].to_numpy(np.float64)
            faults += _differences(actual, expected.to_numpy(np.float64, na_value=np.nan))
    return Finding("as_it_had_landed", len(rows), faults, "rows or values that differ from what had landed")


def check_point_in_time(home: Home, snapshot: Snapshot) -> Finding:
    """Every statistic of sampled rows equals the last row before the record was received."""
    marts = home.lake.path("marts", snapshot.manifest["marts"])
    rows = _sample(pd.concat(_read(snapshot, [*_row(home), *snapshot.features])), SAMPLE_ROWS)
    faults = 0
    for key in home.domain.entities:
        names = _statistics(home.domain, key)
        expected = _look_up(mart(marts, f"{key}_daily"), key, names, rows)
        faults += _differences(rows[names].to_numpy(np.float64), expected)
    return Finding("point_in_time", len(rows), faults, "values that differ from an independent look-up")


def check_shift(home: Home, snapshot: Snapshot) -> Finding:
    """Rows moved to a day earlier get the statistics of a day earlier, and not all of them are the same.

    Features of the record itself are the same on any day, and whatever rows they are computed with.
    """
    marts, columns = home.lake.path("marts", snapshot.manifest["marts"]), [*_row(home), *definitions(home).request]
    columns = list(dict.fromkeys([*columns, *definitions(home).entities]))
    rows = _sample(pd.concat(_read(snapshot, [*columns, *snapshot.features])), SAMPLE_ROWS)
    earlier = rows.assign(known_at=rows["known_at"] - pd.Timedelta(days=1))
    joined = with_features(home, marts, pa.Table.from_pandas(earlier[columns], preserve_index=False), snapshot.features)
    faults, changed = 0, 0
    for key in home.domain.entities:
        names = _statistics(home.domain, key)
        shifted = joined.select(names).to_pandas().to_numpy(np.float64)
        faults += _differences(shifted, _look_up(mart(marts, f"{key}_daily"), key, names, earlier))
        changed += _differences(shifted, rows[names].to_numpy(np.float64))
    shown = _shown(home)
    faults += _differences(joined.select(shown).to_pandas().to_numpy(np.float64), rows[shown].to_numpy(np.float64))
    follows = changed > 0 or not home.domain.entities
    return Finding(
        "shifted_by_a_day", len(rows), faults if follows else len(rows), "values that do not follow the date"
    )


def check_canary(home: Home, snapshot: Snapshot) -> Finding:
    """A planted value that became known only after as-of is null; one known all along is there."""
    rows = _sample(pd.concat(_read(snapshot, _row(home))), SAMPLE_ROWS)
    after = instant(snapshot.as_of) + timedelta(days=1)
    long_ago = rows["known_at"].min().to_pydatetime() - timedelta(days=1)
    # Per record: a value known long before, without a canary; a canary of the future; and one that arrives in it.
    planted = [
        row
        for name in rows["record_id"]
        for row in (
            (name, long_ago, long_ago, 1, None),
            (name, after, after, None, 1),
            (name, long_ago, after, None, 1),
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "canary.parquet"
        columns = list(zip(*planted, strict=True))
        names = ["record_id", "event_timestamp", "created_timestamp", "known", "canary"]
        pq.write_table(pa.table(columns, names=names), source)
        joined = _join_canary(home, source, rows)
    faults = int(((joined["known"] != 1) | joined["canary"].notna()).sum())
    return Finding("future_canary_is_null", len(rows), faults, "rows that see a value of the future")


def check_rows(home: Home, snapshot: Snapshot) -> Finding:
    """There are as many rows as usable records in the period, less those removed as duplicates."""
    marts = home.lake.path("marts", snapshot.manifest["marts"])
    test_from, _ = snapshot.manifest["period"].get("test", (snapshot.as_of, None))
    usable = """
        select count(*) filter (known_at < $test_from or not $holds_out),
               count(*) filter (known_at >= $test_from and $holds_out)
        from read_parquet($path)
        where known_at <= $as_of and coalesce(known_until > $as_of, true) and label_known_at <= $as_of
            and label is not null and regexp_matches(text, '[^ \\t\\r\\n]')
    """
    as_of, day = instant(snapshot.as_of), instant(test_from)
    parameters = {"path": mart(marts, "fct_records"), "as_of": as_of, "test_from": day}
    parameters |= {"holds_out": snapshot.holds_out}
    with connect() as connection:
        ((before, within),) = connection.execute(usable, parameters).fetchall()
    usable_before = min(before, snapshot.manifest["settings"]["max_train_rows"])
    removed = sum(snapshot.manifest["removed"].values())
    train, test, reference = (pq.read_metadata(snapshot.path / f"{part}.parquet").num_rows for part in _PARTS)
    missing = abs(usable_before - removed - train - reference) + abs(within - test)
    return Finding("rows_conserved", usable_before + within, missing, "rows lost or added")


def check_overlap(snapshot: Snapshot) -> Finding:
    """No record is both trained and tested on, no texts start alike, and no sampled pair is similar."""
    train, *others = _read(snapshot, ["record_id", "text"])
    test = pd.concat(others)
    same = len(set(train["record_id"]) & set(test["record_id"]))
    starts = {start for text in test["text"] if (start := _start(text))}
    same += sum(_start(text) in starts for text in train["text"])
    threshold = snapshot.manifest["settings"]["near_duplicate_similarity"]
    ours = [_shingles(text) for text in _sample(train, BRUTE_FORCE_ROWS)["text"]]
    theirs = [_shingles(text) for text in _sample(test, BRUTE_FORCE_ROWS)["text"]]
    same += sum(len(a & b) >= threshold * len(a | b) for a in ours for b in theirs if a and b)
    return Finding("no_overlap", len(train) + len(test), same, "train rows that test rows repeat")


def check_labels(snapshot: Snapshot) -> Finding:
    """Every row and its label are known by as-of, and every test row is of a later day than every train row."""
    train, test, reference = _read(snapshot, ["known_at", "label_known_at", "label"])
    as_of = instant(snapshot.as_of)
    rows = pd.concat([train, test, reference])
    faults = int(((rows["label_known_at"] > as_of) | (rows["known_at"] > as_of) | rows["label"].isna()).sum())
    faults += int((train["known_at"] >= test["known_at"].dt.floor("D").min()).sum())
    return Finding("labels_known", len(rows), faults, "rows or labels from after as-of, or on the wrong side")


def check_columns(snapshot: Snapshot) -> Finding:
    """There are only the contract's columns and the features; none of them is an outcome or named after one."""
    domain = snapshot.domain
    names = [name for part in _PARTS for name in pq.read_schema(snapshot.path / f"{part}.parquet").names]
    expected = {*domain.columns, *snapshot.features}
    # Statistics are named after entities and labels, whose names an outcome may share.
    counted = {name for entity in domain.entities for name in _statistics(domain, entity)}
    outcome = re.compile(rf"(^|_)({'|'.join(domain.outcomes)})(_|$)")
    late = {name for name in names if outcome.search(name)} - counted - set(domain.columns)
    faults = sum(name not in expected or name in late for name in names)
    faults += "label" in snapshot.features
    return Finding("no_outcome_columns", len(names), faults, "columns known only with the label, or later")


def check_online(home: Home, as_of: str, place: Place | None = None) -> Finding:
    """For sampled keys, the online store in a place serves what the offline store joins as of the date.

    Without a place it is the one in use.
    """
    place = place or served(home)
    store = online_store(place)
    marts = home.lake.path("marts", store.marts)
    rows = rows_at(marts, instant(as_of), home.domain.known)
    features = definitions(home).features
    offline = with_features(home, marts, pa.Table.from_pandas(rows, preserve_index=False), features).to_pandas()
    online = online_features(home, rows, place)
    faults = _differences(online[list(features)].to_numpy(), offline[list(features)].to_numpy(np.float64))
    faults += store.as_of != as_of
    return Finding(
        "online_equals_offline", len(rows), faults, "values that differ between the online and offline stores"
    )


def _row(home: Home) -> list[str]:
    """The columns of a row that a look-up needs."""
    return ["record_id", "known_at", *home.domain.entities]


def _statistics(domain: Domain, entity: str) -> list[str]:
    return [statistic.name for statistic in statistics(entity, domain.labels)]


def _shown(home: Home) -> list[str]:
    """Features of the record itself: those of on-demand views that read no other view."""
    views = open_store(home).list_on_demand_feature_views()
    return [field.name for view in views if not view.source_feature_view_projections for field in view.features]


def _read(snapshot: Snapshot, columns: list[str]) -> list[pd.DataFrame]:
    return [pd.read_parquet(snapshot.path / f"{part}.parquet", columns=columns) for part in _PARTS]


def _sample(rows: pd.DataFrame, size: int) -> pd.DataFrame:
    """The same rows every time, in any order: those with the smallest hashes of their ids."""
    order = pd.util.hash_array(rows["record_id"].to_numpy(object)).argsort(kind="stable")
    return rows.iloc[order[:size]].reset_index(drop=True)


def _look_up(path: str, key: str, names: list[str], rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    columns = ", ".join(f'daily."{name}"' for name in names)
    sql = f"""
        select {columns}
        from rows left join read_parquet($path) daily
            on daily.{key} = rows.{key} and daily.event_timestamp = (
                select max(earlier.event_timestamp) from read_parquet($path) earlier
                where earlier.{key} = rows.{key} and earlier.event_timestamp <= rows.known_at
            )
        order by rows.position
    """  # noqa: S608 - names come from the snapshot's own manifest
    with connect() as connection:
        connection.register("rows", rows.assign(position=range(len(rows))))
        statistics: pd.DataFrame = connection.execute(sql, {"path": path}).df()
    return statistics.to_numpy(np.float64)


def _differences(actual: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> int:
    assert actual.shape == expected.shape
    return int((~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))).sum())


def _join_canary(home: Home, source: Path, rows: pd.DataFrame) -> pd.DataFrame:
    store = open_store(home)
    from feast import Entity, FeatureView, Field, FileSource
    from feast.types import Int64, String
    from feast.value_type import ValueType

    view = FeatureView(
        name="canary",
        entities=[Entity(name="record_id", join_keys=["record_id"], value_type=ValueType.STRING)],
        schema=[
            Field(name="record_id", dtype=String),
            *(Field(name=name, dtype=Int64) for name in ("known", "canary")),
        ],
        source=FileSource(
            path=str(source), timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
        ),
    )
    job = store.provider.get_historical_features(
        config=store.config,
        feature_views=[view],
        feature_refs=["canary:known", "canary:canary"],
        entity_df=rows.rename(columns={"known_at": "event_timestamp"}),
        registry=store.registry,
        project=store.project,
        full_feature_names=False,
    )
    joined: pd.DataFrame = job.to_df()
    return joined


def rows_at(marts: Path, as_of: datetime, known: Sequence[str]) -> pd.DataFrame:
    """These columns of sampled records visible as of a date, as if each had been received then."""
    columns = ", ".join(("record_id", "text", *known))
    sql = f"""
        select {columns}, $as_of::timestamp as known_at
        from read_parquet($path)
        where known_at <= $as_of and coalesce(known_until > $as_of, true) and record_id in (
            select record_id from read_parquet($path) where known_at <= $as_of order by md5(record_id) limit $rows
        )
    """  # noqa: S608 - constants
    parameters = {"path": mart(marts, "fct_records"), "as_of": as_of, "rows": SAMPLE_ROWS}
    with connect() as connection:
        rows: pd.DataFrame = connection.execute(sql, parameters).df()
    return rows


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z\x80-\U0010ffff]+", text.lower()) if set(word) != {"x"}]


def _start(text: str) -> str:
    beginning = " ".join(_words(text[:240]))
    # The last word may be cut, but not before its 120th character.
    return (beginning if len(beginning) > 120 else " ".join(_words(text)))[:120]


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return set(_windows(words)) if words else set()


def _windows(words: list[str]) -> Iterable[tuple[str, ...]]:
    return (tuple(words[place : place + 5]) for place in range(max(1, len(words) - 4)))
