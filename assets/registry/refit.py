"""A refit: the champion trained again with the same settings and its test rows included, to serve in its place.

The gate has judged the champion on the newest rows, which it had not seen; those are also the rows it could learn most
from. Both versions stay: the gate and monitoring continue with the one that was evaluated. Each step is found again by
its content, so the next run continues after a kill.
"""

from dataclasses import dataclass

from assets.evaluation.evaluate import Champion, evaluate_refit
from assets.evaluation.gate import Verdict
from assets.exceptions import SnapshotError
from assets.features.checks import check_training_set
from assets.features.snapshot import Snapshot, build_refit_set, read_snapshot
from assets.home import Home
from assets.registry.registry import RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.settings import Settings, TrainingSettings
from assets.training.bundle import read_json
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import Training, train

__all__ = ["Refit", "refit_champion"]


@dataclass(frozen=True)
class Refit:
    """A version, the version it is a refit of, the verdict on it, and its training."""

    version: RegisteredVersion
    evaluated: RegisteredVersion
    verdict: Verdict
    training: Training


def refit_champion(home: Home, settings: Settings, run: Run, dagster_run: str | None = None) -> Refit | str:
    """Refit the champion and act on the verdict; or a sentence why there is nothing to do.

    Raises SnapshotError when the rows fail the checks of a training set, NotPublished when the champion's inputs are
    gone, and TrainingError, BundleError and RegistryError as its parts do: the champion then stays.
    """
    registry = Registry(home)
    succession = Succession(registry)
    evaluated = succession.due_refit() if settings.training.cost.refit else None
    if evaluated is None:
        why = "no champion is due for a refit"
        return why if settings.training.cost.refit else "training.cost.refit is false"
    snapshot = _snapshot(home, evaluated)
    if snapshot.reference_rows < (needed := settings.gate.min_reference_rows):
        return f"there are {snapshot.reference_rows} reference rows, and a refit needs at least {needed}"
    bundle = registry.fetch(evaluated.version)
    recipe = TrainingSettings.model_validate(read_json(bundle / "provenance.json")["settings"])
    training = train(home.lake, evaluated.as_of, snapshot, recipe, run, publish=False)
    champion = Champion(evaluated.version, evaluated.training_id, bundle)
    evaluation = evaluate_refit(
        home.lake, evaluated.as_of, snapshot, training.path, champion, settings.evaluation, settings.gate
    )
    version = registry.register(training.path, evaluation, dagster_run)
    verdict = succession.judge_refit(version.version, evaluation, settings.gate)
    return Refit(version, evaluated, verdict, training)


def _snapshot(home: Home, evaluated: RegisteredVersion) -> Snapshot:
    """The rows to learn from, which pass the same checks as those of any training."""
    snapshot = build_refit_set(home, read_snapshot(home.lake, evaluated.as_of, evaluated.snapshot_id))
    for finding in check_training_set(home, snapshot):
        if not finding.passed:
            why = f"{finding.name}: {finding.faults} of {finding.examined}: {finding.fault}"
            raise SnapshotError(f"the training set of the refit of version {evaluated.version} is not sound: {why}")
    return snapshot
