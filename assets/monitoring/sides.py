"""The two sides of a drift comparison, from the lake or from frames: samples of training rows and of a window.

`predictions` are compared with the champion's predictions for its test rows in its evaluation: it made them for text it
had not been trained on, and they cost nothing here. For the same reason the window leaves out records that the champion
was trained on, and texts from the training's period that were kept out of it.

`labels` are compared with those of the training rows that would also have arrived: only the quickest of a window's
labels arrive within it, and if one label is settled sooner than another, their mix differs from that of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq

from assets.as_of import instant
from assets.duck import connect
from assets.features.kept_out import KeptOut
from assets.features.snapshot import read_snapshot
from assets.lake import Lake
from assets.monitoring.champion import evaluated_rows
from assets.monitoring.columns import describe, sample_positions, spread, vocabulary
from assets.monitoring.comparison import Side
from assets.registry.registry import RegisteredVersion
from assets.scoring.predictions import load_manifest
from assets.settings import Domain, DriftSettings
from assets.warehouse.marts import mart, visible

__all__ = [
    "Compared",
    "TrainingSide",
    "arrived_labels",
    "described",
    "read_reference",
    "read_rows",
    "read_window",
    "reference_of",
    "window_of",
]

_NOT_FEATURES = {"record_id", "as_of", "predicted", "confidence", "model_version", "reason"}
_GOLDEN = 0.6180339887498949
"""Its multiples, modulo 1, are evenly spread, however many there are (Weyl)."""
_MOST_STRETCHES = 24
_ROUTED = f"""
    select record_id
    from read_parquet($scored) scored join read_parquet($records) records using (record_id)
    where scored.predicted is not null and records.known_at > $start::timestamp
      and {visible("records")}
"""  # noqa: S608 - a constant
_DRAWN = f"""
    with arrived as (
        select record_id, label from read_parquet($labels) labels
        where label_known_at <= $as_of::timestamp and {visible("labels")}
    )
    select scored.*, {{columns}}, arrived.label
    from drawn join read_parquet($scored) scored using (record_id)
    join read_parquet($records) records using (record_id)
    left join arrived using (record_id)
    where {visible("records")}
    order by records.known_at, record_id
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class Compared:
    """One side: its columns, and the texts for the domain classifier, both in order of time."""

    side: Side
    texts: "pd.Series[str]"


@dataclass(frozen=True)
class TrainingSide(Compared):
    """The training side, with what is needed to measure the other side."""

    words: frozenset[str]
    """The words that the champion knows."""
    watched: tuple[str, ...]
    """The record's own columns that are compared."""
    trained: frozenset[str]
    """The ids of all records that the champion was trained on."""
    kept_out: KeptOut


def read_reference(lake: Lake, champion: RegisteredVersion, settings: DriftSettings) -> TrainingSide:
    """A fixed sample of the champion's training rows, and of its evaluation if that still exists."""
    snapshot = read_snapshot(lake, champion.as_of, champion.snapshot_id)
    train = snapshot.path / "train.parquet"
    ids = pq.read_table(train, columns=["record_id"]).column(0).to_pandas()
    rows = pyarrow.dataset.dataset(train).take(_reference_places(ids, settings)).to_pandas()
    evaluated, kept_out = evaluated_rows(lake, champion), KeptOut.of(snapshot.manifest)
    return reference_of(rows, frozenset(ids), snapshot.domain, snapshot.features, evaluated, kept_out, settings)


def read_window(lake: Lake, as_of: str, reference: TrainingSide, settings: DriftSettings) -> Compared:
    """A fixed sample of the scored records of the window that the champion was not trained on."""
    return window_of(*read_rows(lake, as_of, reference, settings), reference, settings)


def read_rows(
    lake: Lake, as_of: str, reference: TrainingSide, settings: DriftSettings
) -> tuple[pd.DataFrame, list[str]]:
    """What `read_window` describes, a row for each record, and the names of the features among its columns."""
    scored = lake.current(f"predictions/{as_of}")
    window = _Window(scored, lake.path("marts", load_manifest(scored).marts_version), as_of)
    return window.sample(reference, settings), window.features()


def reference_of(
    rows: pd.DataFrame,
    trained: frozenset[str],
    domain: Domain,
    features: Sequence[str],
    evaluated: pd.DataFrame | None,
    kept_out: KeptOut,
    settings: DriftSettings,
) -> TrainingSide:
    """The side of a training, from its rows in order of time and the model's answers in its evaluation.

    `rows`: the domain's columns and features; `evaluated`: predicted and confidence by record_id, or None.
    """
    rows = rows.iloc[_reference_places(rows["record_id"], settings)].reset_index(drop=True)
    # Its own words are never unknown to a row, so the vocabulary comes from training rows outside the sample.
    drawn = sample_positions(rows["record_id"], min(settings.sample_rows, len(trained) // 2))
    sampled = np.isin(np.arange(len(rows)), drawn)
    words = vocabulary(rows.loc[~sampled, "text"])
    groups = described(rows[sampled].reset_index(drop=True), (*domain.watched, *features), words)
    groups["labels"] = pd.DataFrame({"label": arrived_labels(rows[sampled], settings.window_days)})
    if evaluated is not None:
        evaluated = evaluated.iloc[sample_positions(evaluated["record_id"], settings.sample_rows)]
        groups["predictions"] = _predicted(evaluated["predicted"], evaluated["confidence"])
    parts = _stretches(rows["known_at"], settings)
    texts = rows["text"].iloc[spread(len(rows), parts * settings.wording_rows)]
    # The evaluation spans some days: how lively the mix of labels is, the labels of the training know.
    return TrainingSide(
        Side(groups, parts, {"predicted_label": rows["label"]}), texts, words, domain.watched, trained, kept_out
    )


def window_of(
    rows: pd.DataFrame, features: Sequence[str], reference: TrainingSide, settings: DriftSettings
) -> Compared:
    """The side of a window, by a sample of its rows in order of time.

    rows: the domain's columns and features, predicted and confidence, and label, missing where none arrived.
    """
    rows = rows[~reference.kept_out.among(rows["text"])].reset_index(drop=True)
    groups = described(rows, (*reference.watched, *features), reference.words)
    groups["predictions"] = _predicted(rows["predicted"], rows["confidence"])
    groups["labels"] = pd.DataFrame({"label": rows["label"].dropna()})
    return Compared(Side(groups), rows["text"].iloc[spread(len(rows), settings.wording_rows)])


def _stretches(known_at: "pd.Series[pd.Timestamp]", settings: DriftSettings) -> int:
    """How many stretches as long as a window training rows come from, and no fewer than `blocks`."""
    days = (known_at.iloc[-1] - known_at.iloc[0]).days if len(known_at) else 0
    return max(settings.blocks, min(days // settings.window_days, _MOST_STRETCHES))


def _reference_places(ids: "pd.Series[str]", settings: DriftSettings) -> list[int]:
    """The training rows that are read: the sample, and as many more as the vocabulary takes."""
    return sample_positions(ids, settings.vocabulary_rows + settings.sample_rows)


def described(rows: pd.DataFrame, columns: Sequence[str], words: frozenset[str]) -> dict[str, pd.DataFrame]:
    """The groups `text` and `features` of rows with a text, the latter by the columns that are compared."""
    return {"text": describe(rows["text"], words), "features": rows[list(columns)]}


def arrived_labels(rows: pd.DataFrame, window_days: int) -> "pd.Series[str]":
    """The labels of the training rows whose label would have arrived by the end of a window.

    In a window the rows are from 0 to `window_days` days old, evenly: each row is given such an age. `rows` has
    known_at, label_known_at and label.
    """
    ages = pd.to_timedelta(np.arange(1, len(rows) + 1) * _GOLDEN % 1 * window_days, unit="D").to_numpy()
    lags = (pd.to_datetime(rows["label_known_at"]) - pd.to_datetime(rows["known_at"])).to_numpy()
    return rows["label"][lags <= ages]


def _predicted(labels: "pd.Series[str]", confidences: "pd.Series[float]") -> pd.DataFrame:
    return pd.DataFrame({"predicted_label": labels, "prediction_confidence": confidences})


@dataclass(frozen=True)
class _Window:
    """The scored records of an as-of day, with what is known of them."""

    scored: Path
    marts: Path
    as_of: str

    def features(self) -> list[str]:
        return [name for name in pq.read_schema(self.scored / "predictions.parquet").names if name not in _NOT_FEATURES]

    def sample(self, reference: TrainingSide, settings: DriftSettings) -> pd.DataFrame:
        """A fixed sample of the routed records that the champion was not trained on, in order of arrival."""
        start = instant(self.as_of) - timedelta(days=settings.window_days)
        routed = self._parameters("scored", "records", "as_of") | {"start": start}
        with connect() as connection:
            ids = connection.execute(_ROUTED, routed).df()["record_id"]
            unseen = ids[~ids.isin(reference.trained)].reset_index(drop=True)
            places = sample_positions(unseen, settings.sample_rows)
            connection.register("drawn", pd.DataFrame({"record_id": unseen.iloc[places].astype(object)}))
            drawn = _DRAWN.format(columns=", ".join(("text", *reference.watched)))
            return connection.execute(drawn, self._parameters("scored", "records", "labels", "as_of")).df()

    def _parameters(self, *names: str) -> dict[str, Any]:
        every = {
            "scored": str(self.scored / "predictions.parquet"),
            "records": mart(self.marts, "fct_records"),
            "labels": mart(self.marts, "labels"),
            "as_of": instant(self.as_of),
        }
        return {name: every[name] for name in names}
