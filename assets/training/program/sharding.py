"""An encoder that no rank ever holds whole: ZeRO-3 deals out every tensor as soon as it is made or read."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors import safe_open
from torch import nn

from assets.training.task import Reader

__all__ = ["deal_out_rest", "sharded_reader"]


def sharded_reader(config: Mapping[str, Any]) -> Reader:
    """What reads an encoder under a DeepSpeed configuration of stage 3; all ranks call it.

    Rank 0 reads tensor by tensor, and each goes to its parts at once. Raises ValueError when the files lack a weight.
    """

    def read(folder: Path, make: Callable[[], nn.Module]) -> nn.Module:
        # What is drawn here is read over, and must not change what is drawn after it.
        with torch.random.fork_rng(), deepspeed.zero.Init(config_dict_or_path=dict(config)):
            encoder = make()
        _fill(encoder, folder)
        return encoder

    return read


def deal_out_rest(model: nn.Module, dtype: torch.dtype) -> None:
    """Put what is not dealt out yet, and small, where DeepSpeed leaves it when it finds the rest dealt out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for parameter in model.parameters():
        if not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.to(device, dtype)


def _fill(encoder: Any, folder: Path) -> None:
    wanted = dict(encoder.named_parameters())
    prefix = f"{encoder.base_model_prefix}."
    for name, file in _tensors(folder):
        if (parameter := wanted.pop(name.removeprefix(prefix), None)) is not None:
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                if torch.distributed.get_rank() == 0:
                    parameter.data.copy_(file.get_tensor(name))  # type: ignore[no-untyped-call]
    if wanted:
        raise ValueError(f"the files lack {min(wanted)}")


def _tensors(folder: Path) -> Iterator[tuple[str, safe_open]]:
    """The name of every tensor and the file that has it, in an order that is the same on all ranks."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            yield from ((name, file) for name in sorted(file.keys()))
