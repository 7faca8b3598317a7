"""A bundle: a model as files, every one of them hashed, none of them code.

    model.safetensors     weights                     config.json          widths, and the encoder's configuration
    tokenizer.json        text to tokens              preprocessing.json   rows to numbers
    provenance.json       what the model was made of  training.json        how the training went
    MANIFEST.json         the SHA-256 of every other file

Loading one reads safetensors and JSON into classes of ours, and of transformers where the encoder is no plain BERT;
nothing in it is ever run.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assets.exceptions import BundleError, describe
from assets.lake import hash_file
from assets.settings import Precision
from assets.training.model_files import check_folder, read_json, require_plain
from assets.training.tasks.classification.preprocessing import Encoded, Preprocessing, load_preprocessing

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer

    from assets.training.tasks.classification.model import TextClassifier

__all__ = ["FILES", "Bundle", "load_bundle", "read_json", "verify_bundle", "write_manifest"]

FILES = (
    "config.json",
    "model.safetensors",
    "preprocessing.json",
    "provenance.json",
    "tokenizer.json",
    "training.json",
)
_MANIFEST = "MANIFEST.json"
_CHUNK_ROWS = 8192
"""Rows encoded at a time: what bounds the memory of a prediction."""
_WORTH_COMPILING = 512
"""Rows from which on compiling the encoder, a second or two, is made up for."""
_CLOSE_CALL = 0.05
"""Several times the largest change of a probability that bfloat16 was seen to cause."""


@dataclass(frozen=True)
class Bundle:
    """A loaded model: what it was made of, and what it says about rows."""

    path: Path
    provenance: dict[str, Any]
    preprocessing: Preprocessing
    tokenizer: "Tokenizer"
    classifier: "TextClassifier"
    _compiled: dict[Precision, "TextClassifier"] = field(default_factory=dict, repr=False)
    """The classifier as compiled for a precision, from the first call with enough rows on."""

    @property
    def id(self) -> str:
        """The training id: what the model is a function of."""
        return str(self.provenance["training_id"])

    @property
    def labels(self) -> tuple[str, ...]:
        """What it answers with, in the order of its outputs."""
        return self.preprocessing.labels

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns that rows must have, in order."""
        return self.preprocessing.features

    def predict_proba(
        self, rows: "pd.DataFrame", batch_tokens: int = 2048, precision: Precision = "float32"
    ) -> NDArray[np.float64]:
        """Probabilities [rows, labels] in the order of `labels`, for rows in the order they came.

        Rows need the columns that `preprocessing` reads as text, and those of `features`, raw. In float32 a row's
        answer does not depend (beyond 1e-5) on the rows that it is batched with, nor on what runs the encoder: torch on
        the CPU or, when there are many rows, a GPU or OpenVINO. In bfloat16 probabilities move by up to a hundredth,
        and rows whose two best labels are close are answered in float32, so that the best label stays the same.
        """
        answers = np.empty((len(rows), len(self.labels)))
        if len(rows) >= _WORTH_COMPILING:
            self.compile(precision)
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            answers[part] = self._predict(rows.iloc[part], batch_tokens, precision)
        return answers

    def compile(self, precision: Precision) -> None:
        """Have all rows from now on answered as many are: on a GPU or by OpenVINO, where that agrees with torch."""
        from assets.training.tasks.classification.inference import compile_classifier

        if precision not in self._compiled:
            self._compiled[precision] = compile_classifier(self.classifier, precision)

    def _predict(self, rows: "pd.DataFrame", batch_tokens: int, precision: Precision) -> NDArray[np.float64]:
        encoded = self.preprocessing.encode(rows, self.tokenizer)
        answers = np.empty((len(rows), len(self.labels)))
        self._answer(answers, np.arange(len(rows)), encoded, batch_tokens, precision)
        if precision in self._compiled and precision != "float32":
            close = np.flatnonzero(_lead(answers) < _CLOSE_CALL)
            if len(close):
                self._answer(answers, close, encoded, batch_tokens, "float32")
        return answers

    def _answer(
        self,
        answers: NDArray[np.float64],
        rows: NDArray[np.int64],
        encoded: Encoded,
        batch_tokens: int,
        precision: Precision,
    ) -> None:
        """Write the probabilities of some rows into `answers`, batch by batch."""
        import torch

        from assets.training.program.batches import collate, token_batches
        from assets.training.tasks.classification.inference import run_batches

        classifier = self._compiled.get(precision, self.classifier)
        device = classifier.output.weight.device

        def answer(batch: NDArray[np.int64]) -> None:
            inputs = collate(encoded, batch, self.classifier.padding)
            with torch.inference_mode():
                logits = classifier(**{name: tensor.to(device) for name, tensor in inputs.items()})
                answers[batch] = torch.softmax(logits.double(), dim=1).cpu().numpy()

        run_batches(
            classifier.encoder, answer, token_batches(rows, encoded.lengths, batch_tokens, rank=0, world_size=1)
        )


def load_bundle(path: Path) -> Bundle:
    """Verify every file of a bundle and load it for prediction on the CPU. Raises BundleError."""
    verify_bundle(path)
    from tokenizers import Tokenizer

    from assets.training.tasks.classification.model import load_classifier

    try:
        check_folder(path)
        bundle = Bundle(
            path=path,
            provenance=read_json(path / "provenance.json"),
            preprocessing=load_preprocessing(path / "preprocessing.json"),
            tokenizer=Tokenizer.from_file(str(path / "tokenizer.json")),
            classifier=load_classifier(path),
        )
    except Exception as error:  # each library has errors of its own for a file that is not what it should be
        raise BundleError(f"{path} cannot be loaded: {describe(error)}") from error
    if tuple(bundle.classifier.config.labels) != bundle.labels:
        raise BundleError(f"{path}: config.json and preprocessing.json name other labels")
    return bundle


def verify_bundle(path: Path) -> None:
    """Check that a bundle is exactly the files of its manifest, byte for byte. Raises BundleError naming the file."""
    try:
        found = {file.name for file in path.iterdir()}
        for name in sorted(found):
            require_plain(path / name)
        hashes = read_json(path / _MANIFEST) if _MANIFEST in found else None
    except (OSError, ValueError) as error:
        raise BundleError(str(error)) from None
    if hashes is None:
        raise BundleError(f"{path}: no {_MANIFEST}")
    for name in (*FILES, *hashes):
        if name not in found:
            raise BundleError(f"{path}: {name} is missing")
    if stray := sorted(found - {*FILES, _MANIFEST}):
        raise BundleError(f"{path}: {stray[0]} is no file of a bundle")
    for name in FILES:
        if hash_file(path / name) != hashes.get(name):
            raise BundleError(f"{path}: {name} is not the file that was written")


def write_manifest(path: Path) -> None:
    """Hash every file of a bundle into its manifest: the last thing written."""
    hashes = {file.name: hash_file(file) for file in sorted(path.iterdir())}
    assert set(FILES) <= set(hashes), sorted(set(FILES) - set(hashes))
    (path / _MANIFEST).write_text(json.dumps(hashes, indent=1))


def _lead(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the best label of each row is ahead of the second."""
    second, best = np.partition(probabilities, -2, axis=1)[:, -2:].T
    lead: NDArray[np.float64] = best - second
    return lead
