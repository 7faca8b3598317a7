"""Estimates the memory of a run, by ZeRO stage and offload, and compares it with free memory.

The formulas are those of Rajbhandari et al. 2020 (ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
section 3): with Adam in mixed precision a parameter costs 2 bytes of weight, 2 of gradient and 12 of optimizer state;
stage 1 shards the states across the ranks, stage 2 also the gradients, stage 3 also the weights. Activations follow
Korthikanti et al. 2022 (Reducing Activation Recomputation in Large Transformer Models, section 4), without the
attention scores on GPUs, where a fused kernel never stores them.

docs/training.md compares estimates with measurements.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.exceptions import SettingsError
from assets.settings import CONFIGS, TrainingSettings
from assets.training.bundle import read_json
from assets.training.launchers.compatibility import offloads
from assets.training.model_size import ModelSize

__all__ = ["Free", "Memory", "check_memory", "estimate_memory", "free_memory"]

_PROCESS = 540_000_000
"""Bytes of a worker without its model: Python, torch, DeepSpeed, the rows, oneDNN's kernels (docs/training.md)."""
_CONTEXT, _PROCESS_WITH_GPU = 1_400_000_000, 2_000_000_000
"""The same with a GPU, on it (CUDA, NCCL, their kernels, gaps in torch's memory) and in main memory: on an H100, 1.38
gigabytes in addition to torch's allocations, and 2.1."""
_ASK_TORCH = "import torch; print(*(torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())))"
_LIVE_LAYERS, _LIVE = 2, 1_000_000_000
"""What stage 3 has complete on a device at once: two layers, one in use and one prefetched, and all gathered parameters
up to this number, DeepSpeed's default."""
_BUCKET = 500_000_000
"""DeepSpeed's default number of gradients that are sent together: their buffer is allocated in full."""
_OFFLOADED = {"weights": "offload_param", "optimizer": "offload_optimizer", "step": "offload_optimizer"}


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs at its peak, by content: on its device, in main memory, on NVMe.

    Main memory also has the weights as they are read, and the copy from which a checkpoint is written.
    Without a GPU the device is main memory.
    """

    device: dict[str, int]
    host: dict[str, int]
    nvme: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes outside NVMe."""
        return sum(self.device.values()) + sum(self.host.values())


@dataclass(frozen=True)
class Free:
    """Free bytes: in main memory, and on the GPU with the least (None without a GPU)."""

    host: int
    device: int | None


def estimate_memory(
    size: ModelSize, settings: TrainingSettings, deepspeed: Mapping[str, Any], ranks: int, has_gpu: bool
) -> Memory:
    """The bytes that one of `ranks` ranks needs at its peak."""
    zero = deepspeed.get("zero_optimization", {})
    stage, width = zero.get("stage", 0), _width(settings)
    where = _places(deepspeed, settings, stage)
    shared = [ranks if stage >= least else 1 for least in (1, 2, 3)]
    live = max(zero.get("stage3_max_live_parameters", _LIVE), _LIVE_LAYERS * size.layer_parameters + size.largest)
    gathered = min(size.parameters, live) if stage == 3 else 0
    has_master = width == 2 or stage > 0
    parts = {
        "weights": width * size.parameters // shared[2],
        "gradients": _gradient_width(settings) * size.trained // shared[1],
        "optimizer": (12 if has_master else 8) * size.trained // shared[0],
        "step": 4 * size.trained // shared[0] if has_master else 0,
        "gathered": width * gathered,
        "activations": _activation_bytes(size, settings, has_gpu) * _micro_batch_tokens(settings, ranks),
    }
    places: dict[str, dict[str, int]] = {"none": {"process": _PROCESS}, "cpu": {}, "nvme": {}}
    if has_gpu:
        parts["buckets"] = _bucket_bytes(zero, width)
        parts["reused"] = -_reused(parts, settings, ranks, where)
        places = {"none": {"process": _CONTEXT}, "cpu": {"process": _PROCESS_WITH_GPU}, "nvme": {}}
    for name, amount in parts.items():
        places[where.get(name, "none")][name] = amount
    if has_gpu:
        read = 0 if stage == 3 else 4 * size.parameters  # stage 3 shards what it reads at once
        saved = width * size.trained // shared[2] + 12 * size.trained // shared[0]
        places["cpu"]["copies"] = max(read, saved)
    if "nvme" in where.values():
        places["cpu"]["buffers"] = _swap_buffers(zero, width, size)
    return Memory(device=places["none"], host=places["cpu"], nvme=places["nvme"])


def free_memory(gpus: int) -> Free:
    """The free memory here: main memory within this process's limits, and that of the GPUs that a run would use.

    torch itself reports it, in a separate process that leaves nothing on a GPU: only torch knows which GPUs
    CUDA_VISIBLE_DEVICES means, and the memory of one that shares main memory. Raises SettingsError when that fails.
    """
    import psutil

    host = min(int(psutil.virtual_memory().available), _allowed())
    if gpus == 0:
        return Free(host, None)
    asked = subprocess.run([sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SettingsError(
            f"training.hardware.ranks: the GPUs do not tell their free memory: {asked.stderr.splitlines()[-1]}"
        )
    return Free(host, min(map(int, asked.stdout.split())))


def check_memory(
    size: ModelSize, settings: TrainingSettings, deepspeed: Mapping[str, Any], ranks: int, free: Free
) -> Memory:
    """The estimate for a run on this machine. Raises SettingsError when it exceeds the free memory.

    The message names the configuration that would fit and moves least out of the device's memory.
    """
    has_gpu = free.device is not None
    memory = estimate_memory(size, settings, deepspeed, ranks, has_gpu)
    if _fits(memory, ranks, free):
        return memory
    for name, other in _by_effort(settings):
        if _fits(estimate_memory(size, settings, other, ranks, has_gpu), ranks, free):
            advice = f"{name} would fit"
            break
    else:
        advice = (
            "no file in configs/deepspeed would fit: lower training.hardware.batch_tokens or take a smaller base_model"
        )
    raise SettingsError(
        f"training.hardware.deepspeed: {settings.hardware.deepspeed} {_too_large(memory, ranks, free)}; {advice}"
    )


def _micro_batch_tokens(settings: TrainingSettings, ranks: int) -> int:
    """Tokens of a rank's largest micro-batch, including padding: whole rows, at least one, within `batch_tokens`."""
    rows = min(
        settings.optimizer.batch_rows // ranks, max(1, settings.hardware.batch_tokens // settings.model.max_tokens)
    )
    return rows * settings.model.max_tokens


def _activation_bytes(size: ModelSize, settings: TrainingSettings, has_gpu: bool) -> int:
    """Bytes per token: activations kept for the backward pass, and working space.

    On a GPU working space is the gradients of a feed-forward network and its surroundings. On CPU it is two more
    layers, and without a fused kernel for dropout the attention scores are kept, in float32: the mask, before and after
    it.
    """
    width, again = _width(settings), settings.hardware.activation_checkpointing
    linear = width * (7 * size.hidden + 2 * size.intermediate)
    if has_gpu:
        layer = linear + (width + 2) * size.hidden
        space = width * (4 * size.hidden + 2 * size.intermediate) + (layer if again else 0)
    else:
        layer = linear + 12 * (size.hidden + size.heads * settings.model.max_tokens)
        space = 2 * layer
    kept = width * size.hidden if again else layer
    return size.trained_layers * kept + space


def _bucket_bytes(zero: Mapping[str, Any], width: int) -> int:
    """The buffers of gradients being sent to other ranks, also with one rank; a second one fills up in the meantime."""
    if zero.get("stage", 0) == 0:
        return 0
    return width * int(zero.get("reduce_bucket_size", _BUCKET)) * (2 if zero.get("overlap_comm") else 1)


def _places(deepspeed: Mapping[str, Any], settings: TrainingSettings, stage: int) -> dict[str, str]:
    """Where DeepSpeed 0.19.8 has what it offloads: gradients go to main memory with the optimizer, even one on NVMe.

    Only stage 2 keeps those that it sums in float32 on the device.
    """
    moved = offloads(deepspeed)
    places = {name: moved[key] for name, key in _OFFLOADED.items() if key in moved}
    kept = stage == 2 and _gradient_width(settings) > _width(settings)
    return places | ({"gradients": "cpu"} if "optimizer" in places and not kept else {})


def _reused(parts: Mapping[str, int], settings: TrainingSettings, ranks: int, where: Mapping[str, str]) -> int:
    """Bytes used first by activations, and then again by the step and its gradients.

    The gradients of an earlier micro-batch are in memory at the same time.
    """
    rows = settings.optimizer.batch_rows // ranks
    has_more = _micro_batch_tokens(settings, ranks) < rows * settings.model.max_tokens
    after = ("step",) if has_more else ("gradients", "step")
    later = sum(parts[name] for name in after if name not in where)
    return min(parts["activations"], later)


def _width(settings: TrainingSettings) -> int:
    return 4 if settings.hardware.precision == "fp32" else 2


def _gradient_width(settings: TrainingSettings) -> int:
    return _width(settings) if settings.hardware.gradient_precision is None else 4


def _swap_buffers(zero: Mapping[str, Any], width: int, size: ModelSize) -> int:
    """Bytes of the pinned buffers through which NVMe is read and written; the defaults are DeepSpeed's."""
    states, weights = zero.get("offload_optimizer") or {}, zero.get("offload_param") or {}
    total = 0
    if weights.get("device") == "nvme":
        total += weights.get("buffer_count", 5) * weights.get("buffer_size", 100_000_000) * width
    if states.get("device") == "nvme":
        total += states.get("buffer_count", 4) * min(size.trained, zero.get("sub_group_size", 1_000_000_000)) * 4
    return total


def _fits(memory: Memory, ranks: int, free: Free) -> bool:
    if free.device is None:
        return memory.total * ranks <= free.host
    return sum(memory.device.values()) <= free.device and sum(memory.host.values()) * ranks <= free.host


def _too_large(memory: Memory, ranks: int, free: Free) -> str:
    if free.device is None:
        return f"needs {_gb(memory.total * ranks)} on {ranks} ranks, of {_gb(free.host)} free"
    device, host = sum(memory.device.values()), sum(memory.host.values()) * ranks
    if device > free.device:
        return f"needs {_gb(device)} on each GPU, of {_gb(free.device)} free"
    return f"needs {_gb(host)} of main memory on {ranks} ranks, of {_gb(free.host)} free"


def _gb(amount: int) -> str:
    return f"{amount / 1e9:.1f} GB"


def _by_effort(settings: TrainingSettings) -> list[tuple[str, dict[str, Any]]]:
    """The files in configs/deepspeed: those that keep more on the device first, then by stage."""
    files = [(file.stem, read_json(file)) for file in (CONFIGS / "deepspeed").glob("*.json")]
    usable = [(name, file) for name, file in files if settings.storage.nvme or "nvme" not in offloads(file).values()]
    cost = {"cpu": 1, "nvme": 3}
    return sorted(
        usable,
        key=lambda item: (
            sum(cost[device] for device in offloads(item[1]).values()),
            item[1].get("zero_optimization", {}).get("stage", 0),
            item[0],
        ),
    )


def _allowed() -> int:
    """Bytes that this process's control group may still allocate; practically unlimited if there is no limit."""
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if not limit.is_file() or (value := limit.read_text().strip()) == "max":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(value) - int(used.read_text())
