"""An engine of plain torch, for small trainings inside a process, without the start of DeepSpeed."""

from typing import Any

import torch
from torch import Tensor, nn

from assets.settings import TrainingSettings
from assets.training.program.optimization import schedule

__all__ = ["LocalEngine"]


class LocalEngine:
    """One rank on the CPU, in the precision of its module's weights; optimizer, schedule and clipping are DeepSpeed's.

    groups: of parameters, from `Task.groups`; steps: of the whole training.
    """

    world_size, global_rank = 1, 0
    device = torch.device("cpu")

    def __init__(self, module: nn.Module, groups: list[dict[str, Any]], steps: int, settings: TrainingSettings) -> None:
        self.module, self.global_steps = module, 0
        self._trained = [parameter for group in groups for parameter in group["params"]]
        self._clipping = settings.optimizer.gradient_clipping or float("inf")
        self._optimizer = torch.optim.AdamW(groups, fused=True)
        self._rates = schedule(self._optimizer, steps, settings)
        self.train()

    def __call__(self, **inputs: Tensor) -> Any:
        return self.module(**inputs)

    def train(self) -> None:
        self.module.train()

    def eval(self) -> None:
        self.module.eval()

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        """Does nothing: gradients accumulate until `step` anyway."""

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        nn.utils.clip_grad_norm_(self._trained, self._clipping)
        self._optimizer.step()
        self._rates.step()
        self._optimizer.zero_grad()
        self.global_steps += 1
