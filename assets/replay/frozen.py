"""Training with a frozen encoder: its output for each text is computed once and then looked up.

The classifier itself is trained, around a table instead of the encoder: a text's one token is its row. With
`trainable_layers: 0` the worker trains the same, except for dropout inside an encoder that learns nothing.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from assets.settings import Domain, TrainingSettings
from assets.training.base_model import resolve_base_model
from assets.training.plan import count_validation_rows
from assets.training.program.batches import Integers, Sampler, token_batches
from assets.training.program.fit import fit, validate
from assets.training.program.local import LocalEngine
from assets.training.tasks.classification.bert import Hidden
from assets.training.tasks.classification.data import TrainingData
from assets.training.tasks.classification.inference import compile_encoder, run_batches
from assets.training.tasks.classification.labels import class_weights, places
from assets.training.tasks.classification.model import around, load_encoder, mean_pooling
from assets.training.tasks.classification.predictor import TextPredictor
from assets.training.tasks.classification.preprocessing import fit_preprocessing
from assets.training.tasks.classification.task import Classification
from assets.training.tasks.classification.words import fit_words, one_thread
from assets.writing import replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TextTable", "train_frozen"]


class _Token(NamedTuple):
    ids: list[int]


class TextTable:
    """The mean-pooled outputs of a pretrained encoder [texts, width], by text, kept in a folder.

    For Preprocessing it acts as a tokenizer: a text's one token is its row of `outputs`.
    """

    def __init__(self, settings: TrainingSettings, folder: Path) -> None:
        base = resolve_base_model(settings.model.base_model)
        self._base, self._max_tokens = base.path, settings.model.max_tokens
        self._folder = folder / f"{base.digest[:16]}-{settings.model.max_tokens}"
        self._folder.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder)  # the last used stay
        self.config = load_encoder(base.path, settings.model.max_tokens).config
        self.outputs = np.empty((0, self.config.hidden_size), np.float32)
        self._rows: dict[bytes, int] = {}
        for file in sorted(self._folder.glob("*.npz")):
            with np.load(file, allow_pickle=False) as stored:
                self._add([bytes(key) for key in stored["keys"]], stored["outputs"])

    def encode_batch(self, texts: Sequence[str]) -> list[_Token]:
        """The row of each text; new texts are encoded first."""
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        if new:
            self._store(list(new), self._read(list(new.values())))
        return [_Token([self._rows[key]]) for key in keys]

    def enable_truncation(self, max_tokens: int) -> None:
        """Does nothing: truncation is part of the table's name."""

    def no_padding(self) -> None:
        """Does nothing: rows of one token need no padding."""

    def _add(self, keys: Sequence[bytes], outputs: NDArray[np.float32]) -> None:
        self._rows |= {key: len(self.outputs) + place for place, key in enumerate(keys)}
        self.outputs = np.concatenate([self.outputs, outputs])

    def _store(self, keys: list[bytes], outputs: NDArray[np.float32]) -> None:
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:16]
        with replacing(self._folder / f"{name}.npz") as file:
            np.savez(file, keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), outputs=outputs)
        self._add(keys, outputs)

    def _read(self, texts: list[str]) -> NDArray[np.float32]:
        """The encoder's outputs, in batches of texts of similar length."""
        tokenizer = Tokenizer.from_file(str(self._base / "tokenizer.json"))
        tokenizer.enable_truncation(self._max_tokens)
        tokenizer.no_padding()
        tokens = [np.array(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
        encoder = compile_encoder(load_encoder(self._base, self._max_tokens).eval(), "bfloat16")
        outputs = np.empty((len(texts), self.config.hidden_size), np.float32)

        def read(batch: Integers) -> None:
            width = max(len(tokens[row]) for row in batch)
            ids, mask = (torch.zeros((len(batch), width), dtype=torch.int64) for _ in range(2))
            for place, row in enumerate(batch):
                ids[place, : len(tokens[row])], mask[place, : len(tokens[row])] = torch.from_numpy(tokens[row]), 1
            with torch.inference_mode():
                hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                outputs[batch] = mean_pooling(hidden, mask).float().numpy()

        lengths = np.array([len(row) for row in tokens])
        run_batches(encoder, read, token_batches(np.arange(len(texts)), lengths, 2048, rank=0, world_size=1))
        return outputs


class _Lookup(nn.Module):
    """Replaces the encoder: the outputs of a text table, by row."""

    def __init__(self, table: TextTable) -> None:
        super().__init__()
        self.config, self._table = table.config, table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Hidden:  # noqa: ARG002 - the encoder's
        return Hidden(last_hidden_state=torch.from_numpy(self._table.outputs[input_ids.numpy()]))


def train_frozen(
    rows: "pd.DataFrame",
    features: tuple[str, ...],
    domain: Domain,
    settings: TrainingSettings,
    texts: TextTable,
) -> TextPredictor:
    """A classifier trained on rows of a domain by the worker's recipe, in this process."""
    task, data = Classification(), _data(rows, features, domain, settings, texts)
    torch.manual_seed(settings.optimizer.seed)
    lookup: Any = _Lookup(texts)
    classifier = around(lookup, data.preprocessing, data.word_weights, settings.model.word_share)
    objective, sampler = task.objective(data), Sampler.of(data, settings, world_size=1)
    with one_thread():
        engine = LocalEngine(classifier, task.groups(classifier, settings), sampler.steps, settings)
        for _ in fit(engine, task, data, objective, sampler):
            pass
    if data.trained < len(rows):
        sums = validate(engine, task, data, objective, settings.hardware.batch_tokens)
        classifier.config.calibration_temperature = objective.findings(sums[2:])["temperature"]
    classifier.eval()
    return TextPredictor(data.preprocessing, data.tokenizer, classifier, _compiled={"float32": classifier})


def _data(
    rows: "pd.DataFrame", features: tuple[str, ...], domain: Domain, settings: TrainingSettings, texts: TextTable
) -> TrainingData:
    trained = len(rows) - count_validation_rows(len(rows), settings)
    fitted = fit_preprocessing(
        rows[:trained],
        features,
        domain,
        settings.model.max_tokens,
        settings.model.hashed_words,
        settings.model.prior_labels,
    )
    tokenizer = cast(Tokenizer, texts)
    encoded, labels = fitted.encode(rows, tokenizer), places(rows["label"], fitted.labels)
    weights = class_weights(fitted.frequencies, labels[:trained], settings.optimizer.class_weight_power)
    words = fit_words(encoded.take(np.arange(trained)), labels[:trained], weights, fitted.hashed_words)
    return TrainingData(encoded, labels, trained, weights, words, fitted, tokenizer, window=None)
