"""Ranks as processes of this machine or, with a hostfile, of several."""

import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.exceptions import SettingsError, SourceError, TrainingError
from assets.settings import TrainingSettings
from assets.training.launchers.compatibility import Machine
from assets.training.launchers.estimate import check_memory, free_memory
from assets.training.launchers.interface import Run
from assets.training.plan import TrainingPlan
from assets.training.program.checkpoints import Checkpoints
from assets.training.program.mirror import Mirror
from assets.training.tasks import TASKS

__all__ = ["Processes", "worker_command"]


@dataclass(frozen=True)
class Processes:
    """The launchers `local` and, with a hostfile, `deepspeed`."""

    hostfile: Path | None

    def world_size(self, settings: TrainingSettings) -> int:
        return settings.hardware.ranks or _gpus() or 1 if self.hostfile is None else _slots(self.hostfile)

    def machine(self, settings: TrainingSettings, deepspeed: Mapping[str, Any]) -> Machine:  # noqa: ARG002 - the interface's
        return Machine.here(_gpus(), deepspeed)

    def start(self, plan: TrainingPlan, folder: Path, run: Run) -> None:
        self._check_memory(plan)
        _fetch_checkpoint(plan)
        plan_file = folder / "plan.json"
        plan_file.write_text(plan.model_dump_json())
        try:
            run(worker_command(plan_file, plan.world_size, plan.settings.hardware.hostfile))
        except TrainingError:
            if plan.failure.exists():
                raise TrainingError(plan.failure.read_text()) from None
            raise

    def clear(self, plan: TrainingPlan) -> None:
        shutil.rmtree(plan.checkpoints, ignore_errors=True)
        if mirror := Mirror.of(plan):
            with suppress(SourceError):
                mirror.clear()

    def _check_memory(self, plan: TrainingPlan) -> None:
        """Raises SettingsError when this machine has less memory than the run needs; others are not checked."""
        if self.hostfile is None:
            size = TASKS[plan.task].size(plan)
            check_memory(size, plan.settings, plan.deepspeed, plan.world_size, free_memory(_gpus()))


def worker_command(plan_file: Path, world_size: int, hostfile: str | None) -> list[str]:
    """The command that starts every rank: the worker itself for one rank, a launcher for several.

    With a hostfile, the plan and the home must be on storage that all of its machines share.
    """
    python, program = [sys.executable, "-m"], ["assets.training.program.worker", str(plan_file)]
    if hostfile is not None:
        hosts = ["--hostfile", hostfile, "--no_local_rank", "--module"]
        return [*python, "assets.training.launchers.launcher", "deepspeed", *hosts, *program]
    if world_size == 1:
        return [*python, *program]
    ranks = ["--standalone", f"--nproc-per-node={world_size}", "--module"]
    return [*python, "assets.training.launchers.launcher", "torch", *ranks, *program]


def _fetch_checkpoint(plan: TrainingPlan) -> None:
    """Download a newer checkpoint from S3, if there is one. Raises SettingsError when S3 does not answer."""
    if mirror := Mirror.of(plan):
        try:
            mirror.fetch(Checkpoints(plan.checkpoints, plan.settings.storage.checkpoints_kept))
        except SourceError as error:
            raise SettingsError(f"training.storage.checkpoints: {error}") from None


def _slots(hostfile: Path) -> int:
    if not hostfile.is_file():
        raise SettingsError(f"training.hardware.hostfile: no file {hostfile}")
    lines = [line.split("#")[0].split() for line in hostfile.read_text().splitlines()]
    slots = [word.removeprefix("slots=") for line in lines for word in line[1:] if word.startswith("slots=")]
    if not slots or not all(number.isdigit() for number in slots):
        raise SettingsError(f"training.hardware.hostfile: {hostfile} needs lines such as `worker-1 slots=4`")
    return sum(map(int, slots))


def _gpus() -> int:
    """The number of visible GPUs; 0 without a driver, which avoids importing torch for seconds."""
    if shutil.which("nvidia-smi") is None:
        return 0
    import torch

    return torch.cuda.device_count()
