"""The drift report: the content of `drift.json`, published as the lake table `drift/<as_of>`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assets.lake import Lake
from assets.monitoring.comparison import Column, shares

__all__ = ["DriftReport", "Earlier", "earlier_windows", "load_drift", "read_drift"]


@dataclass(frozen=True)
class DriftReport:
    """A comparison and its result; `detected` and `share` are None when drift could not be measured."""

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
    since: dict[str, str] = field(default_factory=dict)
    """By drifted column, the first of the consecutive windows up to this one in which it had drifted."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why groups were not measured."""
    training_id: str | None = None
    """The training id of the measured champion; None without one."""
    share_threshold: float | None = None
    """The share of a group's drifted columns above which there is drift; None if nothing was measured."""

    @property
    def groups(self) -> dict[str, float]:
        """The share of drifted columns by group."""
        return shares(self.columns)


@dataclass(frozen=True)
class Earlier:
    """An earlier window of the same champion."""

    as_of: str
    drifted: frozenset[str]
    """The columns that had drifted."""
    share: float | None


def load_drift(lake: Lake, as_of: str) -> DriftReport:
    """The published report of an as-of date. Raises NotPublished."""
    content = read_drift(lake.current(f"drift/{as_of}"))
    return DriftReport(**{**content, "columns": tuple(Column(**column) for column in content["columns"])})


def earlier_windows(lake: Lake, as_of: str, training_id: str | None) -> tuple[Earlier, ...]:
    """The windows before as_of that were measured for the champion of this training, newest last."""
    tables = [table for table in lake.tables("drift") if table.removeprefix("drift/") < as_of]
    published = [read_drift(lake.current(table)) for table in tables]
    return tuple(
        Earlier(content["as_of"], frozenset(c["name"] for c in content["columns"] if c["drifted"]), content["share"])
        for content in published
        if training_id and content.get("training_id") == training_id and content["detected"] is not None
    )


def read_drift(folder: Path) -> dict[str, Any]:
    """The content of a published report, as JSON."""
    content: dict[str, Any] = json.loads((folder / "drift.json").read_text())
    return content
