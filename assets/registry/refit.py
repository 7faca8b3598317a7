"""A refit: the champion trained again with its test rows, by the same settings, to answer in its place.

The gate has judged the champion on the newest rows, which it had not seen, and those are also what it has most to learn
from. Both versions stay: the gate, and what watches the champion, go on by the one that was evaluated. Each step is
found again by its content, so that what is killed is gone on with by the next run.
"""

from dataclasses import dataclass

from assets.evaluation.evaluate import Champion, evaluate_refit
from assets.evaluation.gate import Verdict
from assets.exceptions import SnapshotError
from assets.features.checks import check_training_set
from assets.features.snapshot import Snapshot, build_refit_set, read_snapshot
from assets.lake import Home
from assets.registry.registry import RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.settings import Settings, TrainingSettings
from assets.training.bundle import read_json
from assets.training.launchers.launch import Run, Training, train

__all__ = ["Refit", "refit_champion"]


@dataclass(frozen=True)
class Refit:
    """A version, the one that it is a refit of, the verdict on it, and how its training went."""

    version: RegisteredVersion
    evaluated: RegisteredVersion
    verdict: Verdict
    training: Training


def refit_champion(home: Home, settings: Settings, run: Run, dagster_run: str | None = None) -> Refit | str:
    """Refit the champion and act on the verdict; or in a sentence why there is nothing to do.

    Raises SnapshotError when the rows do not pass the checks of a training set, NotPublished when what the champion was
    made of is gone, and TrainingError, BundleError and RegistryError as its parts do: the champion then stays.
    """
    registry = Registry(home)
    succession = Succession(registry)
    evaluated = succession.due_refit() if settings.training.cost.refit else None
    if evaluated is None:
        why = "no champion is without a verdict on its refit"
        return why if settings.training.cost.refit else "training.cost.refit is false"
    snapshot = _snapshot(home, evaluated)
    if snapshot.reference_rows < (needed := settings.gate.min_reference_rows):
        return f"{snapshot.reference_rows} reference rows, and at least {needed} are needed to judge a refit"
    bundle = registry.fetch(evaluated.version)
    recipe = TrainingSettings.model_validate(read_json(bundle / "provenance.json")["settings"])
    training = train(home.lake, evaluated.as_of, snapshot, recipe, run, publish=False)
    beside = Champion(evaluated.version, evaluated.training_id, bundle)
    found = evaluate_refit(
        home.lake, evaluated.as_of, snapshot, training.path, beside, settings.evaluation, settings.gate
    )
    version = registry.register(training.path, found, dagster_run)
    verdict = succession.judge_refit(version.version, found, settings.gate)
    return Refit(version, evaluated, verdict, training)


def _snapshot(home: Home, evaluated: RegisteredVersion) -> Snapshot:
    """The rows to learn from, which leak no more than those of any training."""
    snapshot = build_refit_set(home, read_snapshot(home.lake, evaluated.as_of, evaluated.snapshot_id))
    for found in check_training_set(home, snapshot):
        if not found.passed:
            why = f"{found.name}: {found.faults} of {found.examined}: {found.fault}"
            raise SnapshotError(f"the training set of the refit of version {evaluated.version} is not sound: {why}")
    return snapshot
