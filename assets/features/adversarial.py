"""Adversarial validation: how well features separate test rows from train rows."""

from dataclasses import dataclass

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
    features: dict[str, float]


def tell_apart(snapshot: Snapshot) -> Separation:
    """Train boosted trees to separate train rows from test rows, cross-validated.

    Equal numbers of each, up to 4,000 in all, train rows spread evenly over their period. A model that can pick out
    the newer rows has found a change, or a leak.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_predict

    names = list(snapshot.features)
    train, test = (pd.read_parquet(snapshot.path / f"{part}.parquet", columns=names) for part in ("train", "test"))
    size = min(len(train), len(test), _ROWS // 2)
    rows = np.concatenate([_spread(train, size), _spread(test, size)])
    is_test = np.repeat([False, True], size)
    trees = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    score = cross_val_predict(trees, rows, is_test, cv=_FOLDS, method="predict_proba")[:, 1]
    alone = {name: _auc(is_test, column) for name, column in zip(names, rows.T, strict=True)}
    best = sorted(alone.items(), key=lambda item: -item[1])[:_SHOWN]
    return Separation(_auc(is_test, score), dict(best))


def _spread(rows: pd.DataFrame, size: int) -> np.ndarray:
    """Evenly spaced rows."""
    return rows.iloc[np.linspace(0, len(rows) - 1, size).round().astype(int)].to_numpy(np.float64)


def _auc(truth: np.ndarray, score: np.ndarray) -> float:
    """The AUC of a score or of its negation, whichever is greater; missing values rank lowest."""
    from sklearn.metrics import roc_auc_score

    auc = float(roc_auc_score(truth, np.nan_to_num(score, nan=-1e9)))
    return max(auc, 1 - auc)
