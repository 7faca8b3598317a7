"""A training run's checkpoints on disk: written to a temporary folder, hashed, made current by one pointer.

step-00000120/      a complete checkpoint: renamed to this after its last byte was on disk
    MANIFEST.json   the SHA-256 of every other file
CURRENT             the name of the newest
.step-00000180/     one that is being written, or was when the run was killed
"""

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from assets.hashing import hash_file
from assets.writing import sync, write_atomically

__all__ = ["MANIFEST", "POINTER", "Checkpoints", "newest_first", "outdated", "read_manifest", "step_of"]

MANIFEST = "MANIFEST.json"
POINTER = "CURRENT"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, of which the newest `kept` are kept."""

    folder: Path
    kept: int

    def beside(self, step: int) -> Path:
        """The temporary folder in which the checkpoint of a step is written."""
        return self.folder / f".{_name(step)}"

    def path(self, step: int) -> Path:
        """The folder of the published checkpoint of a step."""
        return self.folder / _name(step)

    def clear(self) -> None:
        """Remove unfinished checkpoints of an earlier run."""
        for abandoned in self.folder.glob(".step-*"):
            shutil.rmtree(abandoned)

    def publish(self, step: int, hashes: dict[str, str]) -> None:
        """Make the temporary folder, whose files have these SHA-256 hashes, the current checkpoint, and prune."""
        write_atomically(self.beside(step) / MANIFEST, json.dumps(hashes, indent=1, sort_keys=True))
        self._make_current(step)

    def accept(self, step: int) -> bool:
        """Make a downloaded temporary folder the current checkpoint if it is complete; returns whether it is."""
        if whole := _is_whole(self.beside(step)):
            self._make_current(step)
        return whole

    def newest(self) -> int | None:
        """The step of the current checkpoint or, if that is damaged, of the newest complete one; None without one."""
        pointer = self.folder / POINTER
        current = pointer.read_bytes() if pointer.exists() else b""
        names = newest_first([path.name for path in self.folder.glob("step-*")], current)
        return next((step_of(name) for name in names if _is_whole(self.folder / name)), None)

    def _make_current(self, step: int) -> None:
        staged, final = self.beside(step), self.path(step)
        if final.exists():  # damaged, or an earlier run was killed before the pointer moved
            shutil.rmtree(final)
        staged.replace(final)
        sync(self.folder)
        write_atomically(self.folder / POINTER, final.name)
        for old in outdated([path.name for path in self.folder.glob("step-*")], final.name, self.kept):
            shutil.rmtree(self.folder / old)


def newest_first(names: Collection[str], current: bytes) -> list[str]:
    """Checkpoints in the order in which to try them: the one that the pointer names, then the others, newest first."""
    return sorted(sorted(names, reverse=True), key=lambda name: name.encode() != current)


def outdated(names: Collection[str], current: str, kept: int) -> list[str]:
    """The checkpoints to remove when one becomes current: the oldest, and all newer ones, which were damaged."""
    older = sorted(name for name in names if name <= current)
    return [*older[:-kept], *(name for name in names if name > current)]


def read_manifest(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint; empty if the manifest cannot be read."""
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return hashes if isinstance(hashes, dict) else {}


def step_of(name: str) -> int:
    """The step whose checkpoint has this name."""
    return int(name.removeprefix("step-"))


def _is_whole(folder: Path) -> bool:
    hashes = read_manifest(folder)
    try:
        return bool(hashes) and all(hash_file(folder / name) == sha256 for name, sha256 in hashes.items())
    except OSError:
        return False


def _name(step: int) -> str:
    return f"step-{step:08d}"
