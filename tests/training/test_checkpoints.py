"""Checkpoints on disk: damage of any kind is seen before anything is loaded, and the newest whole one is taken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assets.training.program.checkpoints import Checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path, save_checkpoint: Callable[..., Path]) -> Checkpoints:
    found = Checkpoints(tmp_path / "run", kept=2)
    for step in (10, 20):
        save_checkpoint(found, step)
    return found


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zero(content: bytes) -> bytes:
    return bytes(len(content))


def flip(content: bytes) -> bytes:
    return content[:7] + bytes([content[7] ^ 1]) + content[8:]


def empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt", "rank-0.pt", "MANIFEST.json"])
@pytest.mark.parametrize("damage", [truncate, zero, flip, empty, None])
def test_a_damaged_file_is_recognised_and_the_one_before_is_taken(
    checkpoints: Checkpoints, name: str, damage: Callable[[bytes], bytes] | None
) -> None:
    assert checkpoints.newest() == 20
    file = checkpoints.path(20) / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    assert checkpoints.newest() == 10


def test_without_a_whole_one_there_is_none(checkpoints: Checkpoints) -> None:
    for step in (10, 20):
        (checkpoints.path(step) / "model.pt").write_bytes(b"")
    assert checkpoints.newest() is None
    assert Checkpoints(checkpoints.folder / "nowhere", kept=1).newest() is None


@pytest.mark.parametrize("pointer", [b"", b"step-00000030", b"\xff\x00", b"../run/step-00000010", None])
def test_a_damaged_pointer_costs_nothing(checkpoints: Checkpoints, pointer: bytes | None) -> None:
    file = checkpoints.folder / "CURRENT"
    if pointer is None:
        file.unlink()
    else:
        file.write_bytes(pointer)
    assert checkpoints.newest() == 20


def test_the_pointer_says_which_is_current(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "CURRENT").write_text("step-00000010")
    assert checkpoints.newest() == 10


def test_what_was_being_written_is_never_taken_and_goes(checkpoints: Checkpoints) -> None:
    half = checkpoints.beside(30)
    half.mkdir()
    (half / "model.pt").write_bytes(b"half")
    assert checkpoints.newest() == 20
    checkpoints.clear()
    assert not half.exists()
    assert checkpoints.newest() == 20


def test_the_newest_are_kept(checkpoints: Checkpoints, save_checkpoint: Callable[..., Path]) -> None:
    save_checkpoint(checkpoints, 30)
    assert {path.name for path in checkpoints.folder.iterdir()} == {"step-00000020", "step-00000030", "CURRENT"}
    assert (checkpoints.folder / "CURRENT").read_text() == "step-00000030"


@pytest.mark.parametrize("kept", [1, 2])
def test_a_damaged_newer_one_is_not_kept_in_place_of_the_current(
    checkpoints: Checkpoints, kept: int, save_checkpoint: Callable[..., Path]
) -> None:
    (checkpoints.path(20) / "model.pt").write_bytes(b"")
    fewer = Checkpoints(checkpoints.folder, kept)
    save_checkpoint(fewer, 15)
    assert fewer.newest() == 15
    assert not fewer.path(20).exists()
    assert fewer.path(10).exists() == (kept == 2)


def test_a_damaged_one_of_the_same_step_is_replaced(
    checkpoints: Checkpoints, save_checkpoint: Callable[..., Path]
) -> None:
    (checkpoints.path(20) / "model.pt").write_bytes(b"")
    save_checkpoint(checkpoints, 20)
    assert checkpoints.newest() == 20
