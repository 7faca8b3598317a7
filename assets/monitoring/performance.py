"""How good is the champion, on labels that have arrived since?

A prediction counts when it was blind and its label is now known. Blind means that the model cannot have seen the label:
in every version of the record, it became known after the as-of instant of the snapshot the model was trained on. Rows
of the snapshot's test part do not count either, since the gate has chosen the champion by them. Where one model
predicted a record on several days, the first answer counts: it is the one that was used, and the online statistics of
later days may include the record's own label. The rows predicted before the label was known, for which that is
impossible, are also shown separately. Only the newest labels count: over a whole reign, the good days before a change
would hide it for months.

The newest window has few labels or none: its quality is estimated (`assets.monitoring.estimation`). Each earlier
window of the same champion keeps its published estimate next to the realised accuracy, once enough labels had arrived:
that shows how far the estimates can be trusted.
"""

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from math import sqrt
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from assets.as_of import date_of, instant, instant_sql
from assets.duck import connect
from assets.evaluation.metrics import counted, macro_f1_of
from assets.hashing import hash_json
from assets.home import Home
from assets.lake import Lake
from assets.monitoring.answers import measure_answers
from assets.monitoring.champion import evaluated_rows
from assets.monitoring.comparison import Column
from assets.monitoring.estimation import Answers, Estimate, LabelEstimate, estimate_quality
from assets.registry.registry import RegisteredVersion
from assets.registry.removed import names_gone
from assets.registry.shared_ledger import ledger_of
from assets.scoring.predictions import load_manifest
from assets.settings import DriftSettings, RetrainingPolicy
from assets.warehouse.marts import mart, visible

__all__ = ["Performance", "Scores", "WindowQuality", "load_performance", "measure_performance", "recent"]

_log = logging.getLogger("evergreen")
_BEGINNING = "1970-01-01"
_KNOWN = f"""
    create temp table known as
    select record_id, min(label_known_at) as known_since,
           arg_max(label, known_at) filter ({visible("labels")}) as label
    from read_parquet($labels) labels where label_known_at <= $as_of::timestamp
    group by record_id
"""  # noqa: S608 - a constant
_MATURED = f"""
    create temp table matured as
    with first_answers as (
        select record_id, arg_min(predicted, as_of) as predicted, arg_min(confidence, as_of) as confidence,
               {instant_sql("min(as_of)")} as predicted_at
        from read_parquet($predictions) scored where scored.predicted is not null group by record_id
    )
    select record_id, known.label, predicted, confidence, predicted_at < known_since as before_label,
           greatest(predicted_at, known_since)::date as night
    from first_answers join known using (record_id)
    where known.label is not null and known_since > $snapshot::timestamp
"""  # noqa: S608 - a constant
_COUNTED = """
    select night::timestamp as night, label, predicted, before_label, count(*)::bigint as rows
    from matured group by all order by all
"""
_ARRIVED = f"""
    select night, hash(left(text, 120)) as letter, matured.label, predicted, confidence
    from matured join read_parquet($records) records using (record_id)
    where {visible("records")}
"""  # noqa: S608 - a constant
_WINDOW = """
    select count(*), count(known.label)
    from read_parquet($window) scored left join known using (record_id) where scored.predicted is not null
"""
_BLIND = "scored.predicted is not null and (known_since is null or known_since > $snapshot::timestamp)"
_BLIND_ANSWERS = f"""
    select scored.predicted, confidence from read_parquet($window) scored left join known using (record_id)
    where {_BLIND}
"""  # noqa: S608 - a constant
_BY_WINDOW = f"""
    select as_of, count(*)::bigint as rows, count(known.label)::bigint as labels,
           avg((scored.predicted = known.label)::double) as accuracy
    from read_parquet($predictions) scored left join known using (record_id)
    where {_BLIND} group by as_of order by as_of
"""  # noqa: S608 - a constant
_NEW_LABELS = f"""
    select count(*) from known join read_parquet($records) records using (record_id)
    where known.label is not null and known_since > $snapshot::timestamp and trim(coalesce(text, '')) <> ''
      and {visible("records")}
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class Scores:
    """A summary of right and wrong answers; shares are None without rows."""

    rows: int
    accuracy: float | None
    macro_f1: float | None
    """The mean over the labels that occur as true labels."""

    def surely_above(self, other: "Scores") -> bool:
        """Whether the accuracy is higher by more than three standard errors of the difference."""
        if self.accuracy is None or other.accuracy is None:
            return False
        sides = ((self.accuracy, self.rows), (other.accuracy, other.rows))
        return self.accuracy - other.accuracy > 3 * sqrt(sum(share * (1 - share) / rows for share, rows in sides))


@dataclass(frozen=True)
class WindowQuality:
    """One window's blind predictions: estimated and realised accuracy."""

    as_of: str
    rows: int
    labels: int
    """Rows whose label is known by now."""
    estimated_accuracy: float | None
    """The estimate published at the window's own as-of; None if there was none."""
    realised_accuracy: float | None
    """None until enough labels have arrived."""

    @property
    def maturity(self) -> float:
        """Label maturity: the share of rows whose label is known."""
        return self.labels / self.rows

    @property
    def error(self) -> float | None:
        """By how much the estimate was too high."""
        if self.estimated_accuracy is None or self.realised_accuracy is None:
            return None
        return self.estimated_accuracy - self.realised_accuracy


@dataclass(frozen=True)
class Performance:
    """The quality of the champion's predictions, from the labels known as of as_of."""

    as_of: str
    model_version: str | None
    realised: Scores
    """Blind predictions whose label became known lately (`recent`)."""
    before_label: Scores
    """Those predicted before the label was known."""
    evaluated: Scores
    """The same for the test rows of the champion's snapshot; no rows if its evaluation is missing."""
    window_rows: int
    """Scored records of the window that ends at as_of."""
    window_labels: int
    """Those whose label is known."""
    estimated_accuracy: float | None
    """The estimate for the window's blind predictions, by calibrated confidence; None without an evaluation."""
    new_labels: int
    """Labels of records with a text that became known after the champion's snapshot (all, without a champion)."""
    sentence: str
    recall: dict[str, float]
    """The realised share of right answers by true label."""
    estimated_macro_f1: float | None = None
    precision: dict[str, float] = field(default_factory=dict)
    """The realised share of right answers by answered label."""
    estimated_labels: tuple[LabelEstimate, ...] = ()
    """The expected quality of each label in the window, to compare with its realised precision and recall."""
    estimated_by_threshold: float | None = None
    """The accuracy by another estimator: the truth is expected to be between the two."""
    windows: tuple[WindowQuality, ...] = ()
    """Every window of this champion up to as_of, newest last."""
    answers: tuple[Column, ...] = ()
    """The evidence that the champion errs more than its confidence promised; empty if not measured."""
    training_id: str | None = None
    """The training id of the measured champion; None without one."""

    @property
    def problem(self) -> str | None:
        """How the champion is worse than it was evaluated or promises, in words; None as far as nothing tells so."""
        broken = [f"{column.name}: {column.note}" for column in self.answers if column.drifted]
        if self.answers and self.evaluated.surely_above(self.realised):
            broken.insert(0, f"{self.sentence}, and in its evaluation on {self.evaluated.accuracy:.1%}")
        return "; ".join(broken) or None

    @property
    def estimated_between(self) -> tuple[float, float] | None:
        """The lower and the higher estimate of the window's accuracy."""
        if self.estimated_accuracy is None or self.estimated_by_threshold is None:
            return None
        first, second = sorted((self.estimated_accuracy, self.estimated_by_threshold))
        return first, second

    @property
    def maturity(self) -> float | None:
        """Label maturity: the share of the window's records whose label is known."""
        return self.window_labels / self.window_rows if self.window_rows else None


def measure_performance(
    home: Home, as_of: str, champion: RegisteredVersion | None, policy: RetrainingPolicy, settings: DriftSettings
) -> Performance:
    """Join the champion's predictions with the labels known as of as_of, and publish `performance/<as_of>`.

    A window's realised accuracy is given once its label maturity reaches `settings.min_maturity`. The version is a
    function of the marts, the predictions, the champion, earlier estimates and the settings. Raises NotPublished
    without marts.
    """
    lake, table = home.lake, f"performance/{as_of}"
    if champion:
        _tell_removed(home, as_of, champion)
    used = _predictions(lake, as_of, champion) if champion else {}
    own, earlier = f"predictions/{as_of}", [name for name in used if name != f"predictions/{as_of}"]
    estimated = {name: _estimated(lake, name, champion) for name in earlier} if champion else {}
    named = {name: [path.name, estimated.get(name)] for name, path in used.items()}
    who = [champion.version, champion.training_id, champion.as_of] if champion else None
    bounds = [policy.min_mature_rows, policy.realised_days, settings.model_dump()]
    inputs = [as_of, lake.current("marts").name, named, who, bounds]
    version = hash_json(inputs)[:16]
    if lake.path(table, version).exists():
        lake.publish(table, version, lake.path(table, version))
        return load_performance(lake, as_of)
    performance = _measure(lake, as_of, champion, used, policy, settings)
    estimated |= {own: performance.estimated_accuracy}
    windows = tuple(_shown(window, estimated, settings.min_maturity) for window in performance.windows)
    performance = replace(performance, windows=windows)
    with lake.staging(table) as staged:
        (staged / "performance.json").write_text(json.dumps(asdict(performance), indent=1))
        lake.publish(table, version, staged)
    return performance


def recent(matured: pd.DataFrame, as_of: str, policy: RetrainingPolicy) -> pd.DataFrame:
    """The newest nights of answers whose label is known.

    Columns: `night`, when both answer and label were there, and `rows`, their number. The nights are those of the last
    `realised_days` days, or more until they have `min_mature_rows`.
    """
    since = matured.groupby("night")["rows"].sum()[::-1].cumsum()
    enough = since.index[since >= policy.min_mature_rows]
    first = pd.Timestamp(date_of(as_of)) - pd.Timedelta(days=policy.realised_days - 1)
    return matured[matured["night"] >= min([first, *enough[:1]])] if len(enough) else matured


def _tell_removed(home: Home, as_of: str, champion: RegisteredVersion) -> None:
    """Warn that predictions of days since it first was champion were removed, and no longer count."""
    own = [e.as_of for e in ledger_of(home).entries("alias") if e.body["training_id"] == champion.training_id]
    removed = names_gone(home, "predictions") if own else []
    if gone := [day for day in removed if own[0] <= day <= as_of]:
        _log.warning(
            "predictions of %d days, %s to %s, were removed and no longer count (days in configs/retention.yaml)",
            *(len(gone), gone[0], gone[-1]),
        )


def load_performance(lake: Lake, as_of: str) -> Performance:
    """The published performance of an as-of date. Raises NotPublished."""
    content: dict[str, Any] = json.loads((lake.current(f"performance/{as_of}") / "performance.json").read_text())
    scores = {name: Scores(**content[name]) for name in ("realised", "before_label", "evaluated")}
    windows = tuple(WindowQuality(**window) for window in content.get("windows", ()))
    answers = tuple(Column(**column) for column in content.get("answers", ()))
    labels = tuple(LabelEstimate(**label) for label in content.get("estimated_labels", ()))
    return Performance(**{**content, **scores, "windows": windows, "answers": answers, "estimated_labels": labels})


def _predictions(lake: Lake, as_of: str, champion: RegisteredVersion) -> dict[str, Path]:
    """The publications up to as-of whose rows this champion predicted, by table."""
    tables = [name for name in lake.tables("predictions") if name.removeprefix("predictions/") <= as_of]
    folders = {name: lake.current(name) for name in tables}
    return {name: path for name, path in folders.items() if load_manifest(path).training_id == champion.training_id}


def _estimated(lake: Lake, predictions: str, champion: RegisteredVersion) -> float | None:
    """The published estimate of the champion's accuracy for an earlier window."""
    as_of = predictions.removeprefix("predictions/")
    published = load_performance(lake, as_of) if lake.version(f"performance/{as_of}") else None
    return published.estimated_accuracy if published and published.training_id == champion.training_id else None


def _shown(window: WindowQuality, estimated: dict[str, float | None], min_maturity: float) -> WindowQuality:
    """A window with its published estimate, and without a realised accuracy that is not yet mature."""
    realised = window.realised_accuracy if window.maturity >= min_maturity else None
    return replace(window, estimated_accuracy=estimated[f"predictions/{window.as_of}"], realised_accuracy=realised)


def _measure(
    lake: Lake,
    as_of: str,
    champion: RegisteredVersion | None,
    used: dict[str, Path],
    policy: RetrainingPolicy,
    settings: DriftSettings,
) -> Performance:
    marts = lake.current("marts")
    snapshot = {"snapshot": instant(champion.as_of if champion else _BEGINNING)}
    files = [str(path / "predictions.parquet") for path in used.values()]
    newest = used.get(f"predictions/{as_of}")
    window = {"window": str(newest / "predictions.parquet")} if newest else None
    with connect() as connection:
        connection.execute(_KNOWN, {"labels": mart(marts, "labels"), "as_of": instant(as_of)})
        records = {"records": mart(marts, "fct_records"), "as_of": instant(as_of)}
        (new_labels,) = _one(connection, _NEW_LABELS, records | snapshot)
        rows, labels = _one(connection, _WINDOW, window) if window else (0, 0)
        blind = connection.execute(_BLIND_ANSWERS, window | snapshot).df() if window else _NO_ANSWERS
        over_all = {"predictions": files, **snapshot}
        if files:
            connection.execute(_MATURED, over_all)
        counts = recent(connection.execute(_COUNTED).df(), as_of, policy) if files else _NO_COUNTS
        arrived = connection.execute(_ARRIVED, records).df() if files else _NO_ANSWERS
        windows = connection.execute(_BY_WINDOW, over_all).fetchall() if files else []
    evaluated = evaluated_rows(lake, champion) if champion else None
    realised, estimate = _scores(counts), _estimate(evaluated, blind)
    return Performance(
        as_of=as_of,
        model_version=champion.version if champion else None,
        training_id=champion.training_id if champion else None,
        realised=realised,
        before_label=_scores(counts[counts["before_label"].astype(bool)]),
        evaluated=_evaluated(evaluated),
        window_rows=rows,
        window_labels=labels,
        estimated_accuracy=estimate.accuracy if estimate else None,
        new_labels=new_labels,
        sentence=_sentence(champion, realised, policy),
        recall=_right(counts, "label"),
        precision=_right(counts, "predicted"),
        estimated_labels=estimate.labels if estimate else (),
        estimated_macro_f1=estimate.macro_f1 if estimate else None,
        estimated_by_threshold=estimate.by_threshold if estimate else None,
        windows=tuple(WindowQuality(name, size, known, None, accuracy) for name, size, known, accuracy in windows),
        answers=measure_answers(evaluated, arrived, settings) if evaluated is not None else (),
    )


_NO_ANSWERS = pd.DataFrame({"predicted": [], "confidence": []})
_NO_COUNTS = pd.DataFrame({"label": [], "predicted": [], "before_label": [], "rows": []})


def _one(connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return tuple(row)


def _evaluated(rows: pd.DataFrame | None) -> Scores:
    if rows is None:
        return _scores(_NO_COUNTS)
    return _scores(rows.groupby(["label", "predicted"]).size().rename("rows").reset_index())


def _estimate(evaluated: pd.DataFrame | None, window: pd.DataFrame) -> Estimate | None:
    if evaluated is None or evaluated.empty or window.empty:
        return None
    sides = (evaluated["predicted"], evaluated["confidence"]), (window["predicted"], window["confidence"])
    answers = [Answers(labels.to_numpy(), confidence.to_numpy(float)) for labels, confidence in sides]
    return estimate_quality(evaluated["label"].to_numpy(), *answers)


def _scores(counts: pd.DataFrame) -> Scores:
    """Accuracy and macro-F1 of rows counted by true and by predicted label."""
    rows = int(counts["rows"].sum())
    if not rows:
        return Scores(0, None, None)
    table = counted(counts["label"], counts["predicted"], counts["rows"])
    return Scores(rows, float(np.trace(table) / rows), macro_f1_of(table))


def _right(counts: pd.DataFrame, side: str) -> dict[str, float]:
    """Shares of right answers by true or predicted label."""
    right = counts["rows"].where(counts["label"] == counts["predicted"], 0)
    shares = right.groupby(counts[side]).sum() / counts.groupby(side)["rows"].sum()
    return {str(label): float(share) for label, share in shares.items()}


def _sentence(champion: RegisteredVersion | None, realised: Scores, policy: RetrainingPolicy) -> str:
    if champion is None:
        return "performance cannot be measured: there is no champion yet"
    if realised.rows < policy.min_mature_rows:
        rows = f"{realised.rows} blind predictions of version {champion.version} have a known label"
        return f"performance cannot be measured: {rows}, and {policy.min_mature_rows} are needed"
    return (
        f"version {champion.version} was right on {realised.accuracy:.1%} of {realised.rows} blind predictions "
        f"(macro-F1 {realised.macro_f1:.3f})"
    )
