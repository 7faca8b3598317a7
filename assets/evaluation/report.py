"""The evaluation report: the content of `evaluation.json`, published as the lake table `evaluation/<as_of>`."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from assets.evaluation.metrics import Bin, LabelScores, Metrics
from assets.evaluation.paired import Gain, Pair
from assets.hashing import hash_file
from assets.lake import Lake

__all__ = [
    "GOLDEN_TOLERANCE",
    "Evaluation",
    "Golden",
    "Reference",
    "Rival",
    "SliceScores",
    "SnapshotFacts",
    "evaluation_hash",
    "load_evaluation",
    "read_evaluation",
    "table",
    "write_evaluation",
]

GOLDEN_TOLERANCE = 1e-5
"""The largest difference between a served and an evaluated probability."""

_FILE = "evaluation.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Rival(_Part):
    """The champion that was scored on the same rows."""

    version: str
    training_id: str
    metrics: Metrics
    pairs: tuple[Pair, ...]
    """The rows by true label, the challenger's answer and this one's."""
    gains: dict[str, Gain] = {}
    """The challenger's in the metrics of probabilities that decide; those of answers follow from `pairs`."""


class SliceScores(_Part):
    """Accuracy on a slice; `decides` is false for small ones, and for labels: the gate judges those by F1."""

    by: str
    value: str
    rows: int
    decides: bool
    challenger: float
    baseline: float
    champion: float | None
    only_challenger: int = 0
    """Rows that the challenger gets right and the champion does not."""
    only_champion: int = 0

    @property
    def name(self) -> str:
        return f"{self.by} {self.value}"


class Reference(_Part):
    """Accuracy of challenger and champion on the reference rows, and the rows that only one of them gets right."""

    rows: int
    challenger: float
    champion: float
    only_challenger: int
    only_champion: int

    @property
    def loss(self) -> float:
        """Accuracy lost to the champion."""
        return self.champion - self.challenger


class SnapshotFacts(_Part):
    """The training set: its id, its rows and, for either part, its first and last day."""

    id: str
    train_rows: int
    test_rows: int
    period: dict[str, tuple[str, str]]


class Golden(_Part):
    """Rows scored twice, the second time by a reloaded bundle: the largest difference in a probability."""

    rows: int
    max_difference: float

    @property
    def equal(self) -> bool:
        return self.max_difference <= GOLDEN_TOLERANCE


class Evaluation(_Part):
    """A challenger, the baseline and the champion on the same frozen test rows."""

    id: str
    basis: str
    """A hash over everything but the champion: the bundle, the snapshot, the settings and the code that measures."""
    as_of: str
    training_id: str
    labels: tuple[str, ...]
    """In the order of the model's outputs; `pairs` and `confusion` go by their places."""
    snapshot: SnapshotFacts
    challenger: Metrics
    baseline: Metrics
    champion: Rival | None
    reference: Reference | None
    """None without a champion, and without reference rows."""
    slices: tuple[SliceScores, ...]
    rare_labels: dict[str, int] = {}
    """The labels with fewer training rows than `min_label_rows`, with how many."""
    by_label: tuple[LabelScores, ...] = ()
    """The challenger's quality on each label, the rarest in the test rows first."""
    reliability: dict[str, tuple[Bin, ...]]
    confusion: tuple[tuple[int, ...], ...]
    golden: Golden
    milliseconds: float
    """What the challenger took to answer a test row, on the machine that evaluated it."""
    settings: dict[str, Any]
    refit_of: str | None = None
    """The training id of the version that the gate has decided on, when this is of its refit: then the rows are the
    reference rows, which neither has learned from, and the champion is that version."""

    def folder(self, lake: Lake) -> Path:
        """The folder of its files."""
        return lake.path(table(self.as_of), self.id)

    def contenders(self) -> dict[str, Metrics]:
        """Metrics by who was measured: challenger, baseline and, where there was one, champion."""
        metrics = {"challenger": self.challenger, "baseline": self.baseline}
        return metrics | ({"champion": self.champion.metrics} if self.champion else {})


def table(as_of: str) -> str:
    """The lake table of the evaluations of an as-of date."""
    return f"evaluation/{as_of}"


def load_evaluation(lake: Lake, as_of: str) -> Evaluation:
    """The published evaluation of an as-of date. Raises NotPublished."""
    return read_evaluation(lake.current(table(as_of)))


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation in a folder."""
    return Evaluation.model_validate_json((folder / _FILE).read_text())


def evaluation_hash(lake: Lake, as_of: str, evaluation: str) -> str | None:
    """SHA-256 of the file of an evaluation, None when it is not in the lake."""
    path = lake.path(table(as_of), evaluation) / _FILE
    return hash_file(path) if path.is_file() else None


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.json` into a folder."""
    (folder / _FILE).write_text(evaluation.model_dump_json(indent=1) + "\n")
