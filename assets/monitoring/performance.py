"""How good is the champion, on labels that have arrived since?

A prediction counts when it was blind and its label is now known. Blind means that the model cannot have seen the label:
it became known after the as-of instant of the snapshot that the model was trained on, in every version of the
complaint. Rows of the snapshot's test part do not count either: the gate has chosen the champion by them. Where one
model predicted a complaint on several days, the first answer counts: it is the one that routed the complaint, and the
online statistics of later days may hold the complaint's own label. The part of the rows that was predicted before the
label was known, where that cannot happen at all, is shown beside the whole.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from assets.lake import Home, Lake, hash_json
from assets.monitoring.champion import evaluated_rows
from assets.registry.registry import RegisteredVersion
from assets.scoring.predictions import load_manifest
from assets.settings import RetrainingPolicy

__all__ = ["Performance", "Scores", "load_performance", "measure_performance"]

_BEGINNING = "1970-01-01"
_KNOWN = """
    create temp table known as
    select complaint_id, min(label_known_at) as known_since,
           arg_max(queue, known_at) filter (
               known_at <= $as_of::timestamp and (known_until is null or known_until > $as_of::timestamp)
           ) as queue
    from read_parquet($labels) where label_known_at <= $as_of::timestamp
    group by complaint_id
"""
_MATURED = """
    with first_answers as (
        select complaint_id, arg_min(queue, as_of) as predicted, min(as_of)::timestamp as predicted_at
        from read_parquet($predictions) where queue is not null group by complaint_id
    )
    select known.queue, predicted, predicted_at < known_since as before_label, count(*)::bigint as rows
    from first_answers join known using (complaint_id)
    where known.queue is not null and known_since > $snapshot::timestamp
    group by all order by all
"""
_WINDOW = """
    select count(*), count(known.queue), avg(confidence)
    from read_parquet($window) scored left join known using (complaint_id) where scored.queue is not null
"""
_NEW_LABELS = """
    select count(*) from known join read_parquet($complaints) complaints using (complaint_id)
    where known.queue is not null and known_since > $snapshot::timestamp and trim(coalesce(narrative, '')) <> ''
      and complaints.known_at <= $as_of::timestamp
      and (complaints.known_until is null or complaints.known_until > $as_of::timestamp)
"""


@dataclass(frozen=True)
class Scores:
    """Right and wrong answers, summed up; shares are None where there are no rows."""

    rows: int
    accuracy: float | None
    macro_f1: float | None
    """The mean over the queues that occur among the true ones."""


@dataclass(frozen=True)
class Performance:
    """What the champion's predictions were worth, as far as labels are known as of as_of."""

    as_of: str
    model_version: str | None
    realised: Scores
    """Blind predictions whose label is known."""
    before_label: Scores
    """Those of them that were made before the label was known."""
    evaluated: Scores
    """The same of the test rows of the champion's snapshot; no rows when its evaluation is not there."""
    window_rows: int
    """Routed complaints of the window that ends at as_of."""
    window_labels: int
    """Those whose label is known."""
    estimated_accuracy: float | None
    """The mean confidence of the window: what accuracy would be if the probabilities were exact."""
    new_labels: int
    """Labels of complaints with a narrative that became known after the champion's snapshot (all, without one)."""
    sentence: str
    recall: dict[str, float]
    """Realised share of right answers by true queue."""

    @property
    def maturity(self) -> float | None:
        """Label maturity: the share of the window's records whose label is known."""
        return self.window_labels / self.window_rows if self.window_rows else None


def measure_performance(
    home: Home, as_of: str, champion: RegisteredVersion | None, policy: RetrainingPolicy
) -> Performance:
    """Join the champion's predictions with the labels known as of as_of, and publish `performance/<as_of>`.

    The version is a function of the marts, the predictions, the champion and `min_mature_rows`. Raises NotPublished
    without marts.
    """
    lake, table = home.lake, f"performance/{as_of}"
    used = _predictions(lake, as_of, champion) if champion else {}
    named = {name: path.name for name, path in used.items()}
    who = [champion.version, champion.training_id, champion.as_of] if champion else None
    inputs = [as_of, lake.current("marts").name, named, who, policy.min_mature_rows]
    version = hash_json(inputs)[:16]
    if lake.path(table, version).exists():
        lake.publish(table, version, lake.path(table, version))
        return load_performance(lake, as_of)
    performance = _measure(lake, as_of, champion, used, policy)
    with lake.staging(table) as staged:
        (staged / "performance.json").write_text(json.dumps(asdict(performance), indent=1))
        lake.publish(table, version, staged)
    return performance


def load_performance(lake: Lake, as_of: str) -> Performance:
    """The published performance of an as-of date. Raises NotPublished."""
    content: dict[str, Any] = json.loads((lake.current(f"performance/{as_of}") / "performance.json").read_text())
    scores = {name: Scores(**content[name]) for name in ("realised", "before_label", "evaluated")}
    return Performance(**{**content, **scores})


def _predictions(lake: Lake, as_of: str, champion: RegisteredVersion) -> dict[str, Path]:
    """The publications up to as-of whose rows this champion predicted, by table."""
    tables = [name for name in lake.tables("predictions") if name.removeprefix("predictions/") <= as_of]
    folders = {name: lake.current(name) for name in tables}
    return {name: path for name, path in folders.items() if load_manifest(path).training_id == champion.training_id}


def _measure(
    lake: Lake, as_of: str, champion: RegisteredVersion | None, used: dict[str, Path], policy: RetrainingPolicy
) -> Performance:
    marts = lake.current("marts")
    snapshot = {"snapshot": champion.as_of if champion else _BEGINNING}
    with duckdb.connect() as connection:
        connection.execute(_KNOWN, {"labels": str(marts / "labels.parquet"), "as_of": as_of})
        complaints = {"complaints": str(marts / "fct_complaints.parquet"), "as_of": as_of, **snapshot}
        (new_labels,) = _one(connection, _NEW_LABELS, complaints)
        files = [str(path / "predictions.parquet") for path in used.values()]
        window = used.get(f"predictions/{as_of}")
        rows, labels, confidence = (
            _one(connection, _WINDOW, {"window": str(window / "predictions.parquet")}) if window else (0, 0, None)
        )
        counts = connection.execute(_MATURED, {"predictions": files, **snapshot}).df() if files else _NO_COUNTS
    realised = _scores(counts)
    return Performance(
        as_of=as_of,
        model_version=champion.version if champion else None,
        realised=realised,
        before_label=_scores(counts[counts["before_label"].astype(bool)]),
        evaluated=_evaluated(lake, champion),
        window_rows=rows,
        window_labels=labels,
        estimated_accuracy=confidence,
        new_labels=new_labels,
        sentence=_sentence(champion, realised, policy),
        recall=_recall(counts),
    )


_NO_COUNTS = pd.DataFrame({"queue": [], "predicted": [], "before_label": [], "rows": []})


def _one(connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, str]) -> tuple[Any, ...]:
    found = connection.execute(query, parameters).fetchone()
    assert found is not None
    return tuple(found)


def _evaluated(lake: Lake, champion: RegisteredVersion | None) -> Scores:
    rows = evaluated_rows(lake, champion) if champion else None
    if rows is None:
        return _scores(_NO_COUNTS)
    return _scores(rows.groupby(["queue", "predicted"]).size().rename("rows").reset_index())


def _scores(counts: pd.DataFrame) -> Scores:
    """Accuracy and macro-F1 of rows counted by true and by predicted queue."""
    rows = int(counts["rows"].sum())
    if not rows:
        return Scores(0, None, None)
    right = counts[counts["queue"] == counts["predicted"]].groupby("queue")["rows"].sum()
    true, predicted = (counts.groupby(side)["rows"].sum() for side in ("queue", "predicted"))
    f1 = [2 * right.get(queue, 0) / (true[queue] + predicted.get(queue, 0)) for queue in true.index]
    return Scores(rows, float(right.sum() / rows), float(np.mean(f1)))


def _recall(counts: pd.DataFrame) -> dict[str, float]:
    right = counts["rows"].where(counts["queue"] == counts["predicted"], 0)
    shares = right.groupby(counts["queue"]).sum() / counts.groupby("queue")["rows"].sum()
    return {str(queue): float(share) for queue, share in shares.items()}


def _sentence(champion: RegisteredVersion | None, realised: Scores, policy: RetrainingPolicy) -> str:
    if champion is None:
        return "performance cannot be measured: there is no champion yet"
    if realised.rows < policy.min_mature_rows:
        found = f"{realised.rows} blind predictions of version {champion.version} have a known label"
        return f"performance cannot be measured: {found}, and {policy.min_mature_rows} are needed"
    return (
        f"version {champion.version} was right on {realised.accuracy:.1%} of {realised.rows} blind predictions "
        f"(macro-F1 {realised.macro_f1:.3f})"
    )
