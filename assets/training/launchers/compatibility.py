"""Checks combinations of settings: what would fail, or be ignored silently, is one line before any process starts.

DeepSpeed itself ignores unknown keys, parameter offload that its stage does not support, and optimizer offload under
stage 0. docs/training.md lists what was tried.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.exceptions import SettingsError
from assets.settings import TrainingSettings

__all__ = ["KEYS", "ZERO_KEYS", "Machine", "check_training", "offloads"]

KEYS = frozenset(
    {
        *("zero_optimization", "optimizer", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "aio"),
        *("communication_data_type", "prescale_gradients", "gradient_predivide_factor", "disable_allgather"),
        *("steps_per_print", "wall_clock_breakdown", "memory_breakdown", "flops_profiler", "comms_logger"),
        *("dump_state", "disable_python_gc"),
    }
)
"""The allowed keys of a file in configs/deepspeed."""

ZERO_KEYS = frozenset(
    {
        *("stage", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "overlap_comm", "sub_group_size"),
        *("allgather_partitions", "allgather_bucket_size", "round_robin_gradients", "offload_optimizer"),
        *("offload_param", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"),
        *("stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_gather_16bit_weights_on_model_save"),
        *("zero_hpz_partition_size", "zero_quantized_weights", "zero_quantized_gradients"),
    }
)
"""The allowed keys of its zero_optimization."""

_OURS = {
    **dict.fromkeys(
        ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "optimizer.batch_rows"
    ),
    "gradient_clipping": "optimizer.gradient_clipping",
    "scheduler": "optimizer.schedule",
    "activation_checkpointing": "hardware.activation_checkpointing",
    "compile": "hardware.compile",
    "data_types": "hardware.gradient_precision",
    **dict.fromkeys(("bf16", "bfloat16", "fp16", "amp", "torch_autocast"), "hardware.precision"),
}
_log = logging.getLogger("evergreen")

_OPTIMIZERS = ("Adam", "AdamW")

_CPU = Path("/proc/cpuinfo")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that multiply matrices in bf16; the last one is Arm's."""
_FIRST_WITH_BF16 = 8
"""The first of NVIDIA's compute capabilities with bf16: Ampere."""


@dataclass(frozen=True)
class Machine:
    """The capabilities of the machine that starts a run: GPUs, bf16, libaio for NVMe offload, and a C++ compiler."""

    gpus: int
    bf16: bool
    """Whether the training device supports bf16; otherwise torch computes it in software."""
    libaio: bool
    compiler: bool

    @classmethod
    def here(cls, gpus: int, deepspeed: Mapping[str, Any]) -> "Machine":
        """This machine, with its number of visible GPUs; libaio is looked for only if the configuration needs it."""
        compiler = shutil.which("c++")
        needs_libaio = compiler is not None and "nvme" in offloads(deepspeed).values()
        return cls(gpus, _computes_bf16(gpus), needs_libaio and _links_libaio(), compiler is not None)

    def precision(self, settings: TrainingSettings) -> str:
        """The precision of the settings, with `auto` resolved. Machines of a hostfile are assumed to have bf16."""
        computed = self.bf16 or settings.hardware.hostfile is not None
        if settings.hardware.precision == "bf16" and not computed:
            _log.warning(
                "training.hardware.precision: this machine has no bf16, and is some 20 times slower in it than in fp32"
            )
        return settings.hardware.precision if settings.hardware.precision != "auto" else "bf16" if computed else "fp32"


def check_training(settings: TrainingSettings, deepspeed: Mapping[str, Any], world_size: int, machine: Machine) -> None:
    """Raises SettingsError for the first impossible or pointless combination, naming its settings."""
    file = f"configs/deepspeed/{settings.hardware.deepspeed}.json"
    rules = (
        _keys(deepspeed, file),
        _zero(deepspeed, file),
        _nvme(settings, deepspeed, machine),
        _gradients(settings, deepspeed),
    )
    for problems in (*rules, _run(settings, world_size, machine)):
        for problem in problems:
            raise SettingsError(problem)


def offloads(deepspeed: Mapping[str, Any]) -> dict[str, str]:
    """The targets of offload_optimizer and offload_param: cpu or nvme; what stays on its device is left out."""
    zero = deepspeed.get("zero_optimization", {})
    devices = {name: (zero.get(name) or {}).get("device", "none") for name in ("offload_optimizer", "offload_param")}
    return {name: device for name, device in devices.items() if device != "none"}


def _computes_bf16(gpus: int) -> bool:
    """Whether the GPUs compute in bf16, by their generation, or without GPUs the processor, by its flags in Linux.

    torch could tell, but it then occupies hundreds of megabytes on that GPU.
    """
    if gpus:
        command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        generations = [line.partition(".")[0] for line in asked.stdout.split()]
        return all(int(number) >= _FIRST_WITH_BF16 for number in generations if number.isdecimal())
    lines = _CPU.read_text().splitlines() if _CPU.is_file() else []
    return any(_BF16 & set(line.split()) for line in lines if line.startswith(("flags", "Features")))


def _links_libaio() -> bool:
    """Whether a program with libaio can be built: DeepSpeed builds its NVMe operator on the machine that uses it."""
    command = ["c++", "-x", "c++", "-", "-laio", "-o", os.devnull]
    program = "#include <libaio.h>\nint main() { return io_destroy(0); }"
    return subprocess.run(command, input=program, text=True, capture_output=True, check=False).returncode == 0


def _keys(deepspeed: Mapping[str, Any], file: str) -> Iterator[str]:
    for key in deepspeed:
        if key in _OURS:
            yield f"{file}: {key} is for configs/training.yaml to say, as training.{_OURS[key]}"
        elif key not in KEYS:
            yield f"{file}: unknown key {key!r}; it may have {', '.join(sorted(KEYS))}"
    for key in deepspeed.get("zero_optimization", {}):
        if key not in ZERO_KEYS:
            yield f"{file}: unknown key {key!r} in zero_optimization; it may have {', '.join(sorted(ZERO_KEYS))}"
    optimizer = deepspeed.get("optimizer", {})
    if (kind := optimizer.get("type")) not in _OPTIMIZERS:
        yield f"{file}: optimizer.type is {kind!r}, not {' or '.join(_OPTIMIZERS)}"
    for key in {"lr", "weight_decay"} & set(optimizer.get("params", {})):
        name = "learning_rate" if key == "lr" else key
        yield f"{file}: optimizer.params.{key} is for configs/training.yaml to say, as training.optimizer.{name}"


def _zero(deepspeed: Mapping[str, Any], file: str) -> Iterator[str]:
    stage = deepspeed.get("zero_optimization", {}).get("stage", 0)
    if stage not in range(4):
        yield f"{file}: zero_optimization.stage is {stage!r}; there are 0, 1, 2 and 3"
    for name, device in offloads(deepspeed).items():
        if device not in ("cpu", "nvme"):
            yield f"{file}: zero_optimization.{name}.device is {device!r}, not cpu or nvme"
        if stage == 0 or (name == "offload_param" and stage < 3):
            least = 3 if name == "offload_param" else 1
            yield f"{file}: {name} needs ZeRO stage {least} or above; stage {stage} would ignore it"
        if device == "nvme" and stage < 3:
            yield f"{file}: {name} to nvme needs ZeRO stage 3, not {stage}"


def _nvme(settings: TrainingSettings, deepspeed: Mapping[str, Any], machine: Machine) -> Iterator[str]:
    if "nvme" not in offloads(deepspeed).values():
        return
    name = settings.hardware.deepspeed
    if settings.storage.nvme is None:
        yield f"training.storage.nvme: {name} offloads to NVMe: name a folder on such a drive"
    if settings.storage.checkpoints is not None:
        yield f"training.storage.checkpoints: {name} offloads to NVMe, and what is there is not saved: set it to null"
    if not (machine.libaio and machine.compiler):
        yield (
            f"training.hardware.deepspeed: {name} offloads to NVMe, which needs libaio and a C++ compiler: "
            "install libaio-dev and g++"
        )


def _gradients(settings: TrainingSettings, deepspeed: Mapping[str, Any]) -> Iterator[str]:
    stage, hardware = deepspeed.get("zero_optimization", {}).get("stage", 0), settings.hardware
    if stage == 0 and hardware.gradient_precision == "fp32" and hardware.precision != "fp32":
        yield (
            "training.hardware.gradient_precision: fp32 needs ZeRO stage 1 or above where training.hardware.precision "
            f"is {hardware.precision}; {hardware.deepspeed} is stage 0"
        )


def _run(settings: TrainingSettings, world_size: int, machine: Machine) -> Iterator[str]:
    optimizer, hardware = settings.optimizer, settings.hardware
    if optimizer.batch_rows % world_size:
        yield f"training.optimizer.batch_rows: {optimizer.batch_rows} rows cannot be shared by {world_size} ranks"
    if hardware.hostfile is None and 0 < machine.gpus < world_size:
        has = f"this machine has {machine.gpus} GPUs, and a GPU takes one rank"
        yield f"training.hardware.ranks: {world_size}, but {has}"
    if hardware.precision == "fp16" and hardware.hostfile is None and machine.gpus == 0:
        yield "training.hardware.precision: fp16 needs a GPU; bf16 and fp32 train on CPU"
    if hardware.compile and not machine.compiler:
        yield "training.hardware.compile: torch.compile needs a C++ compiler: install g++, or set compile to false"
    if optimizer.patience is not None and not optimizer.validation_share:
        needed = "set training.optimizer.validation_share above 0"
        yield f"training.optimizer.patience: early stopping needs validation rows: {needed}"
