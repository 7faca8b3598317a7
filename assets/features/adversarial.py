"""Adversarial validation: how well features separate test rows from train rows."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import pandas as pd

from assets.features.snapshot import Snapshot

__all__ = ["Separation", "tell_apart"]

_ROWS = 4000
_FOLDS = 3
_SHOWN = 5


@dataclass(frozen=True)
class Separation:
    """Areas under the ROC curve, 0.5 for no separation: of all features together, and of the best ones alone."""

    auc: float
    calm: float
    """Of all features, for the newest train rows and those before them: what growing statistics alone do."""
    features: dict[str, float]
    rows: int
    """Of each kind."""

    @property
    def allowed(self) -> float:
        """`calm` and three standard errors, at most, of the difference of two such areas, up to halfway to 1."""
        return min(self.calm + 3 * sqrt(2 * self.calm * (1 - self.calm) / self.rows), (1 + self.calm) / 2)


def tell_apart(snapshot: Snapshot) -> Separation:
    """Train boosted trees to separate train rows from test rows, cross-validated.

    Equal numbers of each, up to 4,000 in all, train rows spread evenly over their period. A model that can pick out
    the newer rows has found a change, a leak, or statistics that grow: these part the newest train rows as well.
    """
    names = list(snapshot.features)
    train, test = (pd.read_parquet(snapshot.path / f"{part}.parquet", columns=names) for part in ("train", "test"))
    size = min(len(train) // 2, len(test), _ROWS // 2)
    rows, is_test = _spread(train, test, size)
    alone = {name: _auc(is_test, column) for name, column in zip(names, rows.T, strict=True)}
    best = sorted(alone.items(), key=lambda item: -item[1])[:_SHOWN]
    calm = _separation(*_spread(train[:-size], train[-size:], size))
    return Separation(_separation(rows, is_test), calm, dict(best), size)


def _separation(rows: np.ndarray, is_newer: np.ndarray) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_predict

    trees = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    return _auc(is_newer, cross_val_predict(trees, rows, is_newer, cv=_FOLDS, method="predict_proba")[:, 1])


def _spread(older: pd.DataFrame, newer: pd.DataFrame, size: int) -> tuple[np.ndarray, np.ndarray]:
    """As many evenly spaced rows of either, and which are the newer."""
    parts = [rows.iloc[np.linspace(0, len(rows) - 1, size).round().astype(int)] for rows in (older, newer)]
    return pd.concat(parts).to_numpy(np.float64), np.repeat([False, True], size)


def _auc(truth: np.ndarray, score: np.ndarray) -> float:
    """The AUC of a score or of its negation, whichever is greater; missing values rank lowest."""
    from sklearn.metrics import roc_auc_score

    auc = float(roc_auc_score(truth, np.nan_to_num(score, nan=-1e9)))
    return max(auc, 1 - auc)
