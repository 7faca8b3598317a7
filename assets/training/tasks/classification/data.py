"""The training rows of a snapshot, ready for the model: encoded once, then mapped from the cache by every rank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assets.exceptions import BaseModelError
from assets.lake import hash_file, hash_json
from assets.settings import TrainingSettings
from assets.training.plan import TrainingPlan, count_validation_rows
from assets.training.program import cache
from assets.training.program.batches import Sampler, token_batches
from assets.training.program.cache import cached, map_array, write_arrays
from assets.training.tasks.classification import preprocessing, words
from assets.training.tasks.classification.preprocessing import (
    Encoded,
    Integers,
    Preprocessing,
    fit_preprocessing,
    load_preprocessing,
)
from assets.training.tasks.classification.words import fit_words

__all__ = ["TrainingData", "load_training_data"]

_ARRAYS = tuple(field.name for field in fields(Encoded))
_CHUNK_ROWS = 8192
"""Rows encoded at a time: what bounds the memory of making a cache."""
_FITTED_ROWS = 50_000
"""The newest rows that the linear branch is fitted to: all at once, in memory."""


@dataclass(frozen=True)
class TrainingData:
    """The snapshot's training rows, encoded and labelled (int64, places in all labels), and what encodes further rows.

    The first `trained` rows are trained on; the newer ones after them are held back for validation.
    """

    rows: Encoded
    labels: Integers
    trained: int
    word_weights: NDArray[np.float32]
    """The fitted weights of the linear branch, [buckets, labels]."""
    preprocessing: Preprocessing
    tokenizer: Tokenizer

    @property
    def validation(self) -> Integers:
        """The rows that are never trained on: the newest. Empty when none are held back."""
        return np.arange(self.trained, len(self.rows))

    def sampler(self, settings: TrainingSettings, world_size: int) -> Sampler:
        """The rows of every step, as indices into `rows`."""
        return Sampler(
            lengths=self.rows.lengths[: self.trained],
            epochs=settings.epochs,
            batch_rows=settings.batch_rows,
            batch_tokens=settings.batch_tokens,
            seed=settings.seed,
            world_size=world_size,
            window=self.preprocessing.max_tokens,
        )

    def validation_batches(self, batch_tokens: int, rank: int, world_size: int) -> list[Integers]:
        """A rank's part of the validation rows, in as many batches as every other rank has.

        Rows that cannot be shared evenly, fewer than there are ranks, are left out: the oldest.
        """
        shared, window = self.validation[len(self.validation) % world_size :], self.preprocessing.max_tokens
        return token_batches(shared, self.rows.lengths, batch_tokens, rank, world_size, window) if len(shared) else []

    def class_weights(self, power: float) -> NDArray[np.float32]:
        """One weight a label, its frequency to minus `power`, such that the mean over the rows trained on is 1."""
        return class_weights(self.preprocessing.frequencies, self.labels[: self.trained], power)


def class_weights(frequencies: Sequence[float], labels: Integers, power: float) -> NDArray[np.float32]:
    """One weight a label, its frequency to minus `power`, such that the mean over rows with these labels is 1."""
    weights = np.array(frequencies) ** -power
    return np.asarray(weights / weights[labels].mean(), np.float32)


def load_training_data(plan: TrainingPlan) -> TrainingData:
    """Map the snapshot's training rows from the cache, or read and encode them into it."""
    tokenizer = _tokenizer(plan)

    def read(folder: Path) -> TrainingData:
        fitted = load_preprocessing(folder / "preprocessing.json")
        rows = _map_rows(folder)
        labels = map_array(folder / "labels.npy")
        trained = len(rows) - count_validation_rows(len(rows), plan.settings)
        return TrainingData(rows, labels, trained, map_array(folder / "word_weights.npy"), fitted, tokenizer)

    return cached(plan.cache, _key(plan, tokenizer), lambda folder: _make(folder, plan, tokenizer), read)


def _make(folder: Path, plan: TrainingPlan, tokenizer: Tokenizer) -> None:
    fitted = _fit(plan)
    fitted.save(folder / "preprocessing.json")
    write_arrays(folder, _encode(plan, fitted, tokenizer))
    _write_words(folder, plan, fitted)


def _write_words(folder: Path, plan: TrainingPlan, fitted: Preprocessing) -> None:
    """Fit the linear branch to the rows that are trained on."""
    rows, labels = _map_rows(folder), map_array(folder / "labels.npy")
    if not fitted.hashed_words:
        np.save(folder / "word_weights.npy", np.zeros((0, len(fitted.labels)), np.float32))
        return
    newest = np.arange(len(rows) - count_validation_rows(len(rows), plan.settings))[-_FITTED_ROWS:]
    weights = class_weights(fitted.frequencies, labels[newest], plan.settings.class_weight_power)
    np.save(folder / "word_weights.npy", fit_words(rows.take(newest), labels[newest], weights, fitted.hashed_words))


def _fit(plan: TrainingPlan) -> Preprocessing:
    """A snapshot's rows are ordered by the instant they were known at, so that the newest are the last."""
    settings = plan.settings
    table = pq.read_table(_file(plan), columns=["label", *plan.features])
    trained = table.slice(0, len(table) - count_validation_rows(len(table), settings))
    return fit_preprocessing(
        _columns(trained, plan),
        plan.features,
        plan.domain,
        settings.max_tokens,
        settings.hashed_words,
        settings.prior_labels,
    )


def _encode(plan: TrainingPlan, fitted: Preprocessing, tokenizer: Tokenizer) -> Iterator[dict[str, NDArray[Any]]]:
    with pq.ParquetFile(_file(plan), pre_buffer=False) as file:
        for batch in file.iter_batches(_CHUNK_ROWS, columns=["label", *fitted.columns, *plan.features]):
            rows = _columns(batch, plan)
            encoded = fitted.encode(rows, tokenizer)
            labels = np.array([fitted.labels.index(label) for label in rows["label"]], np.int64)
            yield {name: getattr(encoded, name) for name in _ARRAYS} | {"labels": labels}


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
    """All that encoded rows are a function of, the window's length being in the tokenizer."""
    settings = plan.settings.model_dump(
        include={"hashed_words", "class_weight_power", "prior_labels", "validation_share"}
    )
    made_of = {
        "snapshot": plan.snapshot_id,
        "features": plan.features,
        "labels": plan.labels,
        "text": plan.domain.text.model_dump(),
        "tokenizer": tokenizer.to_str(),
        "settings": settings,
        "code": [hash_file(Path(file)) for file in (__file__, cache.__file__, preprocessing.__file__, words.__file__)],
        "software": {name: version(name) for name in ("numpy", "tokenizers")},
    }
    return hash_json(made_of)[:16]


def _tokenizer(plan: TrainingPlan) -> Tokenizer:
    """The base model's own, cutting at the window's length: it is the bundle's, too."""
    tokenizer = _read_tokenizer(plan.base_model)
    tokenizer.enable_truncation(plan.settings.max_tokens)
    tokenizer.no_padding()
    return tokenizer


def _read_tokenizer(base_model: Path) -> Tokenizer:
    if (base_model / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(base_model / "tokenizer.json"))
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(base_model, local_files_only=True, trust_remote_code=False)
    if not found.is_fast:
        raise BaseModelError(f"training.base_model: {base_model} has no tokenizer.json and none can be made")
    tokenizer: Tokenizer = found.backend_tokenizer
    return tokenizer
