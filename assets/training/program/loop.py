"""The training loop: one optimizer step after the other, from wherever the run was left."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor
from torch.nn.functional import cross_entropy

from assets.settings import TrainingSettings
from assets.training.program.batches import Sampler, ahead, collate, share_of_loss
from assets.training.program.engine import Agreement, consolidated_weights
from assets.training.program.process import notice
from assets.training.program.progress import Progress
from assets.training.program.saving import Saver
from assets.training.program.usage import cost, expected
from assets.training.tasks.classification.calibration import TEMPERATURES, losses_by_temperature
from assets.training.tasks.classification.data import TrainingData
from assets.training.tasks.classification.preprocessing import Integers

__all__ = ["Step", "class_weights", "make_step", "run_steps", "take_step"]

_WARM_UP = 10
"""Steps from which the time and the cost of all of them are told."""


@dataclass(frozen=True)
class Step:
    """What an optimizer step is made of; its tensors are ready for the device to take.

    lengths: tokens of its rows over all ranks; rank_weight: as `share_of_loss` has it; batches: the arguments of the
    model and the labels of each of this rank's micro-batches.
    """

    lengths: Integers
    rank_weight: float
    batches: list[tuple[dict[str, Tensor], Tensor]]


def run_steps(
    engine: DeepSpeedEngine, data: TrainingData, settings: TrainingSettings, saver: Saver, say: Callable[[str], None]
) -> Progress:
    """Every step of the run that is not done yet.

    Raises TrainingError when the loss stops being a number, Stopped when any rank is told to stop.
    """
    sampler, weights = data.sampler(settings, engine.world_size), class_weights(data, settings)
    progress, agreement = Progress(sampler.steps, say), Agreement(engine, votes=4)
    saver.resume(progress)
    make = partial(make_step, engine, data, weights, sampler)
    weights = weights.to(engine.device)
    engine.train()
    with notice() as told_to_stop:
        for step in _made(engine, make, range(engine.global_steps, sampler.steps)):
            if _has_settled(progress, settings.patience):
                break
            loss = take_step(engine, weights, step)
            losses, votes = agreement.answer()
            agreement.ask(loss, [*saver.votes(), float(told_to_stop())])
            progress.step(step.lengths)
            progress.tell(losses)
            if len(data.validation) and _is_time(engine.global_steps, sampler.steps, settings.evaluate_every):
                _evaluate(engine, data, weights, settings, progress)
            _save(saver, votes, agreement, progress)
            if len(progress.times) == 1:  # a person waits for it; what it says of votes, the next one says again
                progress.tell(agreement.answer()[0])
            if len(progress.times) == _WARM_UP:
                _tell_cost(engine, settings, progress, say)
    progress.tell(agreement.answer()[0])
    saver.close()
    return progress


def class_weights(data: TrainingData, settings: TrainingSettings) -> Tensor:
    """What a row of each label counts for in the loss, on the CPU."""
    return torch.from_numpy(data.class_weights(settings.class_weight_power))


def make_step(engine: DeepSpeedEngine, data: TrainingData, weights: Tensor, sampler: Sampler, number: int) -> Step:
    """What this rank needs for a step; `weights`, one a label, are on the CPU."""
    rows = sampler.rows(number)
    rank_weight = float(weights[torch.from_numpy(data.labels[rows])].sum()) / engine.world_size
    batches = [_batch(engine, data, own) for own in sampler.micro_batches(number, engine.global_rank)]
    return Step(data.rows.lengths[rows], rank_weight, batches)


def take_step(engine: DeepSpeedEngine, weights: Tensor, step: Step) -> Tensor:
    """One optimizer step; returns this rank's part of its loss."""
    total = torch.zeros((), device=engine.device)
    for number, batch in enumerate(step.batches, start=1):
        engine.set_gradient_accumulation_boundary(number == len(step.batches))
        logits, labels = _forward(engine, *batch)
        loss = share_of_loss(logits, labels, weights, step.rank_weight)
        engine.backward(loss)
        total += loss.detach()
    engine.step()
    return total


def _made(engine: DeepSpeedEngine, make: Callable[[int], Step], numbers: Iterable[int]) -> Iterator[Step]:
    """Steps in turn: made ahead for a GPU, which has this processor idle; a processor that trains has no time to."""
    return ahead(make, numbers) if engine.device.type == "cuda" else map(make, numbers)


def _batch(engine: DeepSpeedEngine, data: TrainingData, rows: Integers) -> tuple[dict[str, Tensor], Tensor]:
    """The arguments of the model and the labels; pinned for a GPU, which then fetches them while it computes."""
    inputs = collate(data.rows, rows, engine.module.padding, data.preprocessing.max_tokens)
    labels = torch.from_numpy(data.labels[rows])
    if engine.device.type != "cuda":
        return inputs, labels
    return {name: tensor.pin_memory() for name, tensor in inputs.items()}, labels.pin_memory()


def _forward(engine: DeepSpeedEngine, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels on the device."""
    moved = {name: tensor.to(engine.device, non_blocking=True) for name, tensor in inputs.items()}
    return engine(**moved), labels.to(engine.device, non_blocking=True)


def _save(saver: Saver, votes: list[float], agreement: Agreement, progress: Progress) -> None:
    """Do what the ranks have voted for. What is saved has the loss of the step that was just made, too."""
    *votes, stop = votes
    if stop or saver.begins(votes):
        progress.tell(agreement.answer()[0])
    if stop:
        saver.stop(progress)
    saver.act(votes, progress)


def _evaluate(
    engine: DeepSpeedEngine, data: TrainingData, weights: Tensor, settings: TrainingSettings, progress: Progress
) -> None:
    """The loss on the rows that are held back, over all ranks; the weights are kept while it falls."""
    told = torch.zeros(2 + len(TEMPERATURES), dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for batch in data.validation_batches(settings.batch_tokens, engine.global_rank, engine.world_size):
            logits, labels = _forward(engine, *_batch(engine, data, batch))
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


def _is_time(step: int, steps: int, every: int) -> bool:
    """Whether the validation rows are looked at after this many steps."""
    return step % every == 0 or step == steps


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
