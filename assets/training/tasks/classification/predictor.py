"""Prediction with a trained classifier: rows in, one probability per label out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assets.settings import Precision
from assets.training.tasks.classification.preprocessing import Encoded, Preprocessing, load_preprocessing

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer

    from assets.training.tasks.classification.model import TextClassifier

__all__ = ["TextPredictor", "load_predictor"]

_CHUNK_ROWS = 8192
"""Rows encoded at a time, which bounds the memory of a prediction."""
_WORTH_COMPILING = 512
"""The number of rows from which compiling the encoder, which takes a second or two, is worth it."""
_CLOSE_CALL = 0.05
"""Several times the largest change of a probability observed with bfloat16."""


@dataclass(frozen=True)
class TextPredictor:
    """A classifier, with the preprocessing of its rows."""

    preprocessing: Preprocessing
    tokenizer: "Tokenizer"
    classifier: "TextClassifier"
    _compiled: dict[Precision, "TextClassifier"] = field(default_factory=dict, repr=False)
    """The classifier compiled for each precision, from the first call with enough rows on."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it answers with, in the order of its outputs."""
        return self.preprocessing.labels

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns that rows must have, in order."""
        return self.preprocessing.features

    def predict_proba(
        self, rows: "pd.DataFrame", batch_tokens: int = 2048, precision: Precision = "float32"
    ) -> NDArray[np.float64]:
        """Probabilities [rows, labels], labels in the order of `labels`, rows in the given order.

        Rows need the columns that `preprocessing` reads as text, and those of `features`, raw. In float32 a row's
        answer does not depend (beyond 1e-5) on the other rows of its batch, nor on what runs the encoder: torch on the
        CPU or, for many rows, a GPU or OpenVINO. In bfloat16 probabilities differ by up to a hundredth, and rows whose
        two best labels are close are computed in float32, so that the best label stays the same.
        """
        answers = np.empty((len(rows), len(self.labels)))
        if len(rows) >= _WORTH_COMPILING:
            self.compile(precision)
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            answers[part] = self._predict(rows.iloc[part], batch_tokens, precision)
        return answers

    def compile(self, precision: Precision) -> None:
        """Answer all rows from now on like many rows: on a GPU or with OpenVINO, if that agrees with torch."""
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

        from assets.training.program.batches import token_batches
        from assets.training.tasks.classification.collate import collate
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


def load_predictor(folder: Path) -> TextPredictor:
    """Read what `Classification.save` and the program wrote, for prediction on the CPU.

    Raises an error of any library for an invalid file.
    """
    from tokenizers import Tokenizer

    from assets.training.tasks.classification.model import load_classifier

    preprocessing = load_preprocessing(folder / "preprocessing.json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    classifier = load_classifier(folder)
    if tuple(classifier.config.labels) != preprocessing.labels:
        raise ValueError("config.json and preprocessing.json name other labels")
    return TextPredictor(preprocessing, tokenizer, classifier)


def _lead(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lead of the best label of each row over the second."""
    second, best = np.partition(probabilities, -2, axis=1)[:, -2:].T
    lead: NDArray[np.float64] = best - second
    return lead
