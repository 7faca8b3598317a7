"""The champion's own evaluation, the yardstick of monitoring."""

from pathlib import Path

import pandas as pd

from assets.evaluation.report import read_evaluation, table
from assets.lake import Lake
from assets.registry.registry import RegisteredVersion

__all__ = ["evaluated_rows"]


def evaluated_rows(lake: Lake, champion: RegisteredVersion) -> pd.DataFrame | None:
    """The champion's answers to its snapshot's test rows, in order of time; None if it has no evaluation any more.

    For a refit, which has learned from those rows, they are the answers of the version that was evaluated.
    Columns: record_id, known_at, label (the truth), predicted, confidence.
    """
    folder = _evaluation(lake, champion)
    if folder is None:
        return None
    columns = ["record_id", "known_at", "label", "predicted", "confidence"]
    rows = pd.read_parquet(folder / "predictions.parquet", columns=columns)
    return rows.sort_values(["known_at", "record_id"], ignore_index=True)


def _evaluation(lake: Lake, champion: RegisteredVersion) -> Path | None:
    """An evaluation of this champion; the same as-of may have those of other challengers."""
    evaluated = champion.refit_of or champion.training_id
    for _, version in lake.versions(table(champion.as_of)):
        folder = lake.path(table(champion.as_of), version)
        if (folder / "evaluation.json").exists() and read_evaluation(folder).training_id == evaluated:
            return folder
    return None
