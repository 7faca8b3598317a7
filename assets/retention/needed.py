"""What is still needed, by the ledger and the lake: the champion, possible future champions, and their inputs."""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assets.duck import connect
from assets.home import Home
from assets.ingestion.served import served_events
from assets.registry.ledger import Entry
from assets.registry.registry import Registry
from assets.registry.rules import awaiting, interrupted, may_replace
from assets.settings import RetentionSettings

__all__ = ["Needed", "find_needed"]


@dataclass(frozen=True)
class Needed:
    """What is kept besides the current version of each table."""

    bundles: frozenset[str]
    """Training ids."""
    snapshots: frozenset[str]
    """Training sets, as <as-of>/<id>."""
    marts: frozenset[str]
    """Versions of the marts behind training sets or predictions."""
    evaluations: frozenset[str]
    """Evaluations, as <as-of>/<id>."""
    reign: str | None
    """The champion's first day as champion."""
    evidence: str | None = None
    """The first segment in which a version that may yet replace the champion has answered while serving: from it on
    there may be live evidence about one."""


@dataclass
class _Trained:
    """A training, ordered by its day and, within a day, by its last verdict; without a verdict it counts as newer."""

    order: tuple[str, float]
    snapshots: set[str] = field(default_factory=set)
    """Training sets, as <as-of>/<id>; the same rows may have been frozen on several days."""


def find_needed(registry: Registry, settings: RetentionSettings) -> Needed:
    """What the ledger's state and the retention policy require.

    Raises RegistryError when the ledger is not as it was written, or MLflow lacks the champion: then it is unknown.
    """
    champion, entries, home = registry.champion(), registry.ledger.entries(), registry.home
    trained = _trainings(registry, entries)
    newest = sorted(trained, key=lambda training: trained[training].order, reverse=True)
    former = _former(entries)
    waiting = {verdict.body["training_id"] for verdict in awaiting(entries)} | _pending(entries)
    whole = {*former[: settings.rollbacks + 1], *waiting}
    whole |= _evaluated_as(entries, whole)
    remade = {*former[:1], *newest[: settings.reproducible]}
    return Needed(
        bundles=frozenset({*whole, *remade, *newest[: settings.trainings]}),
        snapshots=_as_they_are(home, "training_set", _snapshots(trained, whole | remade)),
        marts=frozenset(
            home.lake.name("marts", version)
            for version in (*_made_of(home, _snapshots(trained, remade)), *_scored_from(home))
        ),
        evaluations=_as_they_are(home, "evaluation", _evaluations(registry, entries)),
        reign=_first_day(entries, champion.training_id) if champion else None,
        evidence=_first_answer(home, may_replace(entries, champion.training_id)) if champion else None,
    )


def _trainings(registry: Registry, entries: Sequence[Entry]) -> dict[str, _Trained]:
    """Every training whose bundle is in the lake, or that has a version in MLflow, by id."""
    judged = {entry.body["training_id"]: float(entry.seq) for entry in entries if entry.kind == "verdict"}
    rows = [(v.training_id, v.as_of, v.snapshot_id) for v in registry.versions() if v.training_id]
    for table, version in registry.home.lake.versions("challenger"):
        if provenance := _read(registry.home, table, version, "provenance.json"):
            rows.append((version, provenance["as_of"], provenance["snapshot_id"]))
    trainings: dict[str, _Trained] = {}
    for training, day, snapshot in rows:
        order = (day, judged.get(training, math.inf))
        known = trainings.setdefault(training, _Trained(order))
        known.order = max(known.order, order)
        known.snapshots.add(f"{day}/{snapshot}")
    return trainings


def _snapshots(trained: Mapping[str, _Trained], wanted: Collection[str]) -> frozenset[str]:
    return frozenset(name for training in trained.keys() & set(wanted) for name in trained[training].snapshots)


def _as_they_are(home: Home, family: str, names: Iterable[str]) -> frozenset[str]:
    """Versions of tables per day, named <as-of>/<id>, by the names that they have now: forgetting has renamed some."""
    named = (name.split("/") for name in names)
    return frozenset(f"{day}/{home.lake.name(f'{family}/{day}', version)}" for day, version in named)


def _evaluations(registry: Registry, entries: Sequence[Entry]) -> frozenset[str]:
    """The evaluations behind verdicts, and those of registered versions, whose golden rows are answered again."""
    judged = {f"{entry.as_of}/{entry.body['evaluation']}" for entry in entries if entry.kind == "verdict"}
    registered = {f"{v.as_of}/{v.tags['evaluation']}" for v in registry.versions() if v.tags.get("evaluation")}
    return frozenset(judged | registered)


def _former(entries: Sequence[Entry]) -> list[str]:
    """The champion and all former ones, the most recent first."""
    moves = [str(entry.body["training_id"]) for entry in reversed(entries) if entry.kind == "alias"]
    return list(dict.fromkeys(moves))


def _pending(entries: Sequence[Entry]) -> set[str]:
    """The training whose promotion was interrupted by a kill: the next verdict finishes it."""
    move = interrupted(entries)
    return {str(move[1].body["training_id"])} if move else set()


def _evaluated_as(entries: Sequence[Entry], refits: Collection[str]) -> set[str]:
    """The evaluated trainings that these are refits of."""
    verdicts = (entry.body for entry in entries if entry.kind == "verdict" and entry.body["training_id"] in refits)
    return {str(body["refit_of"]) for body in verdicts if body.get("refit_of")}


def _first_day(entries: Sequence[Entry], training: str) -> str:
    return min(entry.as_of for entry in entries if entry.kind == "alias" and entry.body["training_id"] == training)


def _first_answer(home: Home, verdicts: Sequence[Entry]) -> str | None:
    """The first segment with an answer of a version that these verdicts are on."""
    if not verdicts or not (events := served_events(home.lake)):
        return None
    first = "select min(filename) from read_parquet($events, filename = true) where list_contains($ids, training_id)"
    ids = [entry.body["training_id"] for entry in verdicts]
    with connect() as connection:
        (path,) = connection.execute(first, {"events": events, "ids": ids}).fetchall()[0]
    return Path(path).parts[-3] if path else None


def _made_of(home: Home, snapshots: Collection[str]) -> set[str]:
    """The marts of those training sets that exist."""
    named = (snapshot.split("/") for snapshot in snapshots)
    manifests = (_read(home, f"training_set/{day}", version, "manifest.json") for day, version in named)
    return {str(manifest["marts"]) for manifest in manifests if manifest}


def _scored_from(home: Home) -> set[str]:
    """The marts of the newest predictions, on which that day's drift is measured."""
    scored = [(table, str(home.lake.version(table))) for table in home.lake.tables("predictions")[-1:]]
    manifests = (_read(home, table, version, "manifest.json") for table, version in scored)
    return {str(manifest["marts_version"]) for manifest in manifests if manifest}


def _read(home: Home, table: str, version: str, name: str) -> dict[str, Any] | None:
    content = home.lake.read(table, version, name)
    read: dict[str, Any] | None = json.loads(content) if content else None
    return read
