"""Writes the output of a training run: the files of a bundle."""

import json
import platform
import time
from importlib.metadata import version
from typing import Any

import torch
from deepspeed import DeepSpeedEngine
from safetensors.torch import save_file

from assets.exceptions import TrainingError
from assets.training.bundle import write_manifest
from assets.training.model_size import model_flops
from assets.training.plan import TrainingPlan
from assets.training.program.engine import consolidated_weights
from assets.training.program.progress import Progress
from assets.training.program.usage import cost, peak_memory
from assets.training.task import Data, Task

__all__ = ["usage", "write_bundle"]


def usage(
    task: Task[Any, Any], plan: TrainingPlan, engine: DeepSpeedEngine, progress: Progress, peak: float
) -> dict[str, Any]:
    """The run's cost and usage: its price, the share of the ranks' `peak` FLOP/s, and the most bytes of any rank.

    Every rank takes part.
    """
    settings, seconds = plan.settings, time.perf_counter() - progress.started
    flops = model_flops(task.size(plan), progress.tokens, progress.squares)
    memory = torch.tensor(list(peak_memory().values()), device=engine.device)
    torch.distributed.all_reduce(memory, torch.distributed.ReduceOp.MAX)
    return {
        "cost": cost(seconds, plan.world_size, settings.cost.price_per_hour),
        "utilisation": flops / seconds / (peak * plan.world_size),
        "peak_memory": dict(zip(peak_memory(), memory.tolist(), strict=True)),
    }


def write_bundle(
    task: Task[Any, Any],
    plan: TrainingPlan,
    engine: DeepSpeedEngine,
    data: Data,
    progress: Progress,
    world_sizes: list[int],
    training: dict[str, Any],
) -> None:
    """Write the trained model, with its best weights, to `plan.output`. Every rank takes part; rank 0 writes.

    world_sizes: the numbers of ranks that the run had, in order; with more than one it cannot be reproduced bit for
    bit. Raises TrainingError when a weight is not finite.
    """
    weights = consolidated_weights(engine) | (progress.best or {})
    if engine.global_rank > 0:
        return
    if broken := [name for name, weight in weights.items() if not torch.isfinite(weight).all()]:
        raise TrainingError(f"after the last step {broken[0]} is not finite; lower training.optimizer.learning_rate")
    save_file(weights, plan.output / "model.safetensors", metadata={"format": "pt"})
    task.save(plan.output, engine.module, data, progress.findings)
    provenance = _provenance(plan, data.trained, engine) | {"world_sizes": world_sizes}
    for name, content in (("provenance.json", provenance), ("training.json", training)):
        (plan.output / name).write_text(json.dumps(content, indent=1))
    write_manifest(plan.output, task)


def _provenance(plan: TrainingPlan, rows: int, engine: DeepSpeedEngine) -> dict[str, Any]:
    """The model's inputs, and the software and hardware that it was trained with."""
    return {
        "training_id": plan.training_id,
        "as_of": plan.as_of,
        "snapshot_id": plan.snapshot_id,
        "train_rows": rows,
        "features": list(plan.features),
        "settings": plan.settings.model_dump(),
        "deepspeed": plan.deepspeed,
        "base_model": {"name": plan.base_model_name, "sha256": plan.base_model_sha256},
        "code": plan.code,
        "seed": plan.settings.optimizer.seed,
        "world_size": engine.world_size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "software": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "deepspeed", "tokenizers", "numpy")},
    }
