"""Reads an encoder in shards, never complete on any rank: ZeRO-3 shards every tensor once it is created or read."""

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
    """The reader of an encoder under a DeepSpeed configuration of stage 3; all ranks call it.

    Rank 0 reads tensor by tensor, and each is sharded at once. Raises ValueError when the files lack a weight.
    """

    def read(folder: Path, make: Callable[[], nn.Module]) -> nn.Module:
        # Weights drawn here are overwritten, and must not change later draws.
        with torch.random.fork_rng(), deepspeed.zero.Init(config_dict_or_path=dict(config)):
            encoder = make()
        _fill(encoder, folder)
        return encoder

    return read


def deal_out_rest(model: nn.Module, dtype: torch.dtype) -> None:
    """Move the rest, small and not sharded yet, to the device: DeepSpeed does not once other parameters are sharded."""
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
    """The name of every tensor and its file, in the same order on all ranks."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            yield from ((name, file) for name in sorted(file.keys()))
