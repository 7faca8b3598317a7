"""The parent's side of training: the model's inputs, the processes to start, the result."""

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from assets.exceptions import BundleError, SettingsError, SourceError, TrainingError
from assets.lake import Lake, hash_file, hash_json
from assets.settings import CONFIGS, TrainingSettings, load_environment
from assets.training.base_model import BaseModel, resolve_base_model
from assets.training.bundle import read_json, verify_bundle
from assets.training.launchers.compatibility import Machine, check_training, offloads
from assets.training.launchers.estimate import check_memory, free_memory
from assets.training.plan import TrainingPlan, count_validation_rows
from assets.training.program.checkpoints import Checkpoints
from assets.training.program.mirror import Mirror
from assets.training.tasks import TASKS

if TYPE_CHECKING:
    from assets.features.snapshot import Snapshot

__all__ = ["Run", "Training", "override", "plan_training", "train", "worker_command"]

Run = Callable[[list[str]], None]
"""Runs a command, shows its reports, and returns when it has succeeded; raises TrainingError when it fails."""

_TASK = "classification"
"""The task for a domain's rows, which have labels."""

_ASIDE: dict[str, Any] = {
    "model": {"base_model"},
    "hardware": {"ranks", "hostfile", "deepspeed"},
    "storage": True,
    "cost": True,
}
"""Settings that are paths, whose content is in the id instead, and settings that do not affect weights."""

_OUTSIDE = {
    *("definitions.py", "model_files.py", "model_size.py", "tasks/classification/size.py"),
    *("program/companions.py", "program/mirror.py", "program/usage.py"),
}
"""Files of this stage, other than the launchers, that do not affect weights."""


@dataclass(frozen=True)
class Training:
    """A bundle in the lake: its id and folder, whether it already existed, and its training.json."""

    training_id: str
    path: Path
    reused: bool
    report: dict[str, Any]


def train(
    lake: Lake, as_of: str, snapshot: "Snapshot", settings: TrainingSettings, run: Run, publish: bool = True
) -> Training:
    """Train the challenger of a snapshot and publish it as `challenger/<as_of>`, or reuse it if it exists.

    Without `publish` it is kept there, next to the published one. One training at a time runs in a home. Raises
    BaseModelError and SettingsError before anything starts, TrainingError when a worker stops.
    """
    table = f"challenger/{as_of}"
    with lake.staging(table) as staged:
        plan = plan_training(snapshot, settings, staged, lake.root.parent)
        if not (reused := _is_whole(lake.path(table, plan.training_id))):
            with lake.staging("training") as shared:  # in the home, which all machines share
                _check_memory(plan)
                _fetch_checkpoint(plan)
                plan_file = shared / "plan.json"
                plan_file.write_text(plan.model_dump_json())
                _run_worker(plan, plan_file, run)
        path = (lake.publish if publish else lake.keep)(table, plan.training_id, staged)
        _remove_checkpoints(plan)
    return Training(plan.training_id, path, reused, read_json(path / "training.json"))


def plan_training(snapshot: "Snapshot", settings: TrainingSettings, output: Path, home: Path) -> TrainingPlan:
    """All inputs of the run, and its paths in the home, the folder with all state.

    Raises BaseModelError, and SettingsError for settings that do not fit.
    """
    base = resolve_base_model(settings.model.base_model)
    deepspeed, gpus = _deepspeed_config(settings.hardware.deepspeed), _gpus()
    world_size, machine = _world_size(settings, gpus), Machine.here(gpus, deepspeed)
    settings = _copying(override(settings, {"precision": machine.precision(settings)}))
    check_training(settings, deepspeed, world_size, machine)
    _check_rows(snapshot.train_rows, settings, world_size)
    run = _run_id(snapshot, settings, deepspeed, base)
    return TrainingPlan(
        training_id=hash_json([run, world_size])[:16],
        task=_TASK,
        as_of=snapshot.as_of,
        snapshot_id=snapshot.id,
        snapshot=snapshot.path.resolve(),
        features=snapshot.features,
        domain=snapshot.domain,
        settings=settings,
        deepspeed=_with_nvme(deepspeed, settings.storage.nvme),
        base_model=base.path,
        base_model_name=base.name,
        base_model_sha256=base.weights_sha256,
        code=_code(),
        world_size=world_size,
        cache=(home / "cache").resolve(),
        checkpoints=(home / "checkpoints" / run).resolve(),
        output=output.resolve(),
    )


def _copying(settings: TrainingSettings) -> TrainingSettings:
    """Settings that copy checkpoints to where machines share a home, unless they say where, or nothing can be saved."""
    objects, storage = load_environment().objects, settings.storage
    if objects is None or storage.checkpoints is not None or storage.nvme is not None:
        return settings
    copied = storage.model_copy(update={"checkpoints": f"{objects}/checkpoints"})
    return settings.model_copy(update={"storage": copied})


def _check_rows(rows: int, settings: TrainingSettings, world_size: int) -> None:
    held_back, share = count_validation_rows(rows, settings), settings.optimizer.validation_share
    if share and held_back < world_size:
        raise SettingsError(
            f"training.optimizer.validation_share: {share} of {rows} rows are {held_back}, fewer than the ranks "
            f"({world_size}); raise it, or set it to 0"
        )
    if (batch_rows := settings.optimizer.batch_rows) > rows - held_back:
        raise SettingsError(f"training.optimizer.batch_rows: {batch_rows}, of {rows - held_back} training rows")


def _run_id(snapshot: "Snapshot", settings: TrainingSettings, deepspeed: Mapping[str, Any], base: BaseModel) -> str:
    """16 hex digits over snapshot, domain, settings, DeepSpeed's file, code and encoder: everything but the ranks.

    Checkpoints are named by it, because other ranks can resume from them; the bundle's name includes the ranks, too.
    """
    made_of = {
        "task": _TASK,
        "snapshot": snapshot.id,
        "labels": snapshot.labels,
        "text": snapshot.domain.text.model_dump(),
        "settings": settings.model_dump(exclude=_ASIDE),
        "deepspeed": deepspeed,
        "code": _code(),
        "base_model": base.digest,
    }
    return hash_json(made_of)[:16]


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


def override(settings: TrainingSettings, changes: Mapping[str, Any]) -> TrainingSettings:
    """The settings with some fields changed; the fields are named without their groups.

    Raises SettingsError naming the invalid field.
    """
    groups = {field: group for group, fields in settings.model_dump().items() for field in fields}
    content = settings.model_dump()
    for name, value in changes.items():
        content.get(groups.get(name, ""), content)[name] = value
    try:
        return TrainingSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"training.{field}: {first['msg'].lower()} (found {first['input']!r})") from None


def _run_worker(plan: TrainingPlan, plan_file: Path, run: Run) -> None:
    try:
        run(worker_command(plan_file, plan.world_size, plan.settings.hardware.hostfile))
    except TrainingError:
        if plan.failure.exists():
            raise TrainingError(plan.failure.read_text()) from None
        raise
    verify_bundle(plan.output)


def _fetch_checkpoint(plan: TrainingPlan) -> None:
    """Download a newer checkpoint from S3, if there is one. Raises SettingsError when S3 does not answer."""
    if mirror := Mirror.of(plan):
        try:
            mirror.fetch(Checkpoints(plan.checkpoints, plan.settings.storage.checkpoints_kept))
        except SourceError as error:
            raise SettingsError(f"training.storage.checkpoints: {error}") from None


def _remove_checkpoints(plan: TrainingPlan) -> None:
    """Remove the checkpoints, as far as possible: the bundle is complete."""
    shutil.rmtree(plan.checkpoints, ignore_errors=True)
    if mirror := Mirror.of(plan):
        with suppress(SourceError):
            mirror.clear()


def _is_whole(path: Path) -> bool:
    """Whether this version exists, byte for byte; a damaged one is removed, to be trained again."""
    if not path.exists():
        return False
    try:
        verify_bundle(path)
    except BundleError:
        shutil.rmtree(path)
        return False
    return True


def _deepspeed_config(name: str) -> dict[str, Any]:
    path = CONFIGS / "deepspeed" / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.json")))
        raise SettingsError(f"training.hardware.deepspeed: no {name!r} in configs/deepspeed; it has {known}")
    try:
        return read_json(path)
    except ValueError as error:
        raise SettingsError(f"configs/deepspeed/{path.name}: {error}") from None


def _with_nvme(deepspeed: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """DeepSpeed's configuration, with the folder for NVMe offload."""
    zero = dict(deepspeed.get("zero_optimization", {}))
    for name, device in offloads(deepspeed).items():
        if device == "nvme":
            zero[name] = zero[name] | {"nvme_path": folder}
    return deepspeed | {"zero_optimization": zero}


def _check_memory(plan: TrainingPlan) -> None:
    """Raises SettingsError when this machine has less memory than the run needs; other machines are not checked."""
    settings = plan.settings
    if settings.hardware.hostfile is None:
        check_memory(TASKS[plan.task].size(plan), settings, plan.deepspeed, plan.world_size, free_memory(_gpus()))


def _world_size(settings: TrainingSettings, gpus: int) -> int:
    if settings.hardware.hostfile is not None:
        return _slots(Path(settings.hardware.hostfile))
    return settings.hardware.ranks or gpus or 1


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


def _code() -> str:
    """Hash of the code that the workers run, and of the code that turns rows into numbers."""
    stage = Path(__file__).parents[1]
    files = {file.relative_to(stage).as_posix(): file for file in sorted(stage.rglob("*.py"))}
    outside = {name for name in files if name in _OUTSIDE or name.startswith("launchers/")}
    return hash_json({name: hash_file(file) for name, file in files.items() if name not in outside})
