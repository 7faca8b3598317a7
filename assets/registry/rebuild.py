"""`evergreen rebuild-registry`: rebuilds or completes MLflow's registry from the lake and the ledger."""

from dataclasses import dataclass

from assets.evaluation.report import read_evaluation, table
from assets.exceptions import RegistryError
from assets.hashing import hash_file
from assets.home import Home
from assets.registry.ledger import Entry
from assets.registry.registry import LEDGER_BROKEN, RegisteredVersion, Registry
from assets.registry.removed import why_gone
from assets.registry.rules import unlawful
from assets.registry.succession import Succession

__all__ = ["Rebuilt", "rebuild_registry"]


@dataclass(frozen=True)
class Rebuilt:
    """The versions of every training that the ledger has judged, and why some could not be rebuilt."""

    versions: tuple[RegisteredVersion, ...]
    left_out: tuple[str, ...]


def rebuild_registry(home: Home) -> Rebuilt:
    """Register every judged training that MLflow lacks, and make MLflow agree with the ledger.

    Versions keep their numbers in the ledger unless MLflow has already assigned them to others. Raises RegistryError
    when the ledger itself is not as it was written or has no verdict, and when the champion is not in the lake;
    BundleError for files that are not intact.
    """
    registry = Registry(home)
    entries = registry.ledger.entries()
    if problem := registry.ledger.problem() or unlawful(entries):
        raise RegistryError(f"{LEDGER_BROKEN} ({registry.ledger}): {problem}; restore it from a backup")
    verdicts = {entry.body["training_id"]: entry for entry in entries if entry.kind == "verdict"}
    if not verdicts:
        raise RegistryError(f"the ledger of {home.root} holds no verdict: there is nothing to rebuild")
    left_out = tuple(why for verdict in verdicts.values() if (why := _register(registry, verdict)))
    Succession(registry).sync_mlflow()
    versions = tuple(version for version in registry.versions() if version.training_id in verdicts)
    return Rebuilt(versions, left_out)


def _register(registry: Registry, verdict: Entry) -> str | None:
    """Register the training of a verdict; returns why not, when the lake lacks its files."""
    lake, training = registry.home.lake, str(verdict.body["training_id"])
    bundle = lake.path(f"challenger/{verdict.as_of}", training)
    evaluation = lake.path(table(verdict.as_of), verdict.body["evaluation"])
    for what, path in (("bundle", bundle / "MANIFEST.json"), ("evaluation", evaluation / "evaluation.json")):
        if not path.is_file():
            missing = f"training {training} of {verdict.as_of}: its {what} is not in the lake"
            why = why_gone(registry.home, path, "trainings")
            return f"{missing}: {why}" if why else missing
    if verdict.body.get("manifest_sha256") not in (None, hash_file(bundle / "MANIFEST.json")):
        return f"training {training} of {verdict.as_of}: its bundle in the lake is not the one that was judged"
    registry.reserve(int(verdict.body["version"]))
    registry.register(bundle, read_evaluation(evaluation))
    return None
