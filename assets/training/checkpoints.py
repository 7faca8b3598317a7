"""A training run's checkpoints on disk: written beside, hashed, made current by one pointer.

step-00000120/      a whole checkpoint: it was given this name after its last byte was on disk
    MANIFEST.json   the SHA-256 of every other file
CURRENT             the name of the newest
.step-00000180/     one that is being written, or that was when the run was killed
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from assets.lake import hash_file, write_atomically

__all__ = ["Checkpoints", "outdated", "sync"]

_MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, of which the newest `kept` stay."""

    folder: Path
    kept: int

    def beside(self, step: int) -> Path:
        """Where the checkpoint of a step is written."""
        return self.folder / f".{_name(step)}"

    def path(self, step: int) -> Path:
        """Where the published checkpoint of a step is."""
        return self.folder / _name(step)

    def clear(self) -> None:
        """Remove what was being written when an earlier run ended."""
        for abandoned in self.folder.glob(".step-*"):
            shutil.rmtree(abandoned)

    def publish(self, step: int, hashes: dict[str, str]) -> None:
        """Make what lies beside, whose files have these SHA-256 hashes, the current checkpoint, and prune."""
        staged, final = self.beside(step), self.path(step)
        write_atomically(staged / _MANIFEST, json.dumps(hashes, indent=1, sort_keys=True))
        if final.exists():  # damaged, or not pointed to when an earlier run was killed
            shutil.rmtree(final)
        staged.replace(final)
        sync(self.folder)
        write_atomically(self.folder / "CURRENT", final.name)
        for old in outdated([path.name for path in self.folder.glob("step-*")], final.name, self.kept):
            shutil.rmtree(self.folder / old)

    def newest(self) -> int | None:
        """The step of the current checkpoint or, when that is damaged, of the newest whole one; None without one."""
        return next((_step(path) for path in self._newest_first() if _is_whole(path)), None)

    def _newest_first(self) -> Iterator[Path]:
        pointer, steps = self.folder / "CURRENT", sorted(self.folder.glob("step-*"), reverse=True)
        current = pointer.read_bytes() if pointer.exists() else b""
        yield from sorted(steps, key=lambda path: path.name.encode() != current)


def outdated(names: Collection[str], current: str, kept: int) -> list[str]:
    """Which checkpoints go when one becomes current: the oldest, and all that are newer, as those were damaged."""
    older = sorted(name for name in names if name <= current)
    return [*older[:-kept], *(name for name in names if name > current)]


def sync(path: Path) -> None:
    """Wait until a file or a folder's entries are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_whole(path: Path) -> bool:
    try:
        hashes: dict[str, str] = json.loads((path / _MANIFEST).read_bytes())
        return bool(hashes) and all(hash_file(path / name) == sha256 for name, sha256 in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
