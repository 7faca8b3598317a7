"""The training loop: one optimizer step after the other, from wherever the run was left."""

from collections.abc import Callable

import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor
from torch.nn.functional import cross_entropy

from assets.settings import TrainingSettings
from assets.training.batches import collate, share_of_loss
from assets.training.calibration import TEMPERATURES, losses_by_temperature
from assets.training.data import TrainingData
from assets.training.engine import agree, consolidated_weights
from assets.training.preprocessing import Integers
from assets.training.progress import Progress
from assets.training.saving import Saver
from assets.training.usage import cost, expected

__all__ = ["run_steps"]

_WARM_UP = 10
"""Steps from which the time and the cost of all of them are told."""


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
        if _has_settled(progress, settings.patience):
            break
        rows = sampler.rows(step)
        loss = _step(engine, data, weights, rows, sampler.micro_batches(step, engine.global_rank))
        mean, votes = agree(engine, loss, saver.votes())
        progress.step(mean, data.rows.lengths[rows])
        if len(data.validation) and ((step + 1) % settings.evaluate_every == 0 or step + 1 == sampler.steps):
            _evaluate(engine, data, weights, settings, progress)
        saver.act(votes, progress)
        if len(progress.times) == _WARM_UP:
            _tell_cost(engine, settings, progress, say)
    saver.close()
    return progress


def _step(engine: DeepSpeedEngine, data: TrainingData, weights: Tensor, rows: Integers, own: list[Integers]) -> Tensor:
    """One optimizer step over `rows`, of which this rank has the micro-batches `own`; returns its part of the loss."""
    rank_weight = float(weights[torch.from_numpy(data.labels[rows])].sum()) / engine.world_size
    total = torch.zeros((), device=engine.device)
    for batch in own:
        engine.set_gradient_accumulation_boundary(batch is own[-1])
        logits, labels = _forward(engine, data, batch)
        loss = share_of_loss(logits, labels, weights, rank_weight)
        engine.backward(loss)
        total += loss.detach()
    engine.step()
    return total


def _forward(engine: DeepSpeedEngine, data: TrainingData, batch: Integers) -> tuple[Tensor, Tensor]:
    """Logits and labels of some rows."""
    inputs = collate(data.rows, batch, engine.module.padding)
    labels = torch.from_numpy(data.labels[batch]).to(engine.device)
    return engine(**{name: tensor.to(engine.device) for name, tensor in inputs.items()}), labels


def _evaluate(
    engine: DeepSpeedEngine, data: TrainingData, weights: Tensor, settings: TrainingSettings, progress: Progress
) -> None:
    """The loss on the rows that are held back, over all ranks; the weights are kept while it falls."""
    told = torch.zeros(2 + len(TEMPERATURES), dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for batch in data.validation_batches(settings.batch_tokens, engine.global_rank, engine.world_size):
            logits, labels = _forward(engine, data, batch)
            loss = cross_entropy(logits, labels, weight=weights, reduction="sum")
            told += torch.stack([loss, weights[labels].sum(), *losses_by_temperature(logits, labels)])
    engine.train()
    torch.distributed.all_reduce(told)
    progress.validation.append((engine.global_steps, float(told[0] / told[1])))
    progress.say(f"validation loss {progress.validation[-1][1]:.3f}")
    is_best = _best(progress) == len(progress.validation) - 1
    if settings.patience is None or is_best:
        progress.temperature = TEMPERATURES[int(told[2:].argmin())]
    if settings.patience is not None and is_best:
        progress.best = consolidated_weights(engine, trained=True)


def _has_settled(progress: Progress, patience: int | None) -> bool:
    """Whether the last `patience` evaluations brought nothing better than the one before them."""
    return patience is not None and len(progress.validation) - 1 - _best(progress) >= patience


def _best(progress: Progress) -> int:
    """Which evaluation had the lowest loss; the first of equals, 0 without any."""
    losses = [loss for _, loss in progress.validation]
    return losses.index(min(losses)) if losses else 0


def _tell_cost(
    engine: DeepSpeedEngine, settings: TrainingSettings, progress: Progress, say: Callable[[str], None]
) -> None:
    seconds = expected(progress.times, progress.steps)
    price = cost(seconds, engine.world_size, settings.price_per_hour)
    say(f"expects {seconds:.0f} s for {progress.steps} steps" + (f", at a cost of {price:.2f}" if price else ""))
