"""Whether a model is served what it was trained on: records by the training path and by the scoring path."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.features.checks import rows_at
from assets.features.serving import materialize, online_features
from assets.features.snapshot import with_features
from assets.lake import Home
from assets.scoring.score import has_text, score_rows
from assets.settings import ScoringSettings
from assets.training.task import Predictor

__all__ = ["TOLERANCE", "Parity", "measure_parity"]

TOLERANCE = 1e-5
"""The largest difference of a confidence."""
_ROWS = 100
"""Each is read by the model twice."""


@dataclass(frozen=True)
class Parity:
    """Records routed twice: those sent to another label, and the largest difference of a confidence."""

    rows: int
    others: int
    max_difference: float

    @property
    def equal(self) -> bool:
        """Without rows nothing is known, so nothing is equal."""
        return self.rows > 0 and self.others == 0 and self.max_difference <= TOLERANCE


def measure_parity(home: Home, as_of: str, bundle: Predictor, settings: ScoringSettings) -> Parity:
    """Route records as if they had come in at as-of, by either path, in float32.

    Training's: features joined by the offline store, the bundle asked directly. Scoring's: features from an online
    store filled as of the date, and what `evergreen score` and `predictions` do with them. What is being served stays.
    """
    found: list[Parity] = []

    def compare(folder: Path) -> bool:
        found.append(_compare(home, as_of, folder, bundle, settings.model_copy(update={"precision": "float32"})))
        return False

    materialize(home, as_of, compare)
    return found[0]


def _compare(home: Home, as_of: str, folder: Path, bundle: Predictor, settings: ScoringSettings) -> Parity:
    marts = home.lake.current("marts")
    rows = rows_at(marts, datetime.fromisoformat(as_of), home.domain.known)
    rows = rows[has_text(rows)].head(_ROWS).reset_index(drop=True)
    if rows.empty:
        return Parity(0, 0, 0.0)
    trained = with_features(home, marts, pa.Table.from_pandas(rows, preserve_index=False), bundle.features).to_pandas()
    expected = bundle.predict_proba(trained)
    served = score_rows(bundle, online_features(home, rows, folder), "", settings)
    others = served["predicted"].to_numpy() != np.array(bundle.labels)[expected.argmax(axis=1)]
    difference = np.abs(served["confidence"].to_numpy(float) - expected.max(axis=1)).max()
    return Parity(len(rows), int(others.sum()), float(difference))
