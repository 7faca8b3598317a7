"""Saves checkpoints of a run, and resumes it: DeepSpeed's state, the random states, the progress.

The next step waits only for a copy in memory; a thread writes it. A checkpoint is published once every rank's files are
on disk, which the ranks communicate along with the loss: one step later.
"""

import copy
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from deepspeed import DeepSpeedEngine
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine

from assets.exceptions import Stopped
from assets.hashing import hash_file
from assets.training.program.checkpoints import Checkpoints, read_manifest
from assets.training.program.engine import tell_all
from assets.training.program.mirror import Mirror, Uploads
from assets.training.program.progress import Progress
from assets.training.program.resharding import load_resharded, refuse_code
from assets.writing import sync, write_atomically

__all__ = ["Saver"]

State = dict[str, Any]


class Files(CheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's storage interface: collects copies of what it saves, and loads without running code from a file."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[Path, State] = {}

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Does nothing: the writing thread makes the folder, because a full disk must not stop a step."""

    def create(self, info: CheckpointCommitInfo) -> None:  # noqa: ARG002 - DeepSpeed's interface
        self.copies = {}

    def save(self, state_dict: State, path: str) -> None:
        self.copies[Path(path)] = _copy(state_dict)

    def load(self, path: str, map_location: Any = None) -> State:
        state: State = torch.load(path, map_location=map_location, weights_only=True)
        return state

    def commit(self, info: CheckpointCommitInfo) -> bool:  # noqa: ARG002 - DeepSpeed's interface
        return True


@dataclass
class _Writing:
    """A checkpoint that is being written."""

    step: int
    done: "Future[None]"


class Saver:
    """One rank's part in saving a run at intervals by rank 0's clock; all ranks call it at every step.

    The ranks share the folder of the checkpoints, unless they are `apart`: then each copies its own files to S3, where
    they become the checkpoint, and fetches a checkpoint from there.

    A run that offloads to NVMe is not saved: DeepSpeed loads its files, but neither the tensors too small for them nor
    the weights derived from them, and such a run would continue from other weights.
    """

    def __init__(
        self,
        engine: DeepSpeedEngine,
        checkpoints: Checkpoints,
        every: float,
        say: Callable[[str], None],
        uploads: Uploads | None = None,
        apart: Mirror | None = None,
    ):
        self._engine, self._checkpoints, self._uploads, self._apart = engine, checkpoints, uploads, apart
        self._every, self._say = every, say
        self._files = engine.checkpoint_engine = Files()
        engine._copy_recovery_script = lambda *_: None  # it would put a program next to the weights
        self._thread = ThreadPoolExecutor(1)
        self._writing: _Writing | None = None
        self._on_nvme = _is_on_nvme(engine)
        self._saved = time.monotonic()
        self.world_sizes = [engine.world_size]
        """The numbers of ranks that the run had, in order."""
        self.resumed: str | None = None
        """None for an uninterrupted run, exact, or equivalent if its number of ranks has changed."""
        refuse_code()

    def resume(self, progress: Progress) -> None:
        """Return to the newest complete checkpoint, if there is one."""
        step, ranks = tell_all(*(self._newest() if self._engine.global_rank == 0 else (0, 0)))
        if ranks == 0:
            return
        if self._apart:
            self._fetch(self._apart, step)
        path = self._checkpoints.path(step)
        if ranks == self._engine.world_size:
            own = self._load(path)
            self._say(f"resumed at step {step}")
        else:
            own = self._reshard(path, step)
            self._say(f"resumed at step {step} of a run of {ranks} ranks: from here on equivalent to it, not equal")
        progress.restore(own["progress"])
        self.resumed = "exact" if len(self.world_sizes) == 1 else "equivalent"

    def votes(self) -> list[float]:
        """The votes for the ranks to add up: whether it is time to save, how many have written, how many failed."""
        due = self._engine.global_rank == 0 and self._writing is None and not self._on_nvme
        done = self._writing is not None and self._writing.done.done()
        failed = done and self._writing is not None and self._writing.done.exception() is not None
        return [float(due and time.monotonic() - self._saved >= self._every), float(done), float(failed)]

    def begins(self, votes: Sequence[float]) -> bool:
        """Whether `act` will save the run now. Votes are a step old: what they ask for may be in progress."""
        return votes[0] > 0 and self._writing is None

    def act(self, votes: Sequence[float], progress: Progress) -> None:
        """Do what the summed votes say: start to save, publish what all have written, or give it up."""
        _, done, failed = votes
        if self.begins(votes):
            self._begin(progress)
        elif self._writing is not None and done == self._engine.world_size:
            self._end(failed == 0)

    def stop(self, progress: Progress) -> NoReturn:
        """Save the run now, wait until that is the current checkpoint and copied, and raise Stopped."""
        if self._on_nvme:
            raise Stopped("training was told to stop; started again, it begins anew, as what is on NVMe is not saved")
        self._finish()
        self._begin(progress)
        self._finish()
        self.close()
        torch.distributed.barrier()  # a launcher ends all ranks once one has ended, and the first may still be copying
        raise Stopped(
            f"training was told to stop, and has after step {self._engine.global_steps}; "
            "started again, it goes on from its newest checkpoint"
        )

    def close(self) -> None:
        """Wait for a checkpoint that is being written; the run is over and does not need it."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _finish(self) -> None:
        """Wait for a checkpoint that the ranks are writing, and for its copy, if there is one."""
        if self._writing is not None:
            failed = torch.tensor(float(self._writing.done.exception() is not None), device=self._engine.device)
            torch.distributed.all_reduce(failed)
            self._end(float(failed) == 0)
        if self._uploads:
            self._uploads.finish()

    def _newest(self) -> tuple[int, int]:
        """The step of the newest complete checkpoint and the number of its ranks, by its manifest; zeros without one.

        Rank 0 decides for all of them: other machines may not see all files of a shared folder yet.
        """
        self._checkpoints.clear()
        if self._apart:
            self._apart.fetch(self._checkpoints)
        step = self._checkpoints.newest()
        if step is None:
            return 0, 0
        names = read_manifest(self._checkpoints.path(step))
        return step, sum(name.startswith("rank-") for name in names)

    def _fetch(self, mirror: Mirror, step: int) -> None:
        """Bring the checkpoint to the machines of the other ranks, once to each."""
        if self._leads and self._engine.global_rank > 0:
            self._checkpoints.clear()
            mirror.fetch_step(step, self._checkpoints)
        torch.distributed.barrier()

    @property
    def _leads(self) -> bool:
        """Whether this rank is the first of those that share its folder."""
        return int(os.environ.get("LOCAL_RANK", 0)) == 0 if self._apart else self._engine.global_rank == 0

    def _load(self, path: Path) -> State:
        """Return to this rank's state, bit for bit."""
        self._engine.load_checkpoint(str(path.parent), tag=path.name, load_module_strict=False)  # nothing frozen in it
        own = self._files.load(str(path / self._own))
        _set_random_states(own["random"])
        self.world_sizes = own["world_sizes"]
        return own

    def _reshard(self, path: Path, step: int) -> State:
        """Continue from the state of other ranks; random states are new, because there may be none for this rank."""
        load_resharded(self._engine, path, self._checkpoints.beside(step), self._leads)
        own = self._files.load(str(path / "rank-0.pt"))
        torch.manual_seed(torch.initial_seed() ^ step << 32)
        self.world_sizes = [*own["world_sizes"], self._engine.world_size]
        return own

    @property
    def _own(self) -> str:
        return f"rank-{self._engine.global_rank}.pt"

    def _begin(self, progress: Progress) -> None:
        step = self._engine.global_steps
        folder = self._checkpoints.beside(step)
        self._engine.save_checkpoint(
            str(folder.parent), tag=folder.name, save_latest=False, exclude_frozen_parameters=True
        )
        copies = self._files.copies
        own = {"progress": progress.state(), "random": _random_states(), "world_sizes": self.world_sizes}
        copies[folder / self._own] = own
        hashes = _hashes(folder, self._engine.global_rank)
        self._writing = _Writing(step, self._thread.submit(self._write, copies, hashes))

    def _write(self, copies: dict[Path, State], hashes: Path) -> None:
        """Put this rank's files where the checkpoint is made."""
        _write(copies, hashes)
        if self._apart:
            _move(self._apart, [*copies, hashes])

    def _end(self, whole: bool) -> None:
        assert self._writing is not None
        step, self._writing = self._writing.step, None
        self._saved = time.monotonic()
        if self._engine.global_rank > 0:
            return
        if whole and self._apart and self._uploads:
            parts = [_hashes(Path(), rank).name for rank in range(self._engine.world_size)]
            self._uploads.begin_manifest(self._checkpoints.path(step).name, parts)
        elif not (whole and self._publish(step)):
            shutil.rmtree(self._checkpoints.beside(step), ignore_errors=True)
            self._say(f"the checkpoint of step {step} could not be written; the one before it stays")
        elif self._uploads:
            self._uploads.begin(self._checkpoints.path(step))

    def _publish(self, step: int) -> bool:
        """Make what all ranks have written the current checkpoint; whether that could be done."""
        try:
            self._checkpoints.publish(step, _collect(self._checkpoints.beside(step), self._engine.world_size))
        except OSError:
            return False
        return True


def _is_on_nvme(engine: DeepSpeedEngine) -> bool:
    return any(getattr(engine.optimizer, moved, False) for moved in ("swap_optimizer", "params_in_nvme_and_cpu"))


def _write(copies: dict[Path, State], hashes: Path) -> None:
    """Write one rank's files to disk, then their SHA-256."""
    hashes.parent.mkdir(parents=True, exist_ok=True)
    for path, state in copies.items():
        with path.open("wb") as file:
            torch.save(state, file)
        sync(path)
    write_atomically(hashes, json.dumps({path.name: hash_file(path) for path in copies}))


def _move(mirror: Mirror, files: Sequence[Path]) -> None:
    """Copy one rank's files to S3, in their order, and remove them here."""
    try:
        for path in files:
            with path.open("rb") as file:
                mirror.put_part(path.parent.name.removeprefix("."), {path.name: file})
    finally:
        for path in files:
            path.unlink()


def _hashes(folder: Path, rank: int) -> Path:
    """The file in which a rank lists the files it has written."""
    return folder / f"rank-{rank}.json"


def _collect(folder: Path, ranks: int) -> dict[str, str]:
    """The hashes of all ranks' files. Raises OSError when a rank's are missing, which a listing might not show."""
    parts = [_hashes(folder, rank) for rank in range(ranks)]
    hashes: dict[str, str] = {}
    for part in parts:
        hashes |= json.loads(part.read_text())
    for name in hashes:
        (folder / name).stat()
    for part in parts:
        part.unlink()
    return hashes


def _copy(value: Any) -> Any:
    """A state with its tensors copied to the CPU, so that training may continue and change them.

    A member of an enumeration becomes its value: Python 3.11.2 (Debian 12) pickles it by `getattr`, which no file may
    call.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return type(value)((key, _copy(item)) for key, item in value.items())
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return copy.deepcopy(value)


def _random_states() -> State:
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
    }


def _set_random_states(states: State) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
