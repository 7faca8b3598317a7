"""The training program: `python -m assets.training.worker PLAN.json`, one process a rank.

Reads the plan, builds the engine, loops, writes the bundle. It runs under Dagster Pipes, under a launcher, and alone.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from assets.exceptions import EvergreenError
from assets.training.plan import TrainingPlan
from assets.training.process import die_with_parent, lean_imports, leave, silence_stdout, use_cores
from assets.training.progress import Phases, Progress, report_lines

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

    from assets.training.data import TrainingData

__all__ = ["main", "train"]


def main(path: Path) -> int:
    """Run one rank of a plan. Returns 0 when the bundle is written, 1 when `plan.failure` says why it is not."""
    die_with_parent()
    silence_stdout()
    plan = TrainingPlan.model_validate_json(path.read_text())
    threads = use_cores()
    lean_imports()
    with report_lines(int(os.environ.get("RANK", 0))) as say:
        try:
            train(plan, threads, say)
        except EvergreenError as error:
            plan.failure.write_text(str(error))
            say(str(error))
            return 1
    return 0


def train(plan: TrainingPlan, threads: int, say: Callable[[str], None]) -> None:
    """Fine-tune as the plan says, and write the bundle. Raises TrainingError, BaseModelError or SettingsError."""
    phases = Phases()
    from assets.training.data import load_training_data
    from assets.training.engine import join_processes, seed_everything, start_engine
    from assets.training.model import freeze, new_router
    from assets.training.output import write_bundle

    phases.end("imports")
    join_processes(plan.world_size, threads)
    phases.end("processes")
    data = load_training_data(plan)
    phases.end("data")
    seed_everything(plan.settings.seed)
    router = new_router(plan.base_model, data.preprocessing)
    freeze(router, plan.settings.trainable_layers, plan.settings.train_embeddings)
    engine = start_engine(router, plan, rows=data.trained)
    phases.end("engine")
    say(str(phases))
    progress = loop(engine, data, plan, say)
    write_bundle(plan, engine, data, progress.summary() | {"start_seconds": phases.seconds, "threads": threads})


def loop(engine: "DeepSpeedEngine", data: "TrainingData", plan: TrainingPlan, say: Callable[[str], None]) -> Progress:
    """Every step of the run. Raises TrainingError when the loss stops being a number."""
    import torch

    from assets.training.batches import collate, share_of_loss
    from assets.training.engine import finite_mean

    settings = plan.settings
    sampler = data.sampler(settings, engine.world_size)
    by_queue = data.class_weights(settings.class_weight_power)
    weights, pad = torch.from_numpy(by_queue).to(engine.device), engine.module.padding
    progress = Progress(sampler.steps, say)
    engine.train()
    for step in range(sampler.steps):
        rows, own = sampler.rows(step), sampler.micro_batches(step, engine.global_rank)
        rank_weight = float(by_queue[data.labels[rows]].sum()) / engine.world_size
        total = torch.zeros((), device=engine.device)
        for batch in own:
            engine.set_gradient_accumulation_boundary(batch is own[-1])
            inputs = {name: tensor.to(engine.device) for name, tensor in collate(data.rows, batch, pad).items()}
            labels = torch.from_numpy(data.labels[batch]).to(engine.device)
            loss = share_of_loss(engine(**inputs), labels, weights, rank_weight)
            engine.backward(loss)
            total += loss.detach()
        engine.step()
        progress.step(finite_mean(total, step + 1), int(data.rows.lengths[rows].sum()), len(rows))
    return progress


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
