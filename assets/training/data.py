"""The training rows of a snapshot, ready for the model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assets.exceptions import BaseModelError
from assets.settings import QUEUES
from assets.training.plan import TrainingPlan
from assets.training.preprocessing import Encoded, Preprocessing, fit_preprocessing

__all__ = ["TrainingData", "load_training_data"]


@dataclass(frozen=True)
class TrainingData:
    """Encoded rows with their labels (int64, indices into QUEUES), and what encodes further rows."""

    rows: Encoded
    labels: NDArray[np.int64]
    preprocessing: Preprocessing
    tokenizer: Tokenizer

    def class_weights(self, power: float) -> NDArray[np.float32]:
        """One weight a queue, its frequency to minus `power`, such that the mean over the rows is 1."""
        weights = np.array(self.preprocessing.frequencies) ** -power
        return np.asarray(weights / weights[self.labels].mean(), np.float32)


def load_training_data(plan: TrainingPlan) -> TrainingData:
    """Read and encode the snapshot's training rows."""
    settings = plan.settings
    rows = _read(plan)
    preprocessing = fit_preprocessing(
        rows, plan.features, settings.max_tokens, settings.hashed_words, settings.prior_labels
    )
    tokenizer = _tokenizer(plan)
    return TrainingData(
        rows=preprocessing.encode(rows, tokenizer),
        labels=np.array([QUEUES.index(queue) for queue in rows["queue"]], np.int64),
        preprocessing=preprocessing,
        tokenizer=tokenizer,
    )


def _read(plan: TrainingPlan) -> dict[str, Any]:
    """Columns by name. Importing pandas would take a second of every start."""
    texts = ["queue", "narrative", "company", "state"]
    table = pq.read_table(plan.snapshot / "train.parquet", columns=[*texts, *plan.features])
    columns: dict[str, Any] = {name: table[name].to_pylist() for name in texts}
    return columns | {name: table[name].to_numpy() for name in plan.features}


def _tokenizer(plan: TrainingPlan) -> Tokenizer:
    if (plan.base_model / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(plan.base_model / "tokenizer.json"))
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(plan.base_model, local_files_only=True)
    if not found.is_fast:
        raise BaseModelError(f"training.base_model: {plan.base_model} has no tokenizer.json and none can be made")
    tokenizer: Tokenizer = found.backend_tokenizer
    return tokenizer
