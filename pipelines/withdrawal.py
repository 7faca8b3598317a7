"""Withdraws a source object and all its records, and names what was already built from it."""

import json
from dataclasses import dataclass

from assets.exceptions import EvergreenError
from assets.home import Home
from assets.ingestion.landing import ObjectRead, find_object
from assets.ingestion.landing import withdraw as take_out
from assets.lake import Lake
from assets.registry.registry import Registry
from assets.registry.shared_ledger import ledger_of
from assets.warehouse.marts import counted_objects

__all__ = ["Withdrawal", "withdraw"]


@dataclass(frozen=True)
class Withdrawal:
    """A withdrawn object, and what is still built from it."""

    object: ObjectRead
    published: bool
    """Whether the current marts still contain its records, as they do until the next run."""
    snapshots: tuple[str, ...]
    """Training sets, as training_set/<as-of>/<id>; they are immutable and stay."""
    versions: tuple[str, ...]
    """Model versions that were trained on those."""
    unknown: tuple[str, ...] = ()
    """Model versions for which that is unknown: their training sets were removed."""


def withdraw(home: Home, name: str, reason: str) -> Withdrawal:
    """Withdraw the object with a key or an id: first in the ledger, then in the raw table. Again, it changes nothing.

    After a kill in between, the same call finishes it. Raises EvergreenError without a reason, and when not exactly one
    object has the name.
    """
    if not reason.strip():
        raise EvergreenError("a withdrawal needs a reason: --reason TEXT")
    read, ledger = find_object(home.lake, name), ledger_of(home)
    about = {"object": read.object_id, "key": read.key, "landed": read.landed, "reason": reason}
    entry = ledger.append("withdrawal", read.object_id, ledger.newest_day() or read.landed_on, about)
    take_out(home.lake, read.object_id, entry.body["reason"])
    marts = _marts_with(home.lake, read)
    snapshots = dict(_snapshots(home.lake))
    affected = {name: manifest for name, manifest in snapshots.items() if manifest["marts"] in marts}
    known = {m["snapshot_id"] for m in snapshots.values() if home.lake.path("marts", m["marts"]).exists()}
    ids = {manifest["snapshot_id"] for manifest in affected.values()}
    versions = Registry(home).versions()
    return Withdrawal(
        find_object(home.lake, read.object_id),
        home.lake.version("marts") in marts,
        snapshots=tuple(affected),
        versions=tuple(version.version for version in versions if version.snapshot_id in ids),
        unknown=tuple(v.version for v in versions if v.snapshot_id not in known and v.as_of >= read.landed_on),
    )


def _marts_with(lake: Lake, read: ObjectRead) -> set[str]:
    """The versions of the marts in which an object counts."""
    versions = [version for _, version in lake.versions("marts")]
    return {version for version in versions if read.object_id in counted_objects(lake.path("marts", version))}


def _snapshots(lake: Lake) -> list[tuple[str, dict[str, str]]]:
    """The manifest of every kept training set, by name."""
    kept = lake.versions("training_set")
    manifests = {f"{table}/{version}": lake.read(table, version, "manifest.json") for table, version in kept}
    return [(name, json.loads(manifest)) for name, manifest in manifests.items() if manifest]
