"""The training rows of a snapshot as arrays, chunk by chunk: made here, or by the workers of a cluster in advance.

<prepared>/encoder/preprocessing.json          fitted to the rows that are trained on
<prepared>/encoder/tokenizer.json              truncating at the window's length
<prepared>/answers/<number>/<try>/rows.npz     the arrays of a chunk
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assets.exceptions import BaseModelError
from assets.training.plan import TrainingPlan, count_validation_rows
from assets.training.tasks.classification.labels import places
from assets.training.tasks.classification.preprocessing import (
    Encoded,
    Preprocessing,
    fit_preprocessing,
    load_preprocessing,
)

__all__ = ["ARRAYS", "Arrays", "Encoder", "chunks", "encoded_rows", "fit_encoder", "load_encoder", "read_tokenizer"]

ARRAYS = tuple(field.name for field in fields(Encoded))
Arrays = dict[str, NDArray[Any]]
"""Those of some encoded rows, and their `labels`, int64 indices."""

_PREPROCESSING, _TOKENIZER, _ROWS = "preprocessing.json", "tokenizer.json", "rows.npz"
_CHUNK_ROWS = 8192
"""Rows encoded at a time, which bounds the memory of building a cache."""


@dataclass(frozen=True)
class Encoder:
    """Encodes rows with their labels."""

    fitted: Preprocessing
    tokenizer: Tokenizer

    def encode(self, chunk: pa.Table) -> Arrays:
        rows = _columns(chunk, self.fitted.features)
        encoded = self.fitted.encode(rows, self.tokenizer)
        arrays = {name: getattr(encoded, name) for name in ARRAYS}
        return arrays | {"labels": places(rows["label"], self.fitted.labels)}

    def write(self, chunk: pa.Table, folder: Path) -> None:
        """Encode rows into a file of an empty folder."""
        arrays: dict[str, Any] = self.encode(chunk)
        np.savez(folder / _ROWS, **arrays)

    def save(self, folder: Path) -> None:
        """Write what `load_encoder` reads into an empty folder."""
        self.fitted.save(folder / _PREPROCESSING)
        self.tokenizer.save(str(folder / _TOKENIZER))


def encoded_rows(plan: TrainingPlan) -> tuple[Preprocessing, Iterator[Arrays]]:
    """What is fitted to the rows that are trained on, and all rows as arrays, chunk by chunk."""
    if plan.prepared is not None:
        return load_encoder(plan.prepared / "encoder").fitted, _prepared(plan.prepared)
    encoder = fit_encoder(plan)
    return encoder.fitted, map(encoder.encode, chunks(plan))


def _prepared(folder: Path) -> Iterator[Arrays]:
    """The arrays that workers have made."""
    for path in sorted(folder.glob(f"answers/*/*/{_ROWS}")):
        with np.load(path, allow_pickle=False) as arrays:
            yield dict(arrays)


def fit_encoder(plan: TrainingPlan) -> Encoder:
    """Fit to the rows that are trained on; rows are ordered by the instant they became known, newest last."""
    settings = plan.settings
    table = pq.read_table(_file(plan), columns=["label", *plan.features])
    trained = table.slice(0, len(table) - count_validation_rows(len(table), settings))
    fitted = fit_preprocessing(
        _columns(trained, plan.features),
        plan.features,
        plan.domain,
        settings.model.max_tokens,
        settings.model.hashed_words,
        settings.model.prior_labels,
    )
    return Encoder(fitted, read_tokenizer(plan))


def load_encoder(folder: Path) -> Encoder:
    """One that was saved, which needs the folder no longer."""
    return Encoder(load_preprocessing(folder / _PREPROCESSING), Tokenizer.from_file(str(folder / _TOKENIZER)))


def chunks(plan: TrainingPlan) -> Iterator[pa.Table]:
    """The columns of the snapshot's rows that are read."""
    text = plan.domain.text
    columns = dict.fromkeys(("label", "text", *text.before, *text.whole, *plan.features))
    with pq.ParquetFile(_file(plan), pre_buffer=False) as file:
        for batch in file.iter_batches(_CHUNK_ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def read_tokenizer(plan: TrainingPlan) -> Tokenizer:
    """The base model's own, truncating at the window's length; it is also the bundle's."""
    tokenizer = _tokenizer(plan.base_model)
    tokenizer.enable_truncation(plan.settings.model.max_tokens)
    tokenizer.no_padding()
    return tokenizer


def _tokenizer(base_model: Path) -> Tokenizer:
    if (base_model / _TOKENIZER).is_file():
        return Tokenizer.from_file(str(base_model / _TOKENIZER))
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(base_model, local_files_only=True, trust_remote_code=False)
    if not read.is_fast:
        raise BaseModelError(f"training.model.base_model: {base_model} has no tokenizer.json and none can be made")
    tokenizer: Tokenizer = read.backend_tokenizer
    return tokenizer


def _file(plan: TrainingPlan) -> Path:
    return plan.snapshot / "train.parquet"


def _columns(rows: pa.Table, features: tuple[str, ...]) -> dict[str, Any]:
    """Columns by name. Importing pandas would take a second of every start."""
    texts = [name for name in rows.schema.names if name not in features]
    columns: dict[str, Any] = {name: rows[name].to_pylist() for name in texts}
    return columns | {name: rows[name].to_numpy() for name in rows.schema.names if name in features}
