"""The pure core of scoring: rows in, one answer with its confidence per row out."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from assets.settings import Precision, ScoringSettings

__all__ = ["NO_TEXT", "Classifier", "has_text", "score_rows"]

NO_TEXT = "no-text"
"""The reason of a row that has nothing to read: the model routes text only."""


class Classifier(Protocol):
    """What scoring needs of a bundle."""

    @property
    def id(self) -> str: ...

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def compile(self, precision: Precision) -> None: ...

    def predict_proba(
        self, rows: pd.DataFrame, batch_tokens: int = ..., precision: Precision = ...
    ) -> npt.NDArray[np.float64]: ...


def has_text(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows have a text that is more than white space."""
    return rows["text"].fillna("").astype(str).str.strip() != ""


def score_rows(bundle: Classifier, rows: pd.DataFrame, version: str, settings: ScoringSettings) -> pd.DataFrame:
    """predicted, confidence, model_version and reason for every row, with the index of `rows`.

    `rows` holds what the bundle reads, its feature columns among it. Confidence is the
    probability (0 to 1) of the chosen label. A row without a text has no label and the reason `no-text`.
    """
    text = has_text(rows).to_numpy()
    scored = pd.DataFrame({"predicted": None, "confidence": np.nan, "model_version": version}, index=rows.index)
    scored["predicted"] = scored["predicted"].astype(object)
    scored["reason"] = [None if readable else NO_TEXT for readable in text]
    if text.any():
        probabilities = bundle.predict_proba(rows[text], settings.batch_tokens, settings.precision)
        assert probabilities.shape == (int(text.sum()), len(bundle.labels))
        scored.loc[text, "predicted"] = np.array(bundle.labels, dtype=object)[probabilities.argmax(axis=1)]
        scored.loc[text, "confidence"] = probabilities.max(axis=1)
    return scored
