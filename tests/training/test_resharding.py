"""A run that goes on with another number of ranks: the same curve, the same weights but for rounding, and a record."""

import json
import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from assets.exceptions import TrainingError
from assets.features.snapshot import Snapshot
from assets.lake import Lake
from assets.settings import TrainingSettings
from assets.training.bundle import read_json
from assets.training.launchers.launch import Training, override, train
from assets.training.program.resharding import refuse_code, to_universal

ROOT = Path(__file__).parents[2]
LOSS, WEIGHTS = 1e-4, 1e-4
"""How far the loss of any step may be from that of a run in one go, and the weights as a share of their norm."""


@pytest.fixture(scope="module")
def calm(settings: TrainingSettings, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSettings:
    """Float32 and an encoder without dropout."""
    folder = tmp_path_factory.mktemp("calm") / "encoder"
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return override(settings, {"base_model": str(folder), "precision": "fp32", "checkpoint_seconds": 0.05})


def start(command: list[str]) -> "subprocess.Popen[str]":
    calmly = [word.replace("assets.training.program.worker", "tests.training.calm_worker") for word in command]
    return subprocess.Popen(calmly, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(command: list[str]) -> None:
    process = start(command)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors[-2000:]


def until_saved(home: Path) -> Callable[[list[str]], None]:
    """Kill the run when its first checkpoint is published."""

    def run(command: list[str]) -> None:
        process = start(command)
        while not list((home / "checkpoints").glob("*/CURRENT")):
            assert process.poll() is None, process.communicate()[1][-2000:]
            time.sleep(0.005)
        process.kill()
        process.communicate()
        raise TrainingError("killed")

    return run


def losses(training: Training) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([loss for _, loss in training.report["loss_curve"]])


def distance(training: Training, other: Training) -> float:
    """The norm of the difference of two bundles' weights, as a share of the norm of the latter."""
    found, expected = (load_file(each.path / "model.safetensors") for each in (training, other))
    squares = [((found[name] - weight).square().sum(), weight.square().sum()) for name, weight in expected.items()]
    return float(sum(off for off, _ in squares) / sum(norm for _, norm in squares)) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["zero-0", "zero-1", "zero-2", "zero-3", "zero-2-offload", "zero-3-offload"])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_ranks(
    snapshot: Snapshot, calm: TrainingSettings, tmp_path: Path, stage: str, before: int, after: int
) -> None:
    first, then = (override(calm, {"deepspeed": stage, "ranks": ranks}) for ranks in (before, after))
    whole = train(Lake(tmp_path / "whole" / "lake"), "2024-01-01", snapshot, then, finish)
    lake = Lake(tmp_path / "cut" / "lake")
    with pytest.raises(TrainingError, match="killed"):
        train(lake, "2024-01-01", snapshot, first, until_saved(tmp_path / "cut"))
    cut = train(lake, "2024-01-01", snapshot, then, finish)

    assert whole.report["resumed"] is None
    assert read_json(whole.path / "provenance.json")["world_sizes"] == [after]
    assert cut.report["resumed"] == "equivalent"
    assert read_json(cut.path / "provenance.json")["world_sizes"] == [before, after]
    assert cut.report["steps"] == whole.report["steps"]
    assert cut.training_id == whole.training_id
    assert np.abs(losses(cut) - losses(whole)).max() < LOSS
    assert distance(cut, whole) < WEIGHTS


class Planted:
    """What a pickle can do when it is loaded."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("where", ["model", "optimizer"])
def test_the_conversion_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int, where: str) -> None:
    model = "mp_rank_00_model_states.pt" if stage < 3 else "zero_pp_rank_0_mp_rank_00_model_states.pt"
    saved, trace = tmp_path / "saved", tmp_path / "trace"
    saved.mkdir()
    planted = Planted(trace)
    torch.save({"module": planted if where == "model" else {}}, saved / model)
    state = {"zero_stage": stage, "planted": planted if where == "optimizer" else None}
    torch.save({"optimizer_state_dict": state}, saved / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    refuse_code()
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        to_universal(saved, tmp_path / "universal")
    assert not trace.exists()
