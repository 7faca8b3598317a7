"""Makes optimizer steps, on DeepSpeed's engine or on one of plain torch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from assets.training.program.batches import Integers, Sampler, ahead, validation_batches
from assets.training.task import Batch, Data, Objective, Task

__all__ = ["Engine", "Step", "fit", "make_step", "take_step", "validate"]


class Engine(Protocol):
    """The engine of the optimizer steps: DeepSpeed's, or `LocalEngine`."""

    module: nn.Module
    device: torch.device
    world_size: int
    global_rank: int
    global_steps: int

    def __call__(self, **inputs: Tensor) -> Any: ...

    def train(self) -> object: ...

    def eval(self) -> object: ...

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...

    def backward(self, loss: Tensor) -> object: ...

    def step(self) -> object: ...


@dataclass(frozen=True)
class Step:
    """The data of an optimizer step; its tensors are ready to be copied to the device.

    lengths: tokens of its rows over all ranks; rank_weight: their weight in the loss, divided by the number of ranks;
    batches: this rank's micro-batches.
    """

    lengths: Integers
    rank_weight: float
    batches: list[Batch]


def fit(
    engine: Engine,
    task: Task[Any, Any],
    data: Data,
    objective: Objective,
    sampler: Sampler,
    settled: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Step, Tensor]]:
    """Make every step that the engine has not made yet, until `settled`; yields each with this rank's part of its loss.

    The objective is on the engine's device.
    """
    make = partial(make_step, engine, task, data, sampler)
    for step in _made(engine, make, range(engine.global_steps, sampler.steps)):
        if settled():
            return
        yield step, take_step(engine, objective, step)


def make_step(engine: Engine, task: Task[Any, Any], data: Data, sampler: Sampler, number: int) -> Step:
    """The data that this rank needs for a step."""
    rows = sampler.rows(number)
    batches = [_batch(engine, task, data, own) for own in sampler.micro_batches(number, engine.global_rank)]
    return Step(data.lengths[rows], data.weight(rows) / engine.world_size, batches)


def take_step(engine: Engine, objective: Objective, step: Step) -> Tensor:
    """One optimizer step; returns this rank's part of its loss.

    The step's loss is the sum over a rank's micro-batches, averaged over the ranks: the weighted mean over the step's
    rows, however they are cut.
    """
    total = torch.zeros((), device=engine.device)
    for number, batch in enumerate(step.batches, start=1):
        engine.set_gradient_accumulation_boundary(number == len(step.batches))
        loss = objective(*_forward(engine, batch)) / step.rank_weight
        engine.backward(loss)
        total += loss.detach()
    engine.step()
    return total


def validate(engine: Engine, task: Task[Any, Any], data: Data, objective: Objective, batch_tokens: int) -> Tensor:
    """The objective's measures on this rank's part of the rows held back, without dropout."""
    sums = torch.zeros((), dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for rows in validation_batches(data, batch_tokens, engine.global_rank, engine.world_size):
            sums = sums + objective.measure(*_forward(engine, _batch(engine, task, data, rows)))
    engine.train()
    return sums


def _made(engine: Engine, make: Callable[[int], Step], numbers: Iterable[int]) -> Iterator[Step]:
    """Steps in order: prepared ahead for a GPU, while this processor is idle; on a CPU it is busy with training."""
    return ahead(make, numbers) if engine.device.type == "cuda" else map(make, numbers)


def _batch(engine: Engine, task: Task[Any, Any], data: Data, rows: Integers) -> Batch:
    """Some rows; pinned for a GPU, which then copies them while it computes."""
    batch = task.batch(engine.module, data, rows)
    if engine.device.type != "cuda":
        return batch
    return Batch({name: tensor.pin_memory() for name, tensor in batch.inputs.items()}, batch.targets.pin_memory())


def _forward(engine: Engine, batch: Batch) -> tuple[Tensor, Tensor]:
    """Outputs and targets on the device."""
    moved = {name: tensor.to(engine.device, non_blocking=True) for name, tensor in batch.inputs.items()}
    return engine(**moved), batch.targets.to(engine.device, non_blocking=True)
