"""The interface of tasks: of a task for the training program, and of its models for everything else.

The program knows only the lengths of rows; the content of a batch, the parts of a model and the measures of its quality
belong to the task. `assets/training/tasks` has all tasks by name.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor, device, nn

    from assets.settings import Precision, TrainingSettings
    from assets.training.model_size import ModelSize
    from assets.training.plan import TrainingPlan

__all__ = ["Batch", "Data", "Objective", "Predictor", "Reader", "Task"]

Reader = Callable[[Path, "Callable[[], nn.Module]"], "nn.Module"]
"""Builds an empty network with its second argument, and reads the pretrained weights of a folder into it."""


class Predictor(Protocol):
    """A trained model: rows in, probabilities out."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it answers with, in the order of its outputs."""

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns that rows must have, in order."""

    def compile(self, precision: "Precision") -> None:
        """Answer all rows from now on in the way that is faster for many rows, if there is one."""

    def predict_proba(
        self, rows: "pd.DataFrame", batch_tokens: int = ..., precision: "Precision" = ...
    ) -> "NDArray[np.float64]":
        """Probabilities [rows, labels], labels in the order of `labels`, rows in the given order."""


class Batch(NamedTuple):
    """The model's inputs, and the targets of its outputs."""

    inputs: "dict[str, Tensor]"
    targets: "Tensor"


class Data(Protocol):
    """A snapshot's training rows: the first `trained` are trained on, the newer ones are held back."""

    @property
    def trained(self) -> int: ...

    @property
    def lengths(self) -> "NDArray[np.int64]":
        """Tokens of each row, [rows]."""

    @property
    def window(self) -> int | None:
        """The most tokens that a row can have, to which wide batches are padded; None pads to the longest row."""

    def weight(self, rows: "NDArray[np.int64]") -> float:
        """The weight of some rows in the loss."""


class Objective(Protocol):
    """The loss to minimise, and the measures on the rows that are held back."""

    def to(self, device: "device") -> "Objective": ...

    def __call__(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """The weighted sum of the rows' losses."""

    def measure(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Float64 sums over rows, to be added over batches and ranks: the loss, the weight, and the task's own."""

    def findings(self, sums: "Tensor") -> dict[str, float]:
        """The task's results from its own sums over all rows held back, for the report and for `Task.save`."""


M = TypeVar("M", bound="nn.Module")
D = TypeVar("D", bound=Data)


class Task(Protocol[M, D]):
    """A kind of model to train. Methods import what they need: the parent uses `files` and `size` without torch."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> Sequence[str]:
        """The files that `save` writes, in addition to those of the program."""

    def size(self, plan: "TrainingPlan") -> "ModelSize":
        """The size of the model. Raises BaseModelError or ValueError when a file of the encoder cannot be read."""

    def data(self, plan: "TrainingPlan") -> D:
        """The training rows, from `plan.prepared` where they are there; all ranks call it at the same time."""

    def chunks(self, plan: "TrainingPlan") -> "Iterator[pa.Table]":
        """What is read of the snapshot's rows, as many at a time as are encoded together, wherever that is."""

    def fit_encoder(self, plan: "TrainingPlan", folder: Path) -> None:
        """Write what `encoder` reads, fitted to the rows that are trained on, as files into an empty folder."""

    def encoder(self, folder: Path) -> "Callable[[pa.Table, Path], None]":
        """Encodes one of the `chunks`, as files in an empty folder. `folder` may be removed afterwards."""

    def model(self, plan: "TrainingPlan", data: D, read: Reader | None) -> M:
        """The model at the start of training, with parameters frozen and recomputation set up; `read` reads the
        encoder.

        Raises BaseModelError and SettingsError when the encoder cannot be read or does not support the settings.
        """

    def groups(self, model: M, settings: "TrainingSettings") -> list[dict[str, Any]]:
        """The trained parameters, in groups with one learning rate and weight decay, for torch's optimizers."""

    def objective(self, data: D) -> Objective: ...

    def batch(self, model: M, data: D, rows: "NDArray[np.int64]") -> Batch:
        """Some rows as tensors on the CPU."""

    def save(self, folder: Path, model: M, data: D, findings: dict[str, float]) -> None:
        """Write `files`; the program writes the weights."""

    def load(self, folder: Path) -> Predictor:
        """The model of a verified bundle. No code from it is run; any error means that its content is invalid."""
