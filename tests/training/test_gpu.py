"""What only a GPU shows; docs/training.md has what was measured on one."""

import gc
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assets.exceptions import TrainingError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file
from assets.lake import Lake
from assets.settings import TrainingSettings
from assets.training.bundle import Bundle
from assets.training.launchers.estimate import estimate_memory
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import override, plan_training, train
from assets.training.plan import TrainingPlan
from assets.training.program.batches import Sampler
from assets.training.program.engine import Agreement, make_model, seed_everything, start_engine
from assets.training.program.fit import _made, make_step, take_step
from assets.training.tasks import TASKS
from assets.training.tasks.classification import predictor

TASK = TASKS["classification"]

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    pytest.mark.filterwarnings("default"),  # torch and NCCL warn of much there
]

ROOT = Path(__file__).parents[2]
TRIED = [
    *({"deepspeed": f"zero-{kind}"} for kind in ("0", "1", "2", "2-overlap", "3", "2-offload", "3-offload")),
    *({"deepspeed": f"zero-{stage}", "precision": "fp16"} for stage in (1, 2, 3)),
    {"deepspeed": "zero-1", "precision": "fp32"},
    {"deepspeed": "zero-1", "activation_checkpointing": True},
]


class Engine:
    """An engine of one rank in this process, and its own steps."""

    def __init__(self, plan: TrainingPlan):
        gc.collect()  # an engine before this one may still be there
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()
        self.plan, self.data = plan, TASK.data(plan)
        seed_everything(0)
        self.engine = start_engine(TASK, make_model(TASK, plan, self.data), plan, self.data.trained)
        self.engine.train()
        self.agreement = Agreement(self.engine, votes=1)
        self.objective = TASK.objective(self.data).to(self.engine.device)

    def steps(self, numbers: Sequence[int]) -> list[float]:
        """Make steps of the rows of these; the losses that are known when the last one is under way."""
        losses: list[float] = []
        sampler = Sampler.of(self.data, self.plan.settings, 1)
        make = partial(make_step, self.engine, TASK, self.data, sampler)
        for step in _made(self.engine, make, numbers):
            loss = take_step(self.engine, self.objective, step)
            losses += self.agreement.answer()[0]
            self.agreement.ask(loss, [0.0])
        return losses

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() - self.before


@pytest.fixture
def start(
    alone: None, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path
) -> Iterator[Callable[..., Engine]]:
    monkeypatch.setenv("LOCAL_RANK", "0")
    started: list[Engine] = []

    def begin(**changes: Any) -> Engine:
        plan = plan_training(
            snapshot, override(settings, {"epochs": 40.0, "warmup_share": 0.01} | changes), tmp_path, tmp_path
        )
        started.append(Engine(plan))
        return started[-1]

    yield begin
    torch.cuda.set_sync_debug_mode("default")
    for one in started:
        one.engine.destroy()


@pytest.mark.parametrize("change", TRIED, ids=lambda change: "-".join(map(str, change.values())))
def test_every_stage_trains_on_a_gpu(start: Callable[..., Engine], change: dict[str, Any]) -> None:
    losses = start(**change).steps([0] * 40)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("stage", ["zero-1", "zero-2", "zero-2-overlap"])
def test_no_step_waits_for_the_gpu(start: Callable[..., Engine], stage: str) -> None:
    one = start(deepspeed=stage)
    one.steps(range(3))
    torch.cuda.set_sync_debug_mode("error")
    assert len(one.steps(range(3, 8))) == 5


def test_the_estimate_of_a_gpus_memory_is_within_15_percent(
    start: Callable[..., Engine], encoder: Path, tmp_path: Path
) -> None:
    one = start(deepspeed="zero-1", base_model=wide(encoder, tmp_path / "wide"), batch_rows=256, batch_tokens=8192)
    one.steps(range(3))
    plan = one.plan
    device = estimate_memory(TASK.size(plan), plan.settings, plan.deepspeed, 1, has_gpu=True).device
    assert sum(device.values()) - device["process"] == pytest.approx(one.peak, rel=0.15)


def wide(encoder: Path, folder: Path) -> str:
    """A random BERT of the same vocabulary, whose activations weigh more than anything else."""
    from transformers import BertConfig, BertModel

    changes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 8}
    config = BertConfig.from_pretrained(encoder, **changes)
    BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((encoder / "tokenizer.json").read_bytes())
    return str(folder)


@pytest.mark.parametrize("stage", ["zero-1", "zero-2", "zero-3"])
def test_a_run_on_a_gpu_goes_on_to_the_same_bits(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run, stage: str
) -> None:
    chosen = override(settings, {"deepspeed": stage, "checkpoint_seconds": 1e6})
    expected = train(lake, "2024-12-11", snapshot, chosen, run)

    def noticed(command: list[str]) -> None:
        told = [word.replace("assets.training.program.worker", "tests.training.noticed_worker") for word in command]
        assert subprocess.run(told, cwd=ROOT, capture_output=True, check=False).returncode == 143
        raise TrainingError("ended early")

    with pytest.raises(TrainingError, match="told to stop, and has after step"):
        train(lake, "2024-12-12", snapshot, chosen, noticed)
    again = train(lake, "2024-12-12", snapshot, chosen, run)
    assert again.report["resumed"] == "exact"
    assert hash_file(again.path / "model.safetensors") == hash_file(expected.path / "model.safetensors")
    assert 0 < again.report["utilisation"] < 1


def test_a_gpu_gives_the_answers_of_the_cpu(
    bundle: Bundle, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = snapshot.test()
    exact = bundle.predict_proba(rows)
    monkeypatch.setattr(predictor, "_WORTH_COMPILING", 1)
    fresh = replace(bundle.predictor, _compiled={})
    assert np.abs(fresh.predict_proba(rows) - exact).max() < 1e-5
    fast = fresh.predict_proba(rows, precision="bfloat16")
    assert (fast.argmax(axis=1) == exact.argmax(axis=1)).all()
    assert {one.output.weight.device.type for one in fresh._compiled.values()} == {"cuda"}
