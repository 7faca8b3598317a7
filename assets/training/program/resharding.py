"""Loads a checkpoint into another number of ranks than it was written by: DeepSpeed's universal checkpoint.

Weights and optimizer states arrive as they were. What follows differs: gradients are added up in another order, and
dropout is drawn anew. Such a run is equivalent to one that was never stopped, not equal to it.
"""

import copy
import io
import os
import shutil
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from deepspeed import DeepSpeedEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

__all__ = ["load_resharded", "refuse_code", "to_universal"]

_CLASSES = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
"""What DeepSpeed's states hold beside tensors, numbers, texts and containers of them."""


def refuse_code() -> None:
    """Let no torch.load of this process run code from a file, even where DeepSpeed passes weights_only=False."""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    torch.serialization.add_safe_globals(_CLASSES)


def load_resharded(engine: DeepSpeedEngine, saved: Path, scratch: Path) -> None:
    """Load a checkpoint of any number of ranks; all of them call it. `scratch` is a folder that they share."""
    if engine.zero_optimization_stage() == 0:  # every rank holds everything, and saved nothing of its own
        engine.load_checkpoint(str(saved.parent), tag=saved.name, load_module_strict=False)
        return
    if engine.global_rank == 0:
        to_universal(saved, scratch / saved.name)
    torch.distributed.barrier()
    _load_universal(engine, scratch / saved.name)
    torch.distributed.barrier()
    if engine.global_rank == 0:
        shutil.rmtree(scratch)


def to_universal(saved: Path, target: Path) -> None:
    """Write a checkpoint of ZeRO 1 to 3 parameter by parameter, whole (deepspeed.checkpoint.ds_to_universal).

    Raises pickle.UnpicklingError after `refuse_code` when a file holds more than states.
    """
    from deepspeed.checkpoint import ds_to_universal

    alone = {"num_extract_workers": 1, "num_merge_workers": 1}  # more would be processes that refuse no code
    options = {"keep_temp_folder": False, "strict": True, "inject_missing_state": True}
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(Namespace(input_folder=str(saved), output_folder=str(target), **alone, **options))


def _load_universal(engine: DeepSpeedEngine, folder: Path) -> None:
    """Load what `to_universal` wrote. Frozen weights are not in it; they are what they were at the start."""
    groups = engine.optimizer.param_groups
    own = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    engine._config.load_universal_checkpoint = True
    engine.load_checkpoint(str(folder.parent), tag=folder.name, load_module_strict=False)
    engine._config.load_universal_checkpoint = False
    # Under ZeRO-3 DeepSpeed gives all groups the learning rate and the weight decay of the first, and all parameters
    # one and the same counter of steps, which each of them moves.
    for group, settings, rate in zip(groups, own, engine.lr_scheduler.get_last_lr(), strict=True):
        group.update(settings | {"lr": rate})
    for state in engine.optimizer.state.values():
        state["step"] = copy.deepcopy(state["step"])
