"""The training loop: one optimizer step after the other, from wherever the run was left."""

from collections.abc import Callable

import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor

from assets.settings import TrainingSettings
from assets.training.batches import collate, share_of_loss
from assets.training.data import TrainingData
from assets.training.engine import agree
from assets.training.preprocessing import Integers
from assets.training.progress import Progress
from assets.training.saving import Saver

__all__ = ["run_steps"]


def run_steps(
    engine: DeepSpeedEngine, data: TrainingData, settings: TrainingSettings, saver: Saver, say: Callable[[str], None]
) -> Progress:
    """Every step of the run that is not done yet. Raises TrainingError when the loss stops being a number."""
    sampler = data.sampler(settings, engine.world_size)
    progress = Progress(sampler.steps, say)
    saver.resume(progress)
    weights = torch.from_numpy(data.class_weights(settings.class_weight_power)).to(engine.device)
    engine.train()
    for step in range(engine.global_steps, sampler.steps):
        rows = sampler.rows(step)
        loss = _step(engine, data, weights, rows, sampler.micro_batches(step, engine.global_rank))
        mean, votes = agree(engine, loss, saver.votes())
        progress.step(mean, int(data.rows.lengths[rows].sum()), len(rows))
        saver.act(votes, progress)
    saver.close()
    return progress


def _step(engine: DeepSpeedEngine, data: TrainingData, weights: Tensor, rows: Integers, own: list[Integers]) -> Tensor:
    """One optimizer step over `rows`, of which this rank has the micro-batches `own`; returns its part of the loss."""
    rank_weight = float(weights[torch.from_numpy(data.labels[rows])].sum()) / engine.world_size
    total = torch.zeros((), device=engine.device)
    for batch in own:
        engine.set_gradient_accumulation_boundary(batch is own[-1])
        inputs = collate(data.rows, batch, engine.module.padding)
        logits = engine(**{name: tensor.to(engine.device) for name, tensor in inputs.items()})
        loss = share_of_loss(logits, torch.from_numpy(data.labels[batch]).to(engine.device), weights, rank_weight)
        engine.backward(loss)
        total += loss.detach()
    engine.step()
    return total
