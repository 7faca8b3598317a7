"""What a training run is told: one JSON file, written by the parent and read by every worker."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from assets.settings import Domain, TrainingSettings

__all__ = ["TrainingPlan", "count_validation_rows"]


class TrainingPlan(BaseModel):
    """All that a run is a function of, and where its bundle goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_id: str
    task: str
    """What is learned: a name in `assets/training/tasks`."""
    as_of: str
    snapshot_id: str
    snapshot: Path
    """Folder with train.parquet."""
    features: tuple[str, ...]
    domain: Domain
    """What the snapshot's rows are."""
    settings: TrainingSettings
    deepspeed: dict[str, Any]
    """DeepSpeed's own configuration, as its file has it."""
    base_model: Path
    base_model_name: str
    base_model_sha256: str
    code: str
    """Hash of the code that trains."""
    world_size: int
    cache: Path
    """Where what is made once from a snapshot is kept, for every run that needs it."""
    checkpoints: Path
    """A folder of this run's own, whatever its number of ranks, where it is saved while it trains."""
    output: Path
    """An empty folder that becomes the bundle."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model answers with, in the order of its outputs."""
        return tuple(self.domain.labels)

    @property
    def failure(self) -> Path:
        """Where a worker leaves the line that says why it stopped."""
        return self.output / "failure.txt"


def count_validation_rows(rows: int, settings: TrainingSettings) -> int:
    """How many of a snapshot's training rows are held back: the newest."""
    return round(settings.optimizer.validation_share * rows)
