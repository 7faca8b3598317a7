"""The training loop: all remaining steps of a run, with the communication between ranks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from deepspeed import DeepSpeedEngine

from assets.settings import TrainingSettings
from assets.training.program.batches import Sampler
from assets.training.program.engine import Agreement, consolidated_weights
from assets.training.program.fit import fit, validate
from assets.training.program.process import notice
from assets.training.program.progress import Progress, Report
from assets.training.program.saving import Saver
from assets.training.program.usage import cost, expected
from assets.training.task import Data, Objective, Task

__all__ = ["run_steps"]

_WARM_UP = 10
"""Steps after which the time and the cost of all steps are reported."""


def run_steps(
    engine: DeepSpeedEngine,
    task: Task[Any, Any],
    data: Data,
    settings: TrainingSettings,
    saver: Saver,
    say: Callable[[str], None],
    report: Report,
) -> Progress:
    """Every step of the run that is not done yet.

    Raises TrainingError when the loss is no longer a number, Stopped when any rank is asked to stop.
    """
    sampler, objective = Sampler.of(data, settings, engine.world_size), task.objective(data).to(engine.device)
    progress, agreement = Progress(sampler.steps, say, report=report), Agreement(engine, votes=4)
    saver.resume(progress)
    settled = partial(_has_settled, progress, settings.optimizer.patience)
    has_validation = data.trained < len(data.lengths)
    engine.train()
    with notice() as told_to_stop:
        for step, loss in fit(engine, task, data, objective, sampler, settled):
            losses, votes = agreement.answer()
            agreement.ask(loss, [*saver.votes(), float(told_to_stop())])
            progress.step(step.lengths)
            progress.tell(losses)
            if has_validation and _is_time(engine.global_steps, sampler.steps, settings.optimizer.evaluate_every):
                _evaluate(engine, task, data, objective, settings, progress)
            _save(saver, votes, agreement, progress)
            if len(progress.times) == 1:  # a person waits for it; its votes are repeated in the next step
                progress.tell(agreement.answer()[0])
            if len(progress.times) == _WARM_UP:
                _tell_cost(engine, settings, progress, say)
    progress.tell(agreement.answer()[0])
    saver.close()
    return progress


def _save(saver: Saver, votes: list[float], agreement: Agreement, progress: Progress) -> None:
    """Do what the ranks have voted for. The saved state includes the loss of the last step."""
    *votes, stop = votes
    if stop or saver.begins(votes):
        progress.tell(agreement.answer()[0])
    if stop:
        saver.stop(progress)
    saver.act(votes, progress)


def _evaluate(
    engine: DeepSpeedEngine,
    task: Task[Any, Any],
    data: Data,
    objective: Objective,
    settings: TrainingSettings,
    progress: Progress,
) -> None:
    """Record the loss on the rows held back, over all ranks; the weights are kept if it is the lowest."""
    sums = validate(engine, task, data, objective, settings.hardware.batch_tokens)
    torch.distributed.all_reduce(sums)
    progress.evaluated(engine.global_steps, float(sums[0] / sums[1]))
    is_best = _best(progress) == len(progress.validation) - 1
    if settings.optimizer.patience is None or is_best:
        progress.findings = objective.findings(sums[2:])
    if settings.optimizer.patience is not None and is_best:
        progress.best = consolidated_weights(engine, trained=True)


def _is_time(step: int, steps: int, every: int) -> bool:
    """Whether to evaluate on the validation rows after this many steps."""
    return step % every == 0 or step == steps


def _has_settled(progress: Progress, patience: int | None) -> bool:
    """Whether the last `patience` evaluations were no better than the one before them."""
    return patience is not None and len(progress.validation) - 1 - _best(progress) >= patience


def _best(progress: Progress) -> int:
    """The index of the evaluation with the lowest loss; the first of equals, 0 without any."""
    losses = [loss for _, loss in progress.validation]
    return losses.index(min(losses)) if losses else 0


def _tell_cost(
    engine: DeepSpeedEngine, settings: TrainingSettings, progress: Progress, say: Callable[[str], None]
) -> None:
    seconds = expected(progress.times, progress.steps)
    price = cost(seconds, engine.world_size, settings.cost.price_per_hour)
    say(f"expects {seconds:.0f} s for {progress.steps} steps" + (f", at a cost of {price:.2f}" if price else ""))
