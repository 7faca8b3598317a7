"""How the rows of both sides are distributed over a column's categories: Evidently compares that, the page draws it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assets.display import label_name
from assets.monitoring.columns import fit_binning
from assets.monitoring.comparison import Column, Side
from assets.settings import Domain, DriftSettings

__all__ = ["Binned", "Distribution", "bin_columns", "read_distributions", "write_distributions"]

_FILE = "distributions.json"
_LABELS = ("label", "predicted_label")
"""Columns whose categories are labels."""


@dataclass(frozen=True)
class Distribution:
    """The numbers of rows by category, in the order of `names`."""

    names: tuple[str, ...]
    """Display names; those of numbers are in ascending order."""
    reference: tuple[int, ...]
    current: tuple[int, ...]


@dataclass(frozen=True)
class Binned:
    """A column of both sides as places in `names`, [rows]."""

    names: tuple[str, ...]
    reference: npt.NDArray[np.int64]
    current: npt.NDArray[np.int64]
    numeric: bool

    @property
    def distribution(self) -> Distribution:
        """Of the categories that a side has."""
        counts = [np.bincount(side, minlength=len(self.names)) for side in (self.reference, self.current)]
        kept = np.flatnonzero(counts[0] + counts[1])
        reference, current = (tuple(side[kept].tolist()) for side in counts)
        return Distribution(tuple(self.names[place] for place in kept), reference, current)


def bin_columns(
    columns: Iterable[Column], reference: Side, current: Side, domain: Domain, settings: DriftSettings
) -> dict[str, Binned]:
    """The measured columns of both sides in the categories that they were measured by, by name."""
    return {column.name: _binned(column, reference, current, domain, settings) for column in columns}


def _binned(column: Column, reference: Side, current: Side, domain: Domain, settings: DriftSettings) -> Binned:
    left, right = (side.groups[column.group][column.name] for side in (reference, current))
    binning = fit_binning(left, settings.bins, len(right))
    names = tuple(label_name(domain, name) if column.name in _LABELS else name for name in binning.names)
    return Binned(names, binning.codes(left), binning.codes(right), binning.edges is not None)


def write_distributions(binned: Mapping[str, Binned], folder: Path) -> None:
    """Write the distributions beside a report."""
    content = {name: asdict(column.distribution) for name, column in binned.items()}
    (folder / _FILE).write_text(json.dumps(content))


def read_distributions(folder: Path) -> dict[str, Distribution]:
    """By column; none for a report from before there were any."""
    path = folder / _FILE
    content: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    return {name: Distribution(**{side: tuple(row) for side, row in each.items()}) for name, each in content.items()}
