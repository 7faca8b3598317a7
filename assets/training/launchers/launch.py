"""The parent's side of training: the model's inputs, the processes to start, the result."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from assets.exceptions import BundleError, SettingsError
from assets.hashing import hash_file, hash_json
from assets.lake import Lake
from assets.settings import CONFIGS, TrainingSettings, load_environment
from assets.training.base_model import BaseModel, resolve_base_model
from assets.training.bundle import read_json, verify_bundle
from assets.training.launchers.cluster import Cluster
from assets.training.launchers.compatibility import check_training, offloads
from assets.training.launchers.interface import Launcher, Run
from assets.training.launchers.processes import Processes
from assets.training.plan import TrainingPlan, count_validation_rows

if TYPE_CHECKING:
    from assets.features.snapshot import Snapshot

__all__ = ["Training", "hash_code", "launcher_of", "override", "plan_training", "train"]

_TASK = "classification"
"""The task for a domain's rows, which have labels."""

_ASIDE: dict[str, Any] = {
    "model": {"base_model"},
    "hardware": {"ranks", "hostfile", "deepspeed"},
    "storage": True,
    "cost": True,
    "cluster": True,
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
    table, launcher = f"challenger/{as_of}", launcher_of(settings)
    with lake.staging(table) as staged:
        plan = plan_training(snapshot, settings, staged, lake.root.parent)
        if not (reused := _is_whole(lake.path(table, plan.training_id))):
            with lake.staging("training") as shared:  # in the home, which all machines share
                launcher.start(plan, shared, run)
            verify_bundle(staged)
        path = (lake.publish if publish else lake.keep)(table, plan.training_id, staged)
        launcher.clear(plan)
    return Training(plan.training_id, path, reused, read_json(path / "training.json"))


def plan_training(snapshot: "Snapshot", settings: TrainingSettings, output: Path, home: Path) -> TrainingPlan:
    """All inputs of the run, and its paths in the home, the folder with all state.

    Raises BaseModelError, and SettingsError for settings that do not fit.
    """
    base = resolve_base_model(settings.model.base_model)
    deepspeed, launcher = _deepspeed_config(settings.hardware.deepspeed), launcher_of(settings)
    world_size, machine = launcher.world_size(settings), launcher.machine(settings, deepspeed)
    settings = override(_copying(settings, deepspeed), {"precision": machine.precision(settings)})
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
        code=hash_code(),
        world_size=world_size,
        cache=(home / "cache").resolve(),
        checkpoints=(home / "checkpoints" / run).resolve(),
        output=output.resolve(),
    )


def _copying(settings: TrainingSettings, deepspeed: Mapping[str, Any]) -> TrainingSettings:
    """Settings that copy checkpoints to where machines share a home, unless they say where, or nothing can be saved."""
    objects, storage = load_environment().objects, settings.storage
    if objects is None or storage.checkpoints is not None or "nvme" in offloads(deepspeed).values():
        return settings
    copied = storage.model_copy(update={"checkpoints": f"{objects}/checkpoints"})
    return settings.model_copy(update={"storage": copied})


def launcher_of(settings: TrainingSettings) -> Launcher:
    """The environment's cluster, or the machines of the settings."""
    if (environment := load_environment()).ray is not None:
        assert environment.objects is not None
        return Cluster(environment.ray, environment.objects)
    return Processes(Path(settings.hardware.hostfile) if settings.hardware.hostfile else None)


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
        "code": hash_code(),
        "base_model": base.digest,
    }
    return hash_json(made_of)[:16]


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


def hash_code() -> str:
    """Hash of the code that the workers run, and of the code that turns rows into numbers."""
    stage = Path(__file__).parents[1]
    files = {file.relative_to(stage).as_posix(): file for file in sorted(stage.rglob("*.py"))}
    outside = {name for name in files if name in _OUTSIDE or name.startswith("launchers/")}
    return hash_json({name: hash_file(file) for name, file in files.items() if name not in outside})
