"""The program knows nothing of a task but what `assets/training/task.py` says: here it fits a line."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assets.settings import TrainingSettings
from assets.training.launchers.launch import override
from assets.training.program.batches import Sampler
from assets.training.program.fit import fit, validate
from assets.training.program.local import LocalEngine
from assets.training.task import Batch, Task

ROWS, HELD = 96, 16


@dataclass
class Points:
    """Rows of y = 3x - 1; the last few are held back."""

    trained: int = ROWS - HELD
    window: int | None = None
    lengths: Any = field(default_factory=lambda: np.ones(ROWS, np.int64))
    x: Tensor = field(default_factory=lambda: torch.linspace(-1, 1, ROWS)[:, None])

    def weight(self, rows: Any) -> float:
        return float(len(rows))


class Squares(nn.Module):
    """Squared errors."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum()

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([self(outputs, targets), torch.tensor(float(len(targets)))]).double()


class Line:
    """A task of numbers, with as much of one as `fit` asks for."""

    def batch(self, model: nn.Module, data: Points, rows: Any) -> Batch:
        x = data.x[torch.from_numpy(rows)]
        return Batch({"input": x}, 3 * x - 1)


@pytest.fixture
def chosen(settings: TrainingSettings) -> TrainingSettings:
    return override(settings, {"epochs": 60.0, "batch_rows": 16, "batch_tokens": 4, "gradient_clipping": 0.0})


def trained(chosen: TrainingSettings, stop_at: float) -> tuple[LocalEngine, Any, list[float]]:
    torch.manual_seed(0)
    model, data, task = nn.Linear(1, 1), Points(), cast("Task[Any, Any]", Line())
    sampler = Sampler.of(data, chosen, world_size=1)
    groups = [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.0}]
    engine, losses = LocalEngine(model, groups, sampler.steps, chosen), []
    squares: Any = Squares()
    for step, loss in fit(engine, task, data, squares, sampler, lambda: bool(losses) and losses[-1] < stop_at):
        assert len(step.lengths) == sum(len(batch.targets) for batch in step.batches) == 16
        losses.append(float(loss))
    return engine, validate(engine, task, data, squares, chosen.hardware.batch_tokens), losses


def test_another_task_is_learned(chosen: TrainingSettings) -> None:
    engine, sums, losses = trained(chosen, stop_at=0.0)
    assert engine.global_steps == len(losses) == 60 * (ROWS - HELD) // 16
    assert losses[-1] < 0.001 * losses[0]
    assert sums[1] == HELD
    assert sums[0] / sums[1] < 0.01


def test_what_has_settled_takes_no_further_step(chosen: TrainingSettings) -> None:
    engine, _, losses = trained(chosen, stop_at=0.1)
    assert engine.global_steps == len(losses) < 60 * (ROWS - HELD) // 16
    assert losses[-1] < 0.1 <= losses[-2]
