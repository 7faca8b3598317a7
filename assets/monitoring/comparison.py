"""Compares and judges two sides of columns without a lake: the part that a report and a backtest share.

Every column is measured by its population stability index (PSI). It has drifted when that reaches both the column's own
movement within the champion's training period and the noise of as many rows as the window has: more rows detect smaller
changes, and volume alone detects none. A PSI below `psi_threshold` never counts, however certain it is: where a share d
of the rows has moved, the PSI is 4 d^2 or more (Pinsker's inequality, both ways). Among some forty columns one will
move by chance now and then, and many move together, so the share of a group's columns is judged, not each column at its
own significance. The columns of `answers` are tests with their own levels, which together keep to the configured one:
there a single column is enough.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from assets.monitoring.columns import calm_psi, fit_binning, psi
from assets.settings import DriftSettings

__all__ = ["Column", "DriftFinding", "Side", "is_drift", "judge", "measure_columns", "shares"]


@dataclass(frozen=True)
class Column:
    """One compared column."""

    name: str
    group: str
    """features, text, wording, predictions, labels or answers."""
    statistic: Literal["psi", "auc", "evidence"]
    value: float
    """A population stability index, 0 for no difference; an area under the ROC curve, 0.5 for none; or the decimal
    logarithm of an e-value, 0 for none."""
    calm: float
    """What one more block of the champion's own training period may show against the rest."""
    threshold: float
    """The larger of the configured bound and `calm`."""
    drifted: bool
    note: str = ""
    """What it was measured on, if the statistic does not show it."""

    @property
    def nothing(self) -> float:
        """The statistic of no difference."""
        return 0.5 if self.statistic == "auc" else 0.0

    @property
    def times(self) -> float:
        """The statistic as a multiple of its threshold."""
        return (self.value - self.nothing) / (self.threshold - self.nothing)


@dataclass(frozen=True)
class Side:
    """One side of the comparison: a frame per group, rows in order of time; groups may have different rows."""

    groups: Mapping[str, pd.DataFrame]
    stretches: int = 0
    """For a reference: how many blocks as long as a window its rows come from."""
    lively: Mapping[str, "pd.Series[str]"] = field(default_factory=dict)
    """For columns of a reference that span too little time: one that moves alike and spans more."""

    @property
    def rows(self) -> int:
        return len(self.groups["features"])


@dataclass(frozen=True)
class DriftFinding:
    """The verdict on drift; both fields are None when no column was measured."""

    detected: bool | None
    share: float | None
    """The largest share of drifted columns of any group."""
    reason: str
    """One sentence with the numbers."""


def measure_columns(reference: Side, current: Side, settings: DriftSettings) -> tuple[Column, ...]:
    """The PSI of every column of the groups that both sides have, equal to Evidently's, and whether it has drifted.

    A group with fewer than `min_rows` rows on a side is not measured. Raises KeyError when the current side lacks a
    column of the reference.
    """
    return tuple(
        _column(name, group, reference, current.groups[group][name], settings)
        for group, frame in reference.groups.items()
        if group in current.groups and min(len(frame), len(current.groups[group])) >= settings.min_rows
        for name in frame.columns
    )


def judge(
    columns: tuple[Column, ...], settings: DriftSettings, left_out: Mapping[str, str] | None = None
) -> DriftFinding:
    """Drift when more than `share_threshold` of any group's columns have drifted, or any of `answers`.

    `left_out` says why groups were not measured; without any column nothing is judged.
    """
    lacking = "".join(f"; {group} not measured: {why}" for group, why in (left_out or {}).items())
    if not columns:
        return DriftFinding(None, None, f"drift cannot be measured: there is no column to compare{lacking}")
    drifted = shares(columns)
    moved = [column.name for column in sorted(columns, key=lambda column: -column.times) if column.drifted]
    named = f" ({', '.join(moved[:3])}{', ...' if len(moved) > 3 else ''})" if moved else ""
    parts = "; ".join(f"{group} {share:.0%}" for group, share in drifted.items())
    bound = f"the bound is {settings.share_threshold:.0%} of a group, and any of answers"
    reason = f"{len(moved)} of {len(columns)} columns drifted{named}: {parts}; {bound}{lacking}"
    detected = any(is_drift(group, share, settings.share_threshold) for group, share in drifted.items())
    return DriftFinding(detected, max(drifted.values()), reason)


def is_drift(group: str, share: float, share_threshold: float) -> bool:
    """Whether such a share of a group's columns is drift: of `answers` any is."""
    return share > (0.0 if group == "answers" else share_threshold)


def shares(columns: tuple[Column, ...]) -> dict[str, float]:
    """The share of drifted columns by group."""
    groups: dict[str, list[bool]] = {}
    for column in columns:
        groups.setdefault(column.group, []).append(column.drifted)
    return {group: sum(drifted) / len(drifted) for group, drifted in groups.items()}


def _column(name: str, group: str, reference: Side, current: "pd.Series[str]", settings: DriftSettings) -> Column:
    values = reference.groups[group][name]
    binning = fit_binning(values, settings.bins, len(current))
    left, right = binning.codes(values), binning.codes(current)
    lively, parts = binning.codes(reference.lively.get(name, values)), max(settings.blocks, reference.stretches)
    value, calm = psi(left, right), calm_psi(left, len(current), settings.calm_confidence, lively, parts)
    bound = settings.predictions_threshold if group == "predictions" else settings.psi_threshold
    threshold = max(bound, calm)
    return Column(name, group, "psi", value, calm, threshold, value >= threshold)
