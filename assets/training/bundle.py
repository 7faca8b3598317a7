"""A bundle: a model as files, all of them hashed, none of them code.

    model.safetensors     weights
    provenance.json       the inputs of the model
    training.json         the report of the training
    MANIFEST.json         its task, and the SHA-256 of every other file

Its task adds its own files. Loading one reads safetensors and JSON into our own classes, or those of libraries if it is
not a plain model; nothing in it is ever executed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.exceptions import BundleError, describe
from assets.hashing import hash_file
from assets.settings import Precision
from assets.training.model_files import check_folder, read_json, require_plain
from assets.training.task import Predictor, Task
from assets.training.tasks import TASKS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Bundle", "files_of", "load_bundle", "read_json", "verify_bundle", "write_manifest"]

_FILES = ("model.safetensors", "provenance.json", "training.json")
_MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Bundle:
    """A loaded model: its inputs, and its predictor."""

    path: Path
    provenance: dict[str, Any]
    predictor: Predictor

    @property
    def id(self) -> str:
        """The training id: a hash of the model's inputs."""
        return str(self.provenance["training_id"])

    @property
    def labels(self) -> tuple[str, ...]:
        return self.predictor.labels

    @property
    def features(self) -> tuple[str, ...]:
        return self.predictor.features

    def compile(self, precision: Precision) -> None:
        self.predictor.compile(precision)

    def predict_proba(
        self, rows: "pd.DataFrame", batch_tokens: int = 2048, precision: Precision = "float32"
    ) -> "NDArray[np.float64]":
        return self.predictor.predict_proba(rows, batch_tokens, precision)


def files_of(task: Task[Any, Any]) -> tuple[str, ...]:
    """The names of the files in a task's bundles, except the manifest."""
    return tuple(sorted((*_FILES, *task.files)))


def load_bundle(path: Path) -> Bundle:
    """Verify every file of a bundle and load it for prediction on the CPU. Raises BundleError."""
    task = verify_bundle(path)
    try:
        check_folder(path)
        return Bundle(path, read_json(path / "provenance.json"), task.load(path))
    except Exception as error:  # each library has its own errors for an invalid file
        raise BundleError(f"{path} cannot be loaded: {describe(error)}") from error


def verify_bundle(path: Path) -> Task[Any, Any]:
    """Check that a bundle consists of exactly the files in its manifest, byte for byte; returns its task.

    Raises BundleError naming the file.
    """
    try:
        names = {file.name for file in path.iterdir()}
        for name in sorted(names):
            require_plain(path / name)
        manifest = read_json(path / _MANIFEST) if _MANIFEST in names else None
    except (OSError, ValueError) as error:
        raise BundleError(str(error)) from None
    if manifest is None:
        raise BundleError(f"{path}: no {_MANIFEST}")
    task, hashes = TASKS.get(str(manifest.get("task"))), manifest.get("files")
    if task is None or not isinstance(hashes, dict):
        raise BundleError(f"{path}: {_MANIFEST} names no task that is known here ({', '.join(TASKS)}), or no files")
    _verify_files(path, names, files_of(task), hashes)
    return task


def _verify_files(path: Path, names: set[str], files: tuple[str, ...], hashes: dict[str, Any]) -> None:
    for name in (*files, *hashes):
        if name not in names:
            raise BundleError(f"{path}: {name} is missing")
    if stray := sorted(names - {*files, _MANIFEST}):
        raise BundleError(f"{path}: {stray[0]} is no file of a bundle")
    for name in files:
        if hash_file(path / name) != hashes.get(name):
            raise BundleError(f"{path}: {name} is not the file that was written")


def write_manifest(path: Path, task: Task[Any, Any]) -> None:
    """Write a bundle's manifest, with its task and the hash of every file: the last thing written."""
    hashes = {file.name: hash_file(file) for file in sorted(path.iterdir())}
    assert set(files_of(task)) <= set(hashes), sorted(set(files_of(task)) - set(hashes))
    (path / _MANIFEST).write_text(json.dumps({"task": task.name, "files": hashes}, indent=1))
