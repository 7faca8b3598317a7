"""Whether a version can be reproduced: its training set and its training, from its recorded provenance."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from assets.evaluation.metrics import measure
from assets.evaluation.report import evaluation_hash
from assets.exceptions import EvergreenError
from assets.features.snapshot import Snapshot, read_snapshot, rebuild_training_set
from assets.hashing import hash_file
from assets.home import Home
from assets.registry.registry import Registry
from assets.registry.removed import why_gone
from assets.settings import TrainingSettings
from assets.training.bundle import load_bundle, read_json
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import train
from assets.training.tasks.classification.labels import places

__all__ = ["TOLERANCE", "Reproduction", "reproduce"]

TOLERANCE = 0.01
"""The largest difference in accuracy and macro-F1 between equivalent models."""

_MADE_OF = {"code": "code", "base_model": "base model", "software": "packages", "features": "features"}
_MADE_ON = {"device": "hardware", "threads": "threads", "world_size": "ranks"}


@dataclass(frozen=True)
class Reproduction:
    """The outcome, and the reason in a sentence."""

    version: str
    verdict: Literal["bitwise", "equivalent", "changed", "impossible"]
    reason: str

    @property
    def succeeded(self) -> bool:
        return self.verdict in ("bitwise", "equivalent")


def reproduce(home: Home, version: str, run: Run) -> Reproduction:
    """Train a registered version again, in a temporary home, and compare.

    bitwise: the weights are equal. equivalent: they are not, but come from the same inputs, and metrics on the test
    rows are within TOLERANCE. changed: data, code, packages or metrics differ. impossible: an input is missing. Raises
    RegistryError for an unknown version.
    """
    registry = Registry(home)
    registry.version(version)
    with tempfile.TemporaryDirectory(prefix="evergreen-") as scratch:
        try:
            return _train_again(registry, version, Home(Path(scratch)), run)
        except EvergreenError as error:
            return Reproduction(version, "impossible", str(error))


def _train_again(registry: Registry, version: str, scratch: Home, run: Run) -> Reproduction:
    bundle = registry.fetch(version)
    before = read_json(bundle / "provenance.json")
    _require(registry.home, registry.home.lake.path(f"training_set/{before['as_of']}", before["snapshot_id"]))
    recorded = read_snapshot(registry.home.lake, before["as_of"], before["snapshot_id"])
    if lost := recorded.manifest.get("lost"):
        return Reproduction(version, "impossible", f"{_lost(lost)}; {_provable(registry, version, bundle)}")
    marts = registry.home.lake.path("marts", recorded.manifest["marts"])
    _require(registry.home, marts)
    if not marts.exists():
        return Reproduction(version, "impossible", f"marts {marts.name}, behind its training set, are gone")
    rebuilt = rebuild_training_set(scratch, recorded, marts)
    if rebuilt.id != recorded.id:
        return Reproduction(
            version, "changed", f"data: its training set is {recorded.id}, and now comes to {rebuilt.id}"
        )
    settings = TrainingSettings.model_validate(before["settings"])
    again = train(scratch.lake, recorded.as_of, rebuilt, settings, run).path
    if hash_file(again / "model.safetensors") == hash_file(bundle / "model.safetensors"):
        return Reproduction(version, "bitwise", "the same training set and the same weights, to the bit")
    return _compare(version, bundle, again, recorded)


def _lost(lost: Sequence[Mapping[str, Any]]) -> str:
    """A clause about the records that a training set has lost since, each time with the ledger's entry."""
    times = (f"{sum(each['rows'].values())} on {each['as_of']} (entry {each['ledger']} in the ledger)" for each in lost)
    return f"its training set {lost[0]['id']} has lost forgotten records: {', '.join(times)}"


def _provable(registry: Registry, version: str, bundle: Path) -> str:
    """A clause about what the last verdict on a version still proves of it."""
    registered = registry.version(version)
    verdict = next(iter(reversed(registry.verdicts(registered.training_id))), None)
    if verdict is None:
        return "still proven: its files are those that were registered"
    evaluated = evaluation_hash(registry.home.lake, verdict.as_of, verdict.body["evaluation"])
    proven = {
        "its files": verdict.body.get("manifest_sha256") == hash_file(bundle / "MANIFEST.json"),
        "its evaluation": evaluated is not None and verdict.body.get("evaluation_sha256") == evaluated,
    }
    holds, fails = ([what for what, same in proven.items() if same is wanted] for wanted in (True, False))
    not_so = f"; no longer: {', '.join(fails)}" if fails else ""
    return f"still proven by entry {verdict.seq}: {' and '.join(holds) or 'nothing'}{not_so}"


def _require(home: Home, path: Path) -> None:
    """Raise EvergreenError for an input that was removed."""
    if why := why_gone(home, path, "reproducible"):
        raise EvergreenError(f"{path.relative_to(home.lake.root)}, which it was built from, is gone: {why}")


def _compare(version: str, bundle: Path, again: Path, snapshot: Snapshot) -> Reproduction:
    before, after = (read_json(path / "provenance.json") for path in (bundle, again))
    made_of, made_on = (_differences(before, after, names) for names in (_MADE_OF, _MADE_ON))
    if len(before["world_sizes"]) > 1:
        made_on.append(f"ranks: their number changed during training ({before['world_sizes']})")
    apart = _metrics_apart(snapshot, bundle, again)
    because = "; ".join([*made_of, *made_on]) or "nothing that is recorded differs"
    reason = f"weights differ; metrics by {apart:.4f} at most, {TOLERANCE:g} is allowed; {because}"
    return Reproduction(version, "changed" if made_of or apart > TOLERANCE else "equivalent", reason)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    return [f"{title}: {before[n]}, now {after[n]}" for n, title in names.items() if before[n] != after[n]]


def _metrics_apart(snapshot: Snapshot, *bundles: Path) -> float:
    """The largest difference in accuracy or macro-F1 on the test rows; for a refit, on the reference rows."""
    test = snapshot.test() if snapshot.holds_out else snapshot.reference()
    loaded = [load_bundle(path) for path in bundles]
    measured = [measure(places(test["label"], one.labels), one.predict_proba(test), bins=15) for one in loaded]
    pairs = np.array([[metrics.accuracy, metrics.macro_f1] for metrics in measured])
    return float(np.abs(pairs[0] - pairs[1]).max())
