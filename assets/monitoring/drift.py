"""Is the champion's world still the one that it was trained in? Measured with Evidently.

Three groups of columns are compared: `features` and `text` of the scored window with a sample of the champion's
training rows, and `predictions` with what the champion predicted for its test rows in its evaluation: those are the
predictions that it made for text it had not been trained on, and they cost nothing here. On the side of the window,
records that the champion was trained on are left out for the same reason.

A column has drifted when its PSI reaches both `psi_threshold` and the largest PSI that a stretch of the champion's own
training period has against the rest: statistics that grow or warm up by construction are compared with their own
movement. There is drift when more than `share_threshold` of any group's columns have drifted: text that changes moves
three columns, which would drown among forty statistics.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from html import escape
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq

from assets.lake import Home, Lake, hash_json, write_atomically
from assets.monitoring.champion import evaluated_rows
from assets.monitoring.columns import describe, sample_positions, vocabulary
from assets.monitoring.comparison import Column, Side, compare
from assets.registry.registry import RegisteredVersion
from assets.scoring.predictions import load_manifest
from assets.settings import DriftSettings

__all__ = ["DriftReport", "load_drift", "measure_drift"]

_CATEGORIES = ("company", "state", "channel", "tags")
_NOT_FEATURES = {"complaint_id", "as_of", "queue", "confidence", "model_version", "reason"}
_ROUTED = """
    select complaint_id
    from read_parquet($scored) scored join read_parquet($complaints) complaints using (complaint_id)
    where scored.queue is not null and complaints.known_at > $start::timestamp
      and complaints.known_at <= $as_of::timestamp
      and (complaints.known_until is null or complaints.known_until > $as_of::timestamp)
"""
_DRAWN = """
    select scored.*, narrative, company, state, channel, tags
    from drawn join read_parquet($scored) scored using (complaint_id)
    join read_parquet($complaints) complaints using (complaint_id)
    where complaints.known_at <= $as_of::timestamp
      and (complaints.known_until is null or complaints.known_until > $as_of::timestamp)
    order by complaints.known_at, complaint_id
"""


@dataclass(frozen=True)
class DriftReport:
    """What was compared and found; `detected` and `share` are None when it could not be measured."""

    as_of: str
    model_version: str | None
    detected: bool | None
    share: float | None
    """The largest share of drifted columns of any group."""
    reason: str
    """One sentence with the numbers."""
    reference_rows: int
    current_rows: int
    columns: tuple[Column, ...]

    @property
    def groups(self) -> dict[str, float]:
        """The share of drifted columns by group."""
        found: dict[str, list[bool]] = {}
        for column in self.columns:
            found.setdefault(column.group, []).append(column.drifted)
        return {group: sum(drifted) / len(drifted) for group, drifted in found.items()}


def measure_drift(home: Home, as_of: str, champion: RegisteredVersion | None, settings: DriftSettings) -> DriftReport:
    """Compare the champion's window with its training, publish the numbers as `drift/<as_of>` and the HTML beside.

    The page is `reports/drift/<as_of>.html`; without a champion, its predictions or enough rows it says so. The
    version is a function of the predictions and the settings, and one that exists is reused.
    """
    lake, table = home.lake, f"drift/{as_of}"
    version = hash_json([as_of, _scored_version(lake, as_of), champion and champion.training_id, settings.model_dump()])
    path = lake.path(table, version[:16])
    if path.exists():
        lake.publish(table, path.name, path)
    else:
        with lake.staging(table) as staged:
            report, html = _report(lake, as_of, champion, settings)
            (staged / "drift.json").write_text(json.dumps(asdict(report), indent=1))
            (staged / "report.html").write_text(html)
            lake.publish(table, path.name, staged)
    write_atomically(home.reports / "drift" / f"{as_of}.html", (path / "report.html").read_text())
    return load_drift(lake, as_of)


def load_drift(lake: Lake, as_of: str) -> DriftReport:
    """The published report of an as-of date. Raises NotPublished."""
    content = json.loads((lake.current(f"drift/{as_of}") / "drift.json").read_text())
    return DriftReport(**{**content, "columns": tuple(Column(**column) for column in content["columns"])})


def _scored_version(lake: Lake, as_of: str) -> str | None:
    return lake.version(f"predictions/{as_of}")


def _report(
    lake: Lake, as_of: str, champion: RegisteredVersion | None, settings: DriftSettings
) -> tuple[DriftReport, str]:
    why = _unmeasurable(lake, as_of, champion)
    if why is not None or champion is None:
        return _unmeasured(as_of, champion, why or "", 0)
    reference, known, trained = _reference(lake, champion, settings)
    current = _current(lake, as_of, known, trained, settings)
    if current.rows < settings.min_rows:
        why = f"the window has {current.rows} scored complaints that the champion was not trained on"
        return _unmeasured(as_of, champion, f"{why}, fewer than {settings.min_rows}", current.rows)
    if reference.rows < settings.min_rows:
        why = f"the champion's snapshot gives {reference.rows} reference rows, fewer than {settings.min_rows}"
        return _unmeasured(as_of, champion, why, current.rows)
    columns, html = compare(reference, current, settings)
    report = DriftReport(as_of, champion.version, None, None, "", reference.rows, current.rows, columns)
    report = _judged(report, settings.share_threshold)
    return report, html.replace("<body>", f"<body>{_heading(report)}", 1)


def _unmeasurable(lake: Lake, as_of: str, champion: RegisteredVersion | None) -> str | None:
    if champion is None:
        return "there is no champion yet"
    if _scored_version(lake, as_of) is None:
        return f"nothing was scored as of {as_of}"
    scored_by = load_manifest(lake.current(f"predictions/{as_of}")).model_version
    if scored_by != champion.version:
        return f"the window was scored by version {scored_by}, not by the champion, version {champion.version}"
    return None


def _unmeasured(as_of: str, champion: RegisteredVersion | None, why: str, rows: int) -> tuple[DriftReport, str]:
    reason = f"drift cannot be measured: {why}"
    report = DriftReport(as_of, champion.version if champion else None, None, None, reason, 0, rows, ())
    return report, f"<!DOCTYPE html><meta charset='utf-8'><title>Drift as of {as_of}</title><p>As of {as_of}, {reason}."


def _judged(report: DriftReport, bound: float) -> DriftReport:
    share = max(report.groups.values())
    moved = [c.name for c in sorted(report.columns, key=lambda c: -c.psi / c.threshold) if c.drifted]
    parts = "; ".join(f"{name} {part:.0%}" for name, part in report.groups.items())
    named = f" ({', '.join(moved[:3])}{', ...' if len(moved) > 3 else ''})" if moved else ""
    lacking = "" if "predictions" in report.groups else "; no evaluation of the champion to compare predictions with"
    reason = f"{len(moved)} of {len(report.columns)} columns drifted{named}: {parts}; the bound is {bound:.0%}{lacking}"
    return replace(report, detected=share > bound, share=share, reason=reason)


def _heading(report: DriftReport) -> str:
    """What the page is about, above Evidently's widgets."""
    groups = ", then ".join(f"{name} ({share:.0%} drifted)" for name, share in report.groups.items())
    return (
        "<div style='font: 16px sans-serif; max-width: 70em; margin: 24px auto 0; padding: 0 24px'>"
        f"<h1>{'Drift' if report.detected else 'No drift'} as of {report.as_of}</h1><p>{escape(report.reason)}.</p>"
        f"<p>Current: {report.current_rows} complaints that version {escape(str(report.model_version))} routed and was "
        f"not trained on. Reference: {report.reference_rows} of its training rows and, for its predictions, its "
        "evaluation. Numbers are cut into quantile bins of the reference and rare categories are pooled. A column has "
        "drifted when its PSI reaches its threshold, which is at least what the column did during the champion's own "
        f"training period.</p><p>Below, one summary a group: {groups}.</p></div>"
    )


def _reference(
    lake: Lake, champion: RegisteredVersion, settings: DriftSettings
) -> tuple[Side, frozenset[str], "pd.Series[str]"]:
    """The reference side, the words the champion knows, and the ids of what it was trained on."""
    snapshot = lake.path(f"training_set/{champion.as_of}", champion.snapshot_id)
    features = json.loads((snapshot / "manifest.json").read_text())["features"]
    ids = pq.read_table(snapshot / "train.parquet", columns=["complaint_id"]).column(0).to_pandas()
    # Its own words are never unknown to a row, so the vocabulary comes from training rows outside the sample.
    places = sample_positions(ids, settings.vocabulary_rows + settings.sample_rows)
    drawn = set(sample_positions(ids, min(settings.sample_rows, len(ids) // 2)))
    rows = pyarrow.dataset.dataset(snapshot / "train.parquet").take(places).to_pandas()
    sampled = np.array([place in drawn for place in places], dtype=bool)
    known = vocabulary(rows.loc[~sampled, "narrative"])
    groups = _described(rows[sampled].reset_index(drop=True), features, known)
    predicted = evaluated_rows(lake, champion)
    if predicted is not None:
        predicted = predicted.iloc[sample_positions(predicted["complaint_id"], settings.sample_rows)]
        groups["predictions"] = _predicted(predicted["predicted"], predicted["confidence"])
    return Side(groups), known, ids


def _current(lake: Lake, as_of: str, known: frozenset[str], trained: "pd.Series[str]", settings: DriftSettings) -> Side:
    scored = lake.current(f"predictions/{as_of}")
    window = _Window(scored, lake.path("marts", load_manifest(scored).marts_version), as_of)
    rows = window.sample(set(trained), settings)
    groups = _described(rows, window.features(), known)
    groups["predictions"] = _predicted(rows["queue"], rows["confidence"])
    return Side(groups)


@dataclass(frozen=True)
class _Window:
    """The scored complaints of an as-of day, with what is known of them."""

    scored: Path
    marts: Path
    as_of: str

    def features(self) -> list[str]:
        return [name for name in pq.read_schema(self.scored / "predictions.parquet").names if name not in _NOT_FEATURES]

    def sample(self, trained: set[str], settings: DriftSettings) -> pd.DataFrame:
        """A fixed sample of the routed complaints that the champion was not trained on, in order of arrival."""
        start = (date.fromisoformat(self.as_of) - timedelta(days=settings.window_days)).isoformat()
        with duckdb.connect() as connection:
            ids = connection.execute(_ROUTED, {**self._parameters(), "start": start}).df()["complaint_id"]
            unseen = ids[~ids.isin(trained)].reset_index(drop=True)
            places = sample_positions(unseen, settings.sample_rows)
            connection.register("drawn", pd.DataFrame({"complaint_id": unseen.iloc[places].astype(object)}))
            return connection.execute(_DRAWN, self._parameters()).df()

    def _parameters(self) -> dict[str, str]:
        return {
            "scored": str(self.scored / "predictions.parquet"),
            "complaints": str(self.marts / "fct_complaints.parquet"),
            "as_of": self.as_of,
        }


def _described(rows: pd.DataFrame, features: list[str], known: frozenset[str]) -> dict[str, pd.DataFrame]:
    return {"text": describe(rows["narrative"], known), "features": rows[[*_CATEGORIES, *features]]}


def _predicted(queues: "pd.Series[str]", confidences: "pd.Series[float]") -> pd.DataFrame:
    return pd.DataFrame({"predicted_queue": queues, "prediction_confidence": confidences})
