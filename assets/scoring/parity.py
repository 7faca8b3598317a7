"""Whether a model is served what it was trained on: records on the training path and on the scoring path."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assets.as_of import instant
from assets.features.checks import rows_at
from assets.features.serving import Place, materialize, online_features
from assets.features.snapshot import with_features
from assets.home import Home
from assets.scoring.score import has_text, score_rows
from assets.settings import ScoringSettings
from assets.training.task import Predictor

__all__ = ["TOLERANCE", "Parity", "measure_parity"]

TOLERANCE = 1e-5
"""The largest difference allowed in a confidence."""
_ROWS = 100
"""Rows compared; the model answers each twice."""


@dataclass(frozen=True)
class Parity:
    """Records scored twice: how many got another label, and the largest difference in a confidence."""

    rows: int
    others: int
    max_difference: float

    @property
    def equal(self) -> bool:
        """Whether the paths agree; not without rows."""
        return self.rows > 0 and self.others == 0 and self.max_difference <= TOLERANCE


def measure_parity(home: Home, as_of: str, bundle: Predictor, settings: ScoringSettings) -> Parity:
    """Score records as if they had come in at as-of, on both paths, in float32.

    Training: features joined by the offline store, the bundle called directly. Scoring: features from an online store
    filled as of the date, as in `evergreen score` and `predictions`. The online store in use does not change.
    """
    parities: list[Parity] = []

    def compare(place: Place) -> bool:
        parities.append(_compare(home, as_of, place, bundle, settings.model_copy(update={"precision": "float32"})))
        return False

    materialize(home, as_of, compare)
    return parities[0]


def _compare(home: Home, as_of: str, place: Place, bundle: Predictor, settings: ScoringSettings) -> Parity:
    marts = home.lake.current("marts")
    rows = rows_at(marts, instant(as_of), home.domain.known)
    rows = rows[has_text(rows)].head(_ROWS).reset_index(drop=True)
    if rows.empty:
        return Parity(0, 0, 0.0)
    trained = with_features(home, marts, pa.Table.from_pandas(rows, preserve_index=False), bundle.features).to_pandas()
    expected = bundle.predict_proba(trained)
    served = score_rows(bundle, online_features(home, rows, place), "", settings)
    others = served["predicted"].to_numpy() != np.array(bundle.labels)[expected.argmax(axis=1)]
    difference = np.abs(served["confidence"].to_numpy(float) - expected.max(axis=1)).max()
    return Parity(len(rows), int(others.sum()), float(difference))
