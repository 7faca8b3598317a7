"""The lake table `predictions/<as-of>`: every record of the window, scored once by the champion.

predictions.parquet   record_id, as_of, predicted, confidence, model_version, reason, and the features used
manifest.json         the model version, its snapshot's id and as-of, and the numbers of rows
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from assets.as_of import instant
from assets.cluster.jobs import RunJob, run_job
from assets.duck import connect
from assets.exceptions import BundleError
from assets.features.serving import online_features, pinned
from assets.features.store import definitions
from assets.hashing import hash_json
from assets.home import Home
from assets.registry.registry import RegisteredVersion
from assets.scoring.bulk import Bulk
from assets.scoring.golden import GoldenAnswers, answer_golden_rows, require_agreement
from assets.scoring.parts import resumable
from assets.scoring.score import answer_rows, answers_schema
from assets.settings import ScoringSettings
from assets.training.bundle import Bundle
from assets.warehouse.marts import mart, visible

__all__ = ["Manifest", "Predictions", "load_manifest", "predict"]

_TABLE = "predictions"
_COUNTS = "select count(*), count(distinct record_id) from read_parquet(?)"
_BY_LABEL = "select coalesce(predicted, reason), count(*) from read_parquet(?) group by 1 order by 2 desc, 1"
_WINDOW = f"""
    from read_parquet($records) records
    where known_at > $start::timestamp and {visible("records")}
"""


@dataclass(frozen=True)
class Manifest:
    """The description of a publication of predictions, kept with its rows."""

    as_of: str
    model_version: str
    training_id: str
    snapshot_id: str
    snapshot_as_of: str
    marts_version: str
    window_days: int
    rows: int
    """Rows written."""
    records: int
    """Distinct records among them."""
    expected: int
    """Records of the window that are visible as of as_of."""
    golden: GoldenAnswers = field(default_factory=GoldenAnswers)

    @property
    def each_record_once(self) -> bool:
        return self.rows == self.records == self.expected


@dataclass(frozen=True)
class Predictions:
    """One as-of day's predictions."""

    manifest: Manifest
    version: str
    path: Path
    """The publication's folder; it does not exist when nothing was published."""
    reused: bool
    labels: dict[str, int]
    """Rows by predicted label; rows without a label by reason."""
    mean_confidence: float | None
    """The mean probability of the chosen label; None when nothing was scored."""


def predict(
    home: Home,
    as_of: str,
    champion: RegisteredVersion,
    load: Callable[[], Bundle],
    settings: ScoringSettings,
    run: RunJob = run_job,
) -> Predictions:
    """Score every visible record received in the window that ends at as_of, and publish the rows.

    Many are scored by a job of the environment's Ray cluster (`assets.scoring.bulk`), which `run` runs. The version is
    a function of the marts, the feature definitions, the champion, as_of and the settings; an existing one is reused,
    and `load` (the champion's bundle) is not called. After a kill the same call continues with the chunks not yet
    scored. Nothing is published when a record was not scored exactly once, when the champion no longer answers its
    golden rows as evaluated, or when they are not in this home. Features are as of as_of, whatever another run has
    filled the online store with. Raises NotPublished without marts, and when the online store was never filled; with a
    cluster also ClusterError when the job fails, and RegistryError where golden rows do not agree.
    """
    lake, table = home.lake, f"{_TABLE}/{as_of}"
    marts = lake.current("marts")
    who, what = [champion.version, champion.training_id], [marts.name, definitions(home).digest]
    version = hash_json([who, what, as_of, settings.deciding()])[:16]
    bulk = Bulk(home, as_of, version, run)
    if lake.path(table, version).exists():
        published = lake.publish(table, version, lake.path(table, version))
        bulk.clear()
        return _summary(published, version, reused=True)
    with resumable(lake.path(table, version).parent, "parts", version) as parts, lake.staging(table) as staged:
        bundle = load()
        if bundle.id != champion.training_id:
            raise BundleError(f"{bundle.id} is not the model of version {champion.version}, {champion.training_id}")
        window = _Window(mart(marts, "fct_records"), home.domain.known, as_of, settings, staged)
        golden = answer_golden_rows(lake, champion, bundle, settings)
        with pinned(home, as_of, marts, staged) as online:

            def rows(chunk: pd.DataFrame) -> pd.DataFrame:
                return online_features(home, chunk, online)

            if bulk.wanted(settings, window.count):
                require_agreement(golden, champion)
                tables = bulk.answer(champion, bundle, settings, window.chunks(), rows)
            else:
                parts.fill(
                    window.chunks, lambda chunk: answer_rows(bundle, rows(chunk), as_of, champion.version, settings)
                )
                tables = parts.tables()
        _assemble(tables, answers_schema(bundle), staged / "predictions.parquet")
        manifest = _manifest(staged, champion, window, marts.name, golden)
        (staged / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1))
        good = manifest.each_record_once and golden.agree
        found = _summary(lake.publish(table, version, staged) if good else staged, version, reused=False)
    bulk.clear()
    return found


def load_manifest(path: Path) -> Manifest:
    """The manifest of a publication's folder."""
    stored = json.loads((path / "manifest.json").read_text())
    return Manifest(**{**stored, "golden": GoldenAnswers(**stored.get("golden", {}))})


@dataclass(frozen=True)
class _Window:
    records: str
    known: tuple[str, ...]
    as_of: str
    settings: ScoringSettings
    scratch: Path

    def count(self) -> int:
        with self._connect() as connection:
            row = connection.execute(f"select count(distinct record_id) {_WINDOW}", self._parameters()).fetchone()
        assert row is not None
        return int(row[0])

    def chunks(self) -> Iterator[pd.DataFrame]:
        """The window's records in the order of arrival, at most `chunk_rows` at a time."""
        columns = ", ".join(("record_id", "known_at", "text", *self.known))
        query = f"select {columns} {_WINDOW} order by known_at, record_id"
        with self._connect() as connection:
            reader = connection.sql(query, params=self._parameters()).to_arrow_reader(self.settings.chunk_rows)
            assert reader is not None
            for batch in reader:
                yield pa.Table.from_batches([batch]).to_pandas()

    def _parameters(self) -> dict[str, Any]:
        end = instant(self.as_of)
        return {"records": self.records, "as_of": end, "start": end - timedelta(days=self.settings.window_days)}

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return connect(temp_directory=str(self.scratch / ".sort"))


def _assemble(tables: Iterable[pa.Table], schema: pa.Schema, target: Path) -> None:
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)


def _manifest(
    staged: Path, champion: RegisteredVersion, window: _Window, marts_version: str, golden: GoldenAnswers
) -> Manifest:
    rows, records = _one(_COUNTS, staged / "predictions.parquet")
    return Manifest(
        as_of=window.as_of,
        model_version=champion.version,
        training_id=champion.training_id,
        snapshot_id=champion.snapshot_id,
        snapshot_as_of=champion.as_of,
        marts_version=marts_version,
        window_days=window.settings.window_days,
        rows=rows,
        records=records,
        expected=window.count(),
        golden=golden,
    )


def _summary(path: Path, version: str, *, reused: bool) -> Predictions:
    rows = path / "predictions.parquet"
    with connect() as connection:
        labels = dict(connection.execute(_BY_LABEL, [str(rows)]).fetchall())
    (mean,) = _one("select avg(confidence) from read_parquet(?)", rows)
    return Predictions(load_manifest(path), version, path, reused, labels, mean)


def _one(query: str, path: Path) -> tuple[Any, ...]:
    with connect() as connection:
        row = connection.execute(query, [str(path)]).fetchone()
    assert row is not None
    return tuple(row)
