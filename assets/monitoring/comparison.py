"""Two sides of columns, compared by Evidently: the PSI of every column, and a page for people."""

import os
import warnings
from dataclasses import dataclass

import pandas as pd

from assets.monitoring.columns import calm_psi, fit_binning
from assets.settings import DriftSettings

__all__ = ["Column", "Side", "compare"]


@dataclass(frozen=True)
class Column:
    """One compared column."""

    name: str
    group: str
    """features, text or predictions."""
    psi: float
    calm_psi: float
    """The largest PSI of a stretch of the champion's own training period against the rest of it."""
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class Side:
    """One side of the comparison: a frame per group, rows in order of time; the groups may differ in rows."""

    groups: dict[str, pd.DataFrame]

    @property
    def rows(self) -> int:
        return len(self.groups["features"])


def compare(reference: Side, current: Side, settings: DriftSettings) -> tuple[tuple[Column, ...], str]:
    """The PSI of every column by Evidently, judged, and Evidently's page as HTML that loads nothing."""
    binned: dict[str, tuple[pd.Series, pd.Series]] = {}
    calm: dict[str, float] = {}
    members: dict[str, list[str]] = {}
    for group, frame in reference.groups.items():
        members[group] = list(frame.columns)
        for name in frame.columns:
            other = current.groups[group][name]
            binning = fit_binning(frame[name], settings.bins, len(other))
            binned[name] = (binning.apply(frame[name]), binning.apply(other))
            calm[name] = calm_psi(binned[name][0], settings.blocks, len(other))
    thresholds = {name: max(settings.psi_threshold, found) for name, found in calm.items()}
    found, html = _evidently(binned, members, thresholds, settings.share_threshold)
    columns = tuple(
        Column(name, group, found[name], calm[name], thresholds[name], found[name] >= thresholds[name])
        for group, names in members.items()
        for name in names
    )
    return columns, html


def _evidently(
    binned: dict[str, tuple["pd.Series[str]", "pd.Series[str]"]],
    members: dict[str, list[str]],
    thresholds: dict[str, float],
    share: float,
) -> tuple[dict[str, float], str]:
    """PSI by column, and the page. Frames of unequal length are padded: Evidently leaves out what is None."""
    os.environ["DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        # Of its own making: Evidently's sources have invalid escapes and use what pandas and pydantic deprecate.
        warnings.simplefilter("ignore")
        # Four seconds on top of pandas and scikit-learn: Evidently imports litestar, nltk and plotly.
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(categorical_columns=list(binned))
        reference, current = (
            Dataset.from_pandas(pd.DataFrame({name: pair[side] for name, pair in binned.items()}), definition)
            for side in (0, 1)
        )
        presets = [
            DataDriftPreset(columns=names, method="psi", drift_share=share, per_column_threshold=thresholds)
            for names in members.values()
        ]
        run = Report(presets, include_tests=False).run(current, reference)
        values = {metric["config"].get("column"): metric["value"] for metric in run.dict()["metrics"]}
        return {name: float(values[name]) for name in binned}, run.get_html_str(as_iframe=False)
