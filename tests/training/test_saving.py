"""What rank 0 makes of a checkpoint when the ranks say that they have written it; DeepSpeed has no part in this."""

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from assets.exceptions import Stopped
from assets.hashing import hash_file
from assets.training.program.checkpoints import Checkpoints
from assets.training.program.mirror import Mirror, Uploads
from assets.training.program.progress import Progress
from assets.training.program.saving import Saver, _Writing

STEP = 7


class Trial:
    """A saver of two ranks whose checkpoint of step 7 is complete, as far as anybody knows."""

    def __init__(self, folder: Path, uploads: bool = False, optimizer: object = None):
        self.said: list[str] = []
        self.checkpoints = Checkpoints(folder / "run", kept=2)
        copies = Uploads(Mirror("nowhere", "run", kept=1), self.said.append) if uploads else None
        engine = SimpleNamespace(world_size=2, global_rank=0, global_steps=STEP, optimizer=optimizer)
        self.saver = Saver(engine, self.checkpoints, 0.0, self.said.append, copies)  # type: ignore[arg-type]
        self.saver._writing = _Writing(STEP, Future())

    def write(self, *ranks: int) -> None:
        folder = self.checkpoints.beside(STEP)
        folder.mkdir(parents=True, exist_ok=True)
        for rank in ranks:
            (folder / f"rank-{rank}.pt").write_bytes(b"states")
            hashes = f'{{"rank-{rank}.pt": "{hash_file(folder / f"rank-{rank}.pt")}"}}'
            (folder / f"rank-{rank}.json").write_text(hashes)

    def publish(self) -> None:
        self.saver.act([0, 2, 0], Progress(10, self.said.append))


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_what_both_ranks_have_written_is_published(trial: Trial) -> None:
    trial.write(0, 1)
    trial.publish()
    assert trial.checkpoints.newest() == STEP
    assert trial.saver._newest() == (STEP, 2)
    assert not trial.said


def test_what_is_on_nvme_is_never_saved(tmp_path: Path) -> None:
    """DeepSpeed would go on from other weights than it saved."""
    plain, moved = Trial(tmp_path), Trial(tmp_path, optimizer=SimpleNamespace(swap_optimizer=True))
    plain.saver._writing = moved.saver._writing = None
    assert plain.saver.votes()[0] == 1
    assert moved.saver.votes()[0] == 0
    with pytest.raises(Stopped, match="started again, it begins anew"):
        moved.saver.stop(Progress(10, moved.said.append))


def test_without_a_ranks_part_there_is_no_checkpoint(trial: Trial) -> None:
    trial.write(0)
    trial.publish()
    assert trial.checkpoints.newest() is None
    assert trial.said == [f"the checkpoint of step {STEP} could not be written; the one before it stays"]


def test_a_file_that_does_not_show_yet_is_missing(trial: Trial) -> None:
    trial.write(0, 1)
    (trial.checkpoints.beside(STEP) / "rank-1.pt").unlink()
    trial.publish()
    assert trial.checkpoints.newest() is None
    assert len(trial.said) == 1


def test_the_ranks_of_a_checkpoint_are_those_of_its_manifest(trial: Trial) -> None:
    trial.write(0, 1)
    trial.publish()
    (trial.checkpoints.path(STEP) / "rank-2.pt").write_bytes(b"of no run")
    assert trial.saver._newest() == (STEP, 2)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(24, "Too many open files")])
def test_a_copy_that_cannot_begin_is_not_a_checkpoint_that_was_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    trial = Trial(tmp_path, uploads=True)
    trial.write(0, 1)
    assert trial.saver._uploads is not None
    monkeypatch.setattr(trial.saver._uploads._thread, "submit", refuse)
    trial.publish()
    assert trial.checkpoints.newest() == STEP
    assert trial.said == [f"step-{STEP:08d} could not be copied, the copy before it stays: {error}"]
