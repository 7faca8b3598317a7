"""The training rows of a snapshot, encoded once, then memory-mapped from the cache by every rank."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assets.hashing import hash_file, hash_json
from assets.training.plan import TrainingPlan, count_validation_rows
from assets.training.program import cache
from assets.training.program.batches import Integers
from assets.training.program.cache import cached, map_array, write_arrays
from assets.training.task import Batch
from assets.training.tasks.classification.collate import collate
from assets.training.tasks.classification.encoding import ARRAYS, encoded_rows, read_tokenizer
from assets.training.tasks.classification.labels import class_weights
from assets.training.tasks.classification.preprocessing import Encoded, Preprocessing, load_preprocessing
from assets.training.tasks.classification.words import fit_words

__all__ = ["TrainingData", "load_training_data"]

_CODE = (
    Path(cache.__file__),
    *(Path(__file__).with_name(f"{name}.py") for name in ("data", "encoding", "labels", "preprocessing", "words")),
)
"""The code that determines a cache's content."""
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
    """Map the snapshot's training rows from the cache, or encode them into it, unless workers have done that before."""
    tokenizer = read_tokenizer(plan)

    def read(folder: Path) -> TrainingData:
        fitted = load_preprocessing(folder / "preprocessing.json")
        rows, labels, words = _map_rows(folder), map_array(folder / "labels.npy"), folder / "word_weights.npy"
        trained = len(rows) - count_validation_rows(len(rows), plan.settings)
        weights = class_weights(fitted.frequencies, labels[:trained], plan.settings.optimizer.class_weight_power)
        return TrainingData(
            rows, labels, trained, weights, map_array(words), fitted, tokenizer, window=fitted.max_tokens
        )

    return cached(plan.cache, _key(plan, tokenizer), lambda folder: _make(folder, plan), read)


def _make(folder: Path, plan: TrainingPlan) -> None:
    fitted, parts = encoded_rows(plan)
    fitted.save(folder / "preprocessing.json")
    write_arrays(folder, parts)
    _write_words(folder, plan, fitted)


def _write_words(folder: Path, plan: TrainingPlan, fitted: Preprocessing) -> None:
    """Fit the linear branch to the rows that are trained on."""
    rows, labels = _map_rows(folder), map_array(folder / "labels.npy")
    newest = np.arange(len(rows) - count_validation_rows(len(rows), plan.settings))[-_FITTED_ROWS:]
    weights = class_weights(fitted.frequencies, labels[newest], plan.settings.optimizer.class_weight_power)
    np.save(folder / "word_weights.npy", fit_words(rows.take(newest), labels[newest], weights, fitted.hashed_words))


def _map_rows(folder: Path) -> Encoded:
    return Encoded(**{name: map_array(folder / f"{name}.npy") for name in ARRAYS})


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
