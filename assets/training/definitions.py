"""The training group: one bundle per as-of date, trained with DeepSpeed in separate processes."""

from importlib import import_module
from math import isfinite
from pathlib import Path
from threading import Thread
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import dagster as dg
from pydantic import Field, create_model

from assets.cluster.jobs import Job
from assets.exceptions import BundleError
from assets.features.snapshot import load_snapshot
from assets.home import Home
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, picture, worker_runner
from assets.settings import TrainingSettings
from assets.training.bundle import verify_bundle
from assets.training.launchers.launch import Training, override, train
from assets.training.pictures import loss_curve

__all__ = ["TrainingOverrides", "challenger"]


def _fields() -> type[dg.Config]:
    """Every field of every group of the settings, all optional; the settings themselves check the values."""
    groups = (get_type_hints(TrainingSettings)[name] for name in TrainingSettings.model_fields)
    fields = {name: field for group in groups for name, field in group.model_fields.items()}
    optional: dict[str, Any] = {
        name: (_plain(field.annotation) | None, Field(None, description=field.description))
        for name, field in fields.items()
    }
    return create_model("Fields", __base__=dg.Config, **optional)


def _plain(annotation: Any) -> Any:
    """A field's type as Dagster can show it: a choice of words is text."""
    inner = next((each for each in get_args(annotation) if each is not NoneType), annotation)
    return str if isinstance(inner, str) or get_origin(inner) is Literal else inner


class TrainingOverrides(_fields()):  # type: ignore[misc]
    """Overrides of the profile for this run; a field that is left out is as in the profile."""

    def changes(self) -> dict[str, object]:
        """The fields that were set."""
        return {name: value for name, value in dict(self).items() if value is not None}


@dg.asset(
    partitions_def=AS_OF,
    deps=["training_set"],
    group_name="training",
    kinds={"deepspeed", "pytorch"},
    owners=["team:evergreen"],
    pool="training",
    check_specs=[
        dg.AssetCheckSpec(
            "finite_loss", asset="challenger", blocking=True, description="The loss was a number at every step."
        ),
        dg.AssetCheckSpec(
            "bundle_complete",
            asset="challenger",
            blocking=True,
            description="Every file of the bundle is there and has the hash of its manifest.",
        ),
    ],
)
def challenger(context: dg.AssetExecutionContext, config: TrainingOverrides, evergreen: Evergreen) -> Concluded:
    """The newest model, as a bundle of hashed files: fine-tuned on the training set with DeepSpeed.

    The same snapshot, settings, code, base model, seed and number of ranks give the same model, which is not trained
    again. Loss, speed and time left stream into this run; terminating it ends every process that it started.
    """

    def run(work: list[str] | Job) -> None:
        # The evaluation needs torch, which takes seconds to import: a core is idle while the worker starts.
        Thread(target=import_module, args=("torch",)).start()
        worker_runner(context, evergreen.home)(work)

    lake, date = evergreen.home.lake, as_of(context)
    settings = override(evergreen.settings.training, config.changes())
    training = train(lake, date, load_snapshot(lake, date), settings, run)
    context.log.info(f"{'Reused' if training.reused else 'Trained'} {training.training_id}.")
    yield from concluded(context, _metadata(training, evergreen.home, date), _checks(training))


def _checks(training: Training) -> list[dg.AssetCheckResult]:
    losses = [loss for _, loss in training.report["loss_curve"]]
    numbers = {"first": losses[0], "last": losses[-1]}
    return [
        dg.AssetCheckResult(check_name="finite_loss", passed=all(map(isfinite, losses)), metadata=numbers),
        _bundle_complete(training.path),
    ]


def _bundle_complete(path: Path) -> dg.AssetCheckResult:
    try:
        verify_bundle(path)
    except BundleError as error:
        return dg.AssetCheckResult(check_name="bundle_complete", passed=False, metadata={"reason": str(error)})
    files = ", ".join(sorted(file.name for file in path.iterdir()))
    return dg.AssetCheckResult(check_name="bundle_complete", passed=True, metadata={"files": files})


def _metadata(training: Training, home: Home, date: str) -> dict[str, dg.MetadataValue]:
    report = training.report
    return {
        "training_id": dg.MetadataValue.text(training.training_id),
        "reused": dg.MetadataValue.bool(training.reused),
        "loss": picture(home, "challenger", date, "training loss", loss_curve(report["loss_curve"])),
        "last_loss": dg.MetadataValue.float(report["loss_curve"][-1][1]),
        "steps": dg.MetadataValue.int(report["steps"]),
        "seconds": dg.MetadataValue.float(report["seconds"]),
        "tokens_per_second": dg.MetadataValue.float(report["tokens_per_second"]),
        "bundle": dg.MetadataValue.path(str(training.path)),
    }
