"""The pure core of scoring, the same wherever it runs: one answer with its confidence per row."""

import numpy as np
import pandas as pd
import pyarrow as pa

from assets.settings import ScoringSettings
from assets.training.task import Predictor

__all__ = ["NO_TEXT", "answer_rows", "answers_schema", "has_text", "score_rows"]

_COLUMNS = ("record_id", "as_of", "predicted", "confidence", "model_version", "reason")

NO_TEXT = "no-text"
"""The reason for a row with nothing to read: the model needs text."""


def has_text(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows have text other than white space."""
    return rows["text"].fillna("").astype(str).str.strip() != ""


def score_rows(model: Predictor, rows: pd.DataFrame, version: str, settings: ScoringSettings) -> pd.DataFrame:
    """predicted, confidence, model_version and reason for every row, with the index of `rows`.

    `rows` has the model's inputs, including its feature columns. Confidence is the probability (0 to 1) of the chosen
    label. A row without text has no label and the reason `no-text`.
    """
    text = has_text(rows).to_numpy()
    scored = pd.DataFrame({"predicted": None, "confidence": np.nan, "model_version": version}, index=rows.index)
    scored["predicted"] = scored["predicted"].astype(object)
    scored["reason"] = [None if readable else NO_TEXT for readable in text]
    if text.any():
        probabilities = model.predict_proba(rows[text], settings.batch_tokens, settings.precision)
        assert probabilities.shape == (int(text.sum()), len(model.labels))
        scored.loc[text, "predicted"] = np.array(model.labels, dtype=object)[probabilities.argmax(axis=1)]
        scored.loc[text, "confidence"] = probabilities.max(axis=1)
    return scored


def answer_rows(model: Predictor, rows: pd.DataFrame, as_of: str, version: str, settings: ScoringSettings) -> pa.Table:
    """The rows of `predictions` for records with their features, in the given order; the index of `rows` counts."""
    scored = score_rows(model, rows, version, settings)
    scored = scored.assign(record_id=rows["record_id"], as_of=as_of)
    table = pd.concat([scored[list(_COLUMNS)], rows[list(model.features)].astype("float64")], axis=1)
    return pa.Table.from_pandas(table, schema=answers_schema(model), preserve_index=False)


def answers_schema(model: Predictor) -> pa.Schema:
    """The columns of `predictions`: the last are the features used."""
    text = [(name, pa.float64() if name == "confidence" else pa.string()) for name in _COLUMNS]
    return pa.schema([*text, *((name, pa.float64()) for name in model.features)])
