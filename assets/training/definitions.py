"""The training group: one bundle per as-of date, trained by DeepSpeed in processes of its own."""

from base64 import b64encode
from importlib import import_module
from math import isfinite
from pathlib import Path
from threading import Thread

import dagster as dg
from pydantic import Field

from assets.exceptions import BundleError
from assets.features.snapshot import load_snapshot
from assets.resources import AS_OF, Evergreen, as_of, worker_runner
from assets.training.bundle import verify_bundle
from assets.training.launchers.launch import Training, override, train
from assets.training.pictures import loss_curve

__all__ = ["TrainingOverrides", "challenger"]


class TrainingOverrides(dg.Config):
    """What this run does otherwise than its profile; a field that is left out is as in the profile."""

    base_model: str | None = Field(None, description="A local folder, a hub id, or all-MiniLM-L6-v2.")
    max_tokens: int | None = Field(None, description="Text beyond this many tokens is cut.")
    epochs: float | None = Field(None, description="Passes over the training rows.")
    batch_rows: int | None = Field(None, description="Rows of one optimizer step, over all ranks.")
    learning_rate: float | None = Field(None, description="Of the encoder.")
    head_learning_rate: float | None = Field(None, description="Of what is new on top of the encoder.")
    trainable_layers: int | None = Field(None, description="Encoder layers that are trained, from the top.")
    schedule: str | None = Field(None, description="linear, cosine or constant, after the warm-up.")
    layer_rate_decay: float | None = Field(None, description="A layer's rate, of that of the layer above.")
    patience: int | None = Field(None, description="Evaluations without improvement after which training stops.")
    precision: str | None = Field(None, description="auto, bf16, fp16 or fp32.")
    activation_checkpointing: bool | None = Field(None, description="Less memory, slower.")
    seed: int | None = Field(None, description="Another seed is another model.")
    ranks: int | None = Field(None, description="Worker processes.")
    deepspeed: str | None = Field(
        None, description="A file in configs/deepspeed: zero-0 to zero-3, zero-2-offload, ..."
    )
    hashed_words: int | None = Field(None, description="Buckets of the linear branch; 0 leaves it out.")
    class_weight_power: float | None = Field(None, description="0 weighs all rows alike, 1 all labels.")
    checkpoint_seconds: float | None = Field(None, description="Seconds between two checkpoints of the run.")

    def changes(self) -> dict[str, object]:
        """What was set."""
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
def challenger(
    context: dg.AssetExecutionContext, config: TrainingOverrides, evergreen: Evergreen
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The newest model, as a bundle of hashed files: fine-tuned on the training set by DeepSpeed.

    The same snapshot, settings, code, base model, seed and number of ranks are the same model: it is then not trained
    again. Loss, speed and time left stream into this run; terminating it ends every process that it started.
    """

    def run(command: list[str]) -> None:
        # The evaluation needs torch, seconds of imports: while the worker starts, a core has no work.
        Thread(target=import_module, args=("torch",)).start()
        worker_runner(context)(command)

    lake, date = evergreen.home.lake, as_of(context)
    settings = override(evergreen.settings.training, config.changes())
    training = train(lake, date, load_snapshot(lake, date), settings, run)
    context.log.info(f"{'Reused' if training.reused else 'Trained'} {training.training_id}.")
    return dg.MaterializeResult(metadata=_metadata(training), check_results=_checks(training))


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


def _metadata(training: Training) -> dict[str, dg.MetadataValue]:
    report = training.report
    picture = b64encode(loss_curve(report["loss_curve"])).decode()
    return {
        "training_id": dg.MetadataValue.text(training.training_id),
        "reused": dg.MetadataValue.bool(training.reused),
        "loss": dg.MetadataValue.md(f"![Training loss](data:image/png;base64,{picture})"),
        "last_loss": dg.MetadataValue.float(report["loss_curve"][-1][1]),
        "steps": dg.MetadataValue.int(report["steps"]),
        "seconds": dg.MetadataValue.float(report["seconds"]),
        "tokens_per_second": dg.MetadataValue.float(report["tokens_per_second"]),
        "bundle": dg.MetadataValue.path(str(training.path)),
    }
