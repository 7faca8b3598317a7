"""The picture of a drift report: how far each column moved, against what counts as drift."""

from io import BytesIO

from assets.display import names_are_text, plain
from assets.monitoring.report import DriftReport

__all__ = ["drift_picture"]

_DRIFTED, _CALM, _INK, _GRID = "#e07a1f", "#c3d6e0", "#22303c", "#e3e8ec"
_MOST = 20
"""Columns shown, those that moved furthest."""
_LABEL = 40
"""Characters of a column's name, at most."""


def drift_picture(report: DriftReport) -> bytes:
    """A PNG; the report has a column or more."""
    from matplotlib.figure import Figure

    columns = sorted(report.columns, key=lambda column: -column.times)[:_MOST]
    with names_are_text():
        figure = Figure(figsize=(7.4, 1.3 + 0.24 * len(columns)), dpi=110, layout="constrained")
        axes = figure.subplots()
        colours = [_DRIFTED if column.drifted else _CALM for column in columns]
        axes.barh(range(len(columns)), [max(column.times, 0) for column in columns], height=0.66, color=colours)
        axes.axvline(1, color=_INK, linewidth=1, linestyle=(0, (2, 3)))
        axes.set_yticks(range(len(columns)), [f"{plain(c.name, _LABEL)}  ({c.group})" for c in columns], fontsize=9)
        title = f"How far columns moved: the {len(columns)} furthest of {len(report.columns)}"
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=_INK)
        axes.set(xlabel="times the threshold of the column (dotted: drifted from here on)", ylim=(len(columns), -1))
        axes.grid(axis="x", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        drawn = BytesIO()
        figure.savefig(drawn, format="png")
    return drawn.getvalue()
