"""The seam for models: what the training program is told of a task, and what everyone else is told of its models.

The program knows rows by their lengths alone; what is in a batch, what a model is made of and how good it is are the
task's. `assets/training/tasks` has all tasks by name.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor, device, nn

    from assets.settings import Precision, TrainingSettings
    from assets.training.model_size import ModelSize
    from assets.training.plan import TrainingPlan

__all__ = ["Batch", "Data", "Objective", "Predictor", "Reader", "Task"]

Reader = Callable[[Path, "Callable[[], nn.Module]"], "nn.Module"]
"""Makes an empty network by its second argument, and reads the pretrained weights of a folder into it."""


class Predictor(Protocol):
    """A trained model: rows in, probabilities out."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What it answers with, in the order of its outputs."""

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns that rows must have, in order."""

    def compile(self, precision: "Precision") -> None:
        """Have all rows from now on answered as many are, where that is faster."""

    def predict_proba(
        self, rows: "pd.DataFrame", batch_tokens: int = ..., precision: "Precision" = ...
    ) -> "NDArray[np.float64]":
        """Probabilities [rows, labels] in the order of `labels`, for rows in the order they came."""


class Batch(NamedTuple):
    """The arguments of the model, and what its outputs are compared with."""

    inputs: "dict[str, Tensor]"
    targets: "Tensor"


class Data(Protocol):
    """A snapshot's training rows: the first `trained` are trained on, the newer ones after them are held back."""

    @property
    def trained(self) -> int: ...

    @property
    def lengths(self) -> "NDArray[np.int64]":
        """Tokens of each row, [rows]."""

    @property
    def window(self) -> int | None:
        """The most tokens that a row can have, to which wide batches are padded; None pads to the longest row."""

    def weight(self, rows: "NDArray[np.int64]") -> float:
        """What some rows count for in the loss."""


class Objective(Protocol):
    """What is minimised, and what is measured on the rows that are held back."""

    def to(self, device: "device") -> "Objective": ...

    def __call__(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """The sum of the rows' losses, each by its weight."""

    def measure(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Float64 sums over rows, which add up over batches and ranks: the loss, the weight, and the task's own."""

    def findings(self, sums: "Tensor") -> dict[str, float]:
        """What the task's own sums of all rows held back say, by name: for the report, and for `Task.save`."""


M = TypeVar("M", bound="nn.Module")
D = TypeVar("D", bound=Data)


class Task(Protocol[M, D]):
    """What is learned. Its methods import what they need: the parent asks for `files` and `size` without torch."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> Sequence[str]:
        """What `save` writes: a bundle's files beside those of the program."""

    def size(self, plan: "TrainingPlan") -> "ModelSize":
        """The size of the model. Raises BaseModelError or ValueError when a file of the encoder cannot be read."""

    def data(self, plan: "TrainingPlan") -> D:
        """The training rows; all ranks call it at once."""

    def model(self, plan: "TrainingPlan", data: D, read: Reader | None) -> M:
        """The model as training begins, what is frozen and recomputed settled; `read` reads what is pretrained.

        Raises BaseModelError and SettingsError when the encoder cannot be read or what is asked of it cannot be.
        """

    def groups(self, model: M, settings: "TrainingSettings") -> list[dict[str, Any]]:
        """What is trained, in groups of one learning rate and one weight decay, as torch's optimizers take them."""

    def objective(self, data: D) -> Objective: ...

    def batch(self, model: M, data: D, rows: "NDArray[np.int64]") -> Batch:
        """Some rows as tensors on the CPU."""

    def save(self, folder: Path, model: M, data: D, findings: dict[str, float]) -> None:
        """Write `files`, beside which the program writes the weights."""

    def load(self, folder: Path) -> Predictor:
        """The model of a bundle that is whole. No code from it is run; any error means that it makes no sense."""
