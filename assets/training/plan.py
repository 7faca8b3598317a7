"""The plan of a training run: one JSON file, written by the parent and read by every worker."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from assets.settings import Domain, TrainingSettings

__all__ = ["TrainingPlan", "count_validation_rows"]


class TrainingPlan(BaseModel):
    """All inputs of a run, and the destination of its bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_id: str
    task: str
    """The task: a name in `assets/training/tasks`."""
    as_of: str
    snapshot_id: str
    snapshot: Path
    """Folder with train.parquet."""
    features: tuple[str, ...]
    domain: Domain
    """The domain of the snapshot's rows."""
    settings: TrainingSettings
    deepspeed: dict[str, Any]
    """DeepSpeed's own configuration, as in its file."""
    base_model: Path
    base_model_name: str
    base_model_sha256: str
    code: str
    """Hash of the training code."""
    world_size: int
    cache: Path
    """The cache of data derived once from a snapshot, for every run that needs it."""
    checkpoints: Path
    """The folder for this run's checkpoints, the same for every number of ranks."""
    output: Path
    """An empty folder that becomes the bundle."""
    apart: bool = False
    """Whether the ranks share no folder: their checkpoints are in S3 alone."""
    prepared: Path | None = None
    """The folder with the rows as the task's `encoder` has made them; None where each machine encodes them itself."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model answers with, in the order of its outputs."""
        return tuple(self.domain.labels)

    @property
    def failure(self) -> Path:
        """The file in which a worker leaves a line that says why it stopped."""
        return self.output / "failure.txt"


def count_validation_rows(rows: int, settings: TrainingSettings) -> int:
    """How many of a snapshot's training rows, the newest, are held back."""
    return round(settings.optimizer.validation_share * rows)
