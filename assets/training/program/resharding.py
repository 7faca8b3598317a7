"""Loads a checkpoint written by another number of ranks, with DeepSpeed's universal checkpoint.

Weights and optimizer states are unchanged. Later steps differ: gradients are added up in another order, and dropout
draws differ. Such a run is equivalent to an uninterrupted one, not equal to it.
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
"""The classes in DeepSpeed's states, other than tensors, numbers, texts and containers of them."""


def refuse_code() -> None:
    """Prevent every torch.load in this process from running code, even if DeepSpeed passes weights_only=False."""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    torch.serialization.add_safe_globals(_CLASSES)


def load_resharded(engine: DeepSpeedEngine, saved: Path, scratch: Path, converts: bool) -> None:
    """Load a checkpoint of any number of ranks; all of them call it.

    `scratch` is a folder that all ranks share, or all on a machine, of which one `converts` the checkpoint into it.
    """
    if engine.zero_optimization_stage() == 0:  # every rank has everything, and saved nothing of its own
        engine.load_checkpoint(str(saved.parent), tag=saved.name, load_module_strict=False)
        return
    if converts:
        to_universal(saved, scratch / saved.name)
    torch.distributed.barrier()
    _load_universal(engine, scratch / saved.name)
    torch.distributed.barrier()
    if converts:
        shutil.rmtree(scratch)


def to_universal(saved: Path, target: Path) -> None:
    """Write a checkpoint of ZeRO 1 to 3 as complete parameters, one by one (deepspeed.checkpoint.ds_to_universal).

    Raises pickle.UnpicklingError after `refuse_code` when a file contains more than states.
    """
    from deepspeed.checkpoint import ds_to_universal

    alone = {"num_extract_workers": 1, "num_merge_workers": 1}  # more would start processes without `refuse_code`
    options = {"keep_temp_folder": False, "strict": True, "inject_missing_state": True}
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(Namespace(input_folder=str(saved), output_folder=str(target), **alone, **options))


def _load_universal(engine: DeepSpeedEngine, folder: Path) -> None:
    """Load what `to_universal` wrote. It has no frozen weights; they are unchanged since the start."""
    groups = engine.optimizer.param_groups
    own = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    engine._config.load_universal_checkpoint = True
    engine.load_checkpoint(str(folder.parent), tag=folder.name, load_module_strict=False)
    engine._config.load_universal_checkpoint = False
    # Under ZeRO-3 DeepSpeed gives all groups the learning rate and the weight decay of the first, and all parameters
    # one shared step counter, which each of them increments.
    for group, settings, rate in zip(groups, own, engine.lr_scheduler.get_last_lr(), strict=True):
        group.update(settings | {"lr": rate})
    for state in engine.optimizer.state.values():
        state["step"] = copy.deepcopy(state["step"])
