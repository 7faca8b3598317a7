"""Training sets: rows with features as of each row's own instant, frozen under the hash of their content.

The lake table `training_set/<as_of>` has a version per content: train.parquet, test.parquet, reference.parquet and
manifest.json. Reference rows are a fixed share of all texts, by a hash of their starts: no training ever sees them,
whatever its as-of, so champions of different times can be compared on them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.as_of import instant
from assets.duck import connect
from assets.exceptions import NotPublished, SnapshotError
from assets.features.content import content_hash
from assets.features.duplicates import find_duplicates, hash_starts
from assets.features.kept_out import is_reserved
from assets.features.split import Split, split_by_time
from assets.features.store import SERVICE, Definitions, apply_definitions, definitions, open_store
from assets.hashing import hash_file, hash_json
from assets.home import Home
from assets.ingestion.landing import withdrawn_objects
from assets.lake import Lake
from assets.settings import Domain, SnapshotSettings
from assets.warehouse.marts import counted_objects, mart, visible

__all__ = [
    "Snapshot",
    "build_refit_set",
    "build_training_set",
    "count_again",
    "load_snapshot",
    "pick_rows",
    "read_snapshot",
    "rebuild_training_set",
    "row_schema",
    "with_features",
]

_PARTS = ("train", "test", "reference")


@dataclass(frozen=True)
class Snapshot:
    """An immutable training set: rows ordered by (known_at, record_id), train and reference before test."""

    id: str
    """The first 16 hex digits of a SHA-256 over the feature names and every row, in order."""
    as_of: str
    path: Path
    features: tuple[str, ...]
    train_rows: int
    test_rows: int
    reference_rows: int
    manifest: dict[str, Any]

    @cached_property
    def domain(self) -> Domain:
        """The domain of the rows."""
        return Domain.model_validate(self.manifest["domain"])

    @property
    def labels(self) -> tuple[str, ...]:
        """The possible labels, in the order of a model's outputs."""
        return tuple(self.domain.labels)

    @property
    def holds_out(self) -> bool:
        """Whether the newest rows are held out as a test part; the training set of a refit trains on them."""
        return bool(self.manifest.get("holds_out", True))

    def train(self) -> pd.DataFrame:
        """The rows to train on: the domain's columns, then float64 features, NaN where not known."""
        return pd.read_parquet(self.path / "train.parquet")

    def test(self) -> pd.DataFrame:
        """The rows to test on, all known later than every train row."""
        return pd.read_parquet(self.path / "test.parquet")

    def reference(self) -> pd.DataFrame:
        """The older rows that no training ever sees."""
        return pd.read_parquet(self.path / "reference.parquet")


def build_training_set(
    home: Home, as_of: str, settings: SnapshotSettings, accept: Callable[[Snapshot], bool] = lambda _: True
) -> Snapshot:
    """Freeze the training set as of a date and publish it when `accept`, called with it first, returns true.

    A published one built from the same inputs is reused. Raises NotPublished without marts, SnapshotError when there
    are too few rows, and Superseded when another run has published one meanwhile.
    """
    previous = home.lake.version(_table(as_of))
    marts = home.lake.current("marts")
    applied = apply_definitions(home)
    inputs = _inputs(marts, as_of, settings, applied, home.domain)
    snapshot = _published(home.lake, as_of, inputs) or _freeze(home, as_of, settings, marts, applied, inputs)
    if accept(snapshot):
        home.lake.point(_table(as_of), snapshot.id, previous)
    return snapshot


def rebuild_training_set(home: Home, recorded: Snapshot, marts: Path) -> Snapshot:
    """Freeze a training set again, in another home, with its own settings and from the marts in a folder."""
    return _freeze_again(home, recorded, marts, recorded.holds_out)


def build_refit_set(home: Home, evaluated: Snapshot) -> Snapshot:
    """Freeze the rows of a training set again, with its test rows among the train rows, and keep it as well.

    Only the reference rows are held out. If an object was withdrawn since, or records were forgotten, the rows come
    from today's marts as of that day. Raises NotPublished when the marts it was built from are gone, and SnapshotError
    when features have changed since.
    """
    marts = home.lake.path("marts", evaluated.manifest["marts"])
    if not marts.exists():
        raise NotPublished(f"marts {marts.name}, which training set {evaluated.id} was built from, are gone")
    if marts.name != evaluated.manifest["marts"] or counted_objects(marts) & withdrawn_objects(home.lake):
        marts = home.lake.current("marts")
    refit = _freeze_again(home, evaluated, marts, holds_out=False)
    if refit.features != evaluated.features:
        raise SnapshotError(f"the features have changed since training set {evaluated.id} of {evaluated.as_of}")
    return refit


def _freeze_again(home: Home, recorded: Snapshot, marts: Path, holds_out: bool) -> Snapshot:
    settings = SnapshotSettings.model_validate(recorded.manifest["settings"])
    applied = apply_definitions(home)
    inputs = _inputs(marts, recorded.as_of, settings, applied, home.domain)
    return _freeze(home, recorded.as_of, settings, marts, applied, inputs, holds_out)


def read_snapshot(lake: Lake, as_of: str, snapshot_id: str) -> Snapshot:
    """A training set of an as-of date, published or not. Raises NotPublished when it does not exist."""
    path = lake.path(_table(as_of), snapshot_id)
    if not path.exists():
        raise NotPublished(f"training_set/{as_of} has no version {snapshot_id} in this home")
    return _read(path, as_of)


def _published(lake: Lake, as_of: str, inputs: str) -> Snapshot | None:
    """The published training set, if it was built from these inputs."""
    current = load_snapshot(lake, as_of) if lake.version(_table(as_of)) is not None else None
    return current if current is not None and current.manifest["inputs"] == inputs else None


def _freeze(
    home: Home,
    as_of: str,
    settings: SnapshotSettings,
    marts: Path,
    applied: Definitions,
    inputs: str,
    holds_out: bool = True,
) -> Snapshot:
    (train, test, reference), removed, starts = pick_rows(marts, as_of, settings, home.domain.columns, holds_out)
    if train.num_rows < settings.min_train_rows:
        raise SnapshotError(
            f"{train.num_rows} records to train on as of {as_of} remain without near duplicates of the "
            f"{test.num_rows} test rows; snapshot.min_train_rows = {settings.min_train_rows}: ingest more or lower it"
        )
    joined = with_features(home, marts, pa.concat_tables([train, test, reference]), applied.features)
    train_and_test = train.num_rows + test.num_rows
    parts = {
        "train": joined.slice(0, train.num_rows),
        "test": joined.slice(train.num_rows, test.num_rows),
        "reference": joined.slice(train_and_test),
    }
    manifest: dict[str, Any] = {"inputs": inputs, "marts": marts.name, "settings": settings.model_dump()}
    manifest |= {"removed": removed, "removed_starts": starts, "holds_out": holds_out}
    return _keep(home, as_of, parts, applied.features, manifest)


def load_snapshot(lake: Lake, as_of: str) -> Snapshot:
    """The training set published as of a date. Raises NotPublished."""
    return _read(lake.current(_table(as_of)), as_of)


def _read(path: Path, as_of: str) -> Snapshot:
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return Snapshot(
        id=manifest["snapshot_id"],
        as_of=as_of,
        path=path,
        features=tuple(manifest["features"]),
        train_rows=manifest["train_rows"],
        test_rows=manifest["test_rows"],
        reference_rows=manifest["reference_rows"],
        manifest=manifest,
    )


def with_features(home: Home, marts: Path, rows: pa.Table, features: tuple[str, ...]) -> pa.Table:
    """Rows with the feature service's columns appended, joined by Feast as of each row's `known_at`."""
    store = open_store(home, marts=marts)
    applied = definitions(home)
    request = list(applied.request)
    entities = rows.select(list(dict.fromkeys(["record_id", "known_at", *applied.entities, *request]))).to_pandas()
    # Feast infers types from values, so a missing text is an empty one, both offline and online.
    entities[request] = entities[request].fillna("")
    entities = entities.rename(columns={"known_at": "event_timestamp"})
    job = store.get_historical_features(entity_df=entities, features=store.get_feature_service(SERVICE))
    joined = job.to_arrow()
    if not joined["record_id"].equals(rows["record_id"]):
        raise SnapshotError("Feast returned other rows than it was given")
    for name in features:
        rows = rows.append_column(name, joined[name].cast(pa.float64()))
    return rows


def _inputs(marts: Path, as_of: str, settings: SnapshotSettings, applied: Definitions, domain: Domain) -> str:
    """A hash of everything that a training set is a function of."""
    code = {path.name: hash_file(path) for path in Path(__file__).parent.glob("*.py")}
    return hash_json(
        {
            "as_of": as_of,
            "marts": marts.name,
            "definitions": applied.digest,
            "columns": domain.columns,
            "labels": list(domain.labels),
            "settings": settings.model_dump(),
            "code": code,
        }
    )


def pick_rows(
    marts: Path, as_of: str, settings: SnapshotSettings, columns: tuple[str, ...], holds_out: bool = True
) -> tuple[tuple[pa.Table, pa.Table, pa.Table], dict[str, int], list[int]]:
    """The train, test and reference rows of a training set, with only `columns`, from the marts in a folder.

    Also how many rows were removed from train, by reason, and the hashed starts of those removed because of the others.
    Without `holds_out` the newest rows are train rows, and there is no test part. Raises SnapshotError when there are
    too few rows.
    """
    split, picked = _pick(marts, as_of, settings, columns)
    is_test = pc.greater_equal(picked["known_at"], pa.scalar(split.test_from, pa.date32()).cast(pa.timestamp("us")))
    if holds_out:
        before, test = picked.filter(pc.invert(is_test)), picked.filter(is_test)
    else:
        before, test = picked.slice(max(0, picked.num_rows - settings.max_train_rows)), picked.slice(0, 0)
    before, reference, reserved = _set_aside(before, settings)
    train, removed, starts = _without_duplicates(before, pa.concat_tables([test, reference]), settings)
    train, removed["copies"] = _without_copies(train, settings)
    parts = train.select(columns), test.select(columns), reference.select(columns)
    return parts, removed | {"reserved": reserved}, starts


def _pick(marts: Path, as_of: str, settings: SnapshotSettings, columns: tuple[str, ...]) -> tuple[Split, pa.Table]:
    """The split, and its rows in order, with a hash of each text's start.

    Columns that are cheap to read select the rows first, so that few texts are read.
    """
    # The first characters decide for nearly every text, which saves copying all of it.
    has_text = "(trim(left(text, 16), $blanks) <> '' or trim(text, $blanks) <> '')"
    labelled = "label is not null and label_known_at <= $as_of"
    usable = f"from read_parquet($path) records where {visible('records', '$as_of')} and {labelled} and {has_text}"
    newest = "known_at >= $train_from and (known_at, record_id) >= ($oldest_at, $oldest_id)"
    parameters = {"path": mart(marts, "fct_records"), "as_of": instant(as_of)}
    parameters |= {"blanks": " \t\r\n"}
    with connect(memory_limit="1GB") as connection:
        connection.execute(f"create temp table usable as select record_id, known_at {usable}", parameters)
        days = connection.execute("select known_at::date, count(*) from usable group by all order by all").fetchall()
        split = split_by_time(days, settings, as_of)
        newest_first = "from usable order by known_at desc, record_id desc limit 1 offset ?"
        ((oldest_id, oldest_at),) = connection.execute(
            newest_first, [split.train_rows + split.test_rows - 1]
        ).fetchall()
        parameters |= {"train_from": split.train_from, "oldest_at": oldest_at, "oldest_id": oldest_id}
        picked = f"select {', '.join(columns)} {usable} and {newest}"
        rows: pa.Table = connection.sql(picked, params=parameters).to_arrow_table()
    assert len(rows) == split.train_rows + split.test_rows
    rows = rows.cast(row_schema(columns)).sort_by([("known_at", "ascending"), ("record_id", "ascending")])
    return split, rows.append_column("start", pa.array(hash_starts(rows["text"])))


def row_schema(columns: tuple[str, ...]) -> pa.Schema:
    """The Arrow types of a domain's columns."""
    kinds = {"known_at": pa.timestamp("us"), "label_known_at": pa.timestamp("us"), "text": pa.large_string()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in columns])


def _set_aside(rows: pa.Table, settings: SnapshotSettings) -> tuple[pa.Table, pa.Table, int]:
    """The rows to train on, the reference rows, and the number of other texts that no training sees.

    The reserved texts with the smallest hashes are the reference: with more rows it hardly changes.
    """
    hashes = np.asarray(rows["start"])
    reserved = is_reserved(hashes, settings.reference_share)
    order = np.lexsort((np.asarray(rows["record_id"]), hashes))
    chosen = np.sort(order[reserved[order]][: settings.reference_rows])
    return rows.filter(pa.array(~reserved)), rows.take(pa.array(chosen)), int(reserved.sum()) - len(chosen)


def _without_duplicates(
    train: pa.Table, others: pa.Table, settings: SnapshotSettings
) -> tuple[pa.Table, dict[str, int], list[int]]:
    """Train rows without those whose record or near duplicate others have; their number by reason, and their starts."""
    same_record = np.asarray(pc.is_in(train["record_id"], value_set=others["record_id"].combine_chunks()))
    duplicates = find_duplicates(train, others, settings.near_duplicate_similarity)
    removed = {
        "same_record": int(same_record.sum()),
        "same_start": int((duplicates.same_start & ~same_record).sum()),
        "similar": int((duplicates.similar & ~same_record).sum()),
    }
    is_removed = same_record | duplicates.any
    starts = np.unique(np.asarray(train["start"])[is_removed])
    return train.filter(pa.array(~is_removed)), removed, starts.tolist()


def _without_copies(train: pa.Table, settings: SnapshotSettings) -> tuple[pa.Table, int]:
    """Of the rows that start alike, the newest `max_copies`; and the number of others."""
    if settings.max_copies is None:
        return train, 0
    letters = pd.Series(np.asarray(train["start"]))
    is_newest = letters.groupby(letters).cumcount(ascending=False) < settings.max_copies
    return train.filter(pa.array(is_newest)), int((~is_newest).sum())


def _keep(
    home: Home, as_of: str, parts: dict[str, pa.Table], features: tuple[str, ...], manifest: dict[str, Any]
) -> Snapshot:
    manifest |= _facts(parts, home.domain, features)
    manifest |= {"as_of": as_of, "features": list(features), "domain": home.domain.model_dump(mode="json")}
    with home.lake.staging(_table(as_of)) as staged:
        for name, part in parts.items():
            pq.write_table(part, staged / f"{name}.parquet", compression="zstd")
        (staged / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
        return _read(home.lake.keep(_table(as_of), manifest["snapshot_id"], staged), as_of)


def count_again(folder: Path, because: dict[str, Any]) -> str:
    """The new id of a training set whose files have lost rows, once its manifest says so, and `because` of what."""
    path = folder / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    files = {name: folder / f"{name}.parquet" for name in _PARTS}
    parts = {name: pq.read_table(file) for name, file in files.items() if file.exists()}
    lost = {name: manifest[f"{name}_rows"] - part.num_rows for name, part in parts.items()}
    manifest["lost"] = [*manifest.get("lost", []), {"id": manifest["snapshot_id"], "rows": lost, **because}]
    manifest |= _facts(parts, Domain.model_validate(manifest["domain"]), manifest["features"])
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    return str(manifest["snapshot_id"])


def _facts(parts: dict[str, pa.Table], domain: Domain, features: Sequence[str]) -> dict[str, Any]:
    """The part of a manifest that follows from the rows."""
    return {
        "snapshot_id": content_hash(parts, domain.columns, features),
        **{f"{name}_rows": part.num_rows for name, part in parts.items()},
        "label_mix": {name: _label_mix(part, domain) for name, part in parts.items()},
        "period": {
            name: [_day(pc.min(parts[name]["known_at"])), _day(pc.max(parts[name]["known_at"]))]
            for name in ("train", "test")
            if parts[name].num_rows
        },
    }


def _label_mix(part: pa.Table, domain: Domain) -> dict[str, int]:
    return {label: pc.sum(pc.equal(part["label"], label)).as_py() or 0 for label in domain.labels}


def _day(instant: pa.Scalar) -> str:
    return str(instant.as_py().date())


def _table(as_of: str) -> str:
    return f"training_set/{as_of}"
