"""The training rows of a snapshot, encoded once, then memory-mapped from the cache by every rank."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assets.exceptions import BaseModelError
from assets.hashing import hash_file, hash_json
from assets.training.plan import TrainingPlan, count_validation_rows
from assets.training.program import cache
from assets.training.program.batches import Integers
from assets.training.program.cache import cached, map_array, write_arrays
from assets.training.task import Batch
from assets.training.tasks.classification.collate import collate
from assets.training.tasks.classification.labels import class_weights, places
from assets.training.tasks.classification.preprocessing import (
    Encoded,
    Preprocessing,
    fit_preprocessing,
    load_preprocessing,
)
from assets.training.tasks.classification.words import fit_words

__all__ = ["TrainingData", "load_training_data"]

_ARRAYS = tuple(field.name for field in fields(Encoded))
_CODE = (
    Path(cache.__file__),
    *(Path(__file__).with_name(f"{name}.py") for name in ("data", "labels", "preprocessing", "words")),
)
"""The code that determines a cache's content."""
_CHUNK_ROWS = 8192
"""Rows encoded at a time, which bounds the memory of building a cache."""
_FITTED_ROWS = 50_000
"""The number of newest rows to which the linear branch is fitted, all at once in memory."""


@dataclass(frozen=True)
class TrainingData:
    """The snapshot's training rows, encoded, with their labels (int64 indices), and the encoder of further rows.

    The first `trained` rows are trained on; the newer ones after them are held back for validation.
    """

    rows: Encoded
    labels: Integers
    trained: int
    class_weights: NDArray[np.float32]
    """The weight in the loss of a row with each label, [labels]."""
    word_weights: NDArray[np.float32]
    """The fitted weights of the linear branch, [buckets, labels]."""
    preprocessing: Preprocessing
    tokenizer: Tokenizer
    window: int | None

    @property
    def lengths(self) -> Integers:
        """Tokens of each row."""
        return self.rows.lengths

    def weight(self, rows: Integers) -> float:
        """The weight of some rows in the loss."""
        return float(torch.from_numpy(self.class_weights[self.labels[rows]]).sum())

    def batch(self, rows: Integers, padding: int) -> Batch:
        """The model's inputs and the labels of some rows; `padding` is the token that pads short ones."""
        return Batch(collate(self.rows, rows, padding, self.window), torch.from_numpy(self.labels[rows]))


def load_training_data(plan: TrainingPlan) -> TrainingData:
    """Map the snapshot's training rows from the cache, or read and encode them into it."""
    tokenizer = _tokenizer(plan)

    def read(folder: Path) -> TrainingData:
        fitted = load_preprocessing(folder / "preprocessing.json")
        rows, labels, words = _map_rows(folder), map_array(folder / "labels.npy"), folder / "word_weights.npy"
        trained = len(rows) - count_validation_rows(len(rows), plan.settings)
        weights = class_weights(fitted.frequencies, labels[:trained], plan.settings.optimizer.class_weight_power)
        return TrainingData(
            rows, labels, trained, weights, map_array(words), fitted, tokenizer, window=fitted.max_tokens
        )

    return cached(plan.cache, _key(plan, tokenizer), lambda folder: _make(folder, plan, tokenizer), read)


def _make(folder: Path, plan: TrainingPlan, tokenizer: Tokenizer) -> None:
    fitted = _fit(plan)
    fitted.save(folder / "preprocessing.json")
    write_arrays(folder, _encode(plan, fitted, tokenizer))
    _write_words(folder, plan, fitted)


def _write_words(folder: Path, plan: TrainingPlan, fitted: Preprocessing) -> None:
    """Fit the linear branch to the rows that are trained on."""
    rows, labels = _map_rows(folder), map_array(folder / "labels.npy")
    newest = np.arange(len(rows) - count_validation_rows(len(rows), plan.settings))[-_FITTED_ROWS:]
    weights = class_weights(fitted.frequencies, labels[newest], plan.settings.optimizer.class_weight_power)
    np.save(folder / "word_weights.npy", fit_words(rows.take(newest), labels[newest], weights, fitted.hashed_words))


def _fit(plan: TrainingPlan) -> Preprocessing:
    """Fit to the rows that are trained on; rows are ordered by the instant they became known, newest last."""
    settings = plan.settings
    table = pq.read_table(_file(plan), columns=["label", *plan.features])
    trained = table.slice(0, len(table) - count_validation_rows(len(table), settings))
    return fit_preprocessing(
        _columns(trained, plan),
        plan.features,
        plan.domain,
        settings.model.max_tokens,
        settings.model.hashed_words,
        settings.model.prior_labels,
    )


def _encode(plan: TrainingPlan, fitted: Preprocessing, tokenizer: Tokenizer) -> Iterator[dict[str, NDArray[Any]]]:
    with pq.ParquetFile(_file(plan), pre_buffer=False) as file:
        for batch in file.iter_batches(_CHUNK_ROWS, columns=["label", *fitted.columns, *plan.features]):
            rows = _columns(batch, plan)
            encoded = fitted.encode(rows, tokenizer)
            arrays = {name: getattr(encoded, name) for name in _ARRAYS}
            yield arrays | {"labels": places(rows["label"], fitted.labels)}


def _map_rows(folder: Path) -> Encoded:
    return Encoded(**{name: map_array(folder / f"{name}.npy") for name in _ARRAYS})


def _file(plan: TrainingPlan) -> Path:
    return plan.snapshot / "train.parquet"


def _columns(rows: pa.Table | pa.RecordBatch, plan: TrainingPlan) -> dict[str, Any]:
    """Columns by name. Importing pandas would take a second of every start."""
    texts = [name for name in rows.schema.names if name not in plan.features]
    features = [name for name in rows.schema.names if name in plan.features]
    columns: dict[str, Any] = {name: rows[name].to_pylist() for name in texts}
    return columns | {name: rows[name].to_numpy(zero_copy_only=False) for name in features}


def _key(plan: TrainingPlan, tokenizer: Tokenizer) -> str:
    """A hash of everything that encoded rows depend on; the window's length is in the tokenizer."""
    of_settings: dict[str, set[str]] = {
        "model": {"hashed_words", "prior_labels"},
        "optimizer": {"class_weight_power", "validation_share"},
    }
    made_of = {
        "snapshot": plan.snapshot_id,
        "features": plan.features,
        "labels": plan.labels,
        "text": plan.domain.text.model_dump(),
        "tokenizer": tokenizer.to_str(),
        "settings": plan.settings.model_dump(include=of_settings),
        "code": [hash_file(file) for file in _CODE],
        "software": {name: version(name) for name in ("numpy", "tokenizers")},
    }
    return hash_json(made_of)[:16]


def _tokenizer(plan: TrainingPlan) -> Tokenizer:
    """The base model's own, truncating at the window's length; it is also the bundle's."""
    tokenizer = _read_tokenizer(plan.base_model)
    tokenizer.enable_truncation(plan.settings.model.max_tokens)
    tokenizer.no_padding()
    return tokenizer


def _read_tokenizer(base_model: Path) -> Tokenizer:
    if (base_model / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(base_model / "tokenizer.json"))
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(base_model, local_files_only=True, trust_remote_code=False)
    if not read.is_fast:
        raise BaseModelError(f"training.model.base_model: {base_model} has no tokenizer.json and none can be made")
    tokenizer: Tokenizer = read.backend_tokenizer
    return tokenizer
