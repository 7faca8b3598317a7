"""Takes a source object, and all that it brought, out of what follows; what was made of it before is named."""

import json
from dataclasses import dataclass

from assets.exceptions import EvergreenError
from assets.ingestion.landing import ObjectRead, find_object
from assets.ingestion.landing import withdraw as take_out
from assets.lake import Home, Lake
from assets.registry.ledger import Ledger
from assets.registry.registry import Registry
from assets.warehouse.marts import counted_objects

__all__ = ["Withdrawal", "withdraw"]


@dataclass(frozen=True)
class Withdrawal:
    """An object that counts no more, and what is still made of it."""

    object: ObjectRead
    published: bool
    """Whether the current marts still hold what it brought: until the next run."""
    snapshots: tuple[str, ...]
    """Training sets, as training_set/<as-of>/<id>; they are immutable and stay."""
    versions: tuple[str, ...]
    """Model versions that were trained on those."""
    unknown: tuple[str, ...] = ()
    """Model versions of which that is unknown: what they were made of was removed."""


def withdraw(home: Home, name: str, reason: str) -> Withdrawal:
    """Withdraw the object of a key or an id: first in the ledger, then in the raw table. Again, it changes nothing.

    What was killed in between is finished by the same call. Raises EvergreenError without a reason, and when not
    exactly one object has the name.
    """
    if not reason.strip():
        raise EvergreenError("a withdrawal needs a reason: --reason TEXT")
    found, ledger = find_object(home.lake, name), Ledger.of(home)
    about = {"object": found.object_id, "key": found.key, "landed": found.landed, "reason": reason}
    said = ledger.append("withdrawal", found.object_id, ledger.newest_day() or found.landed_on, about)
    take_out(home.lake, found.object_id, said.body["reason"])
    marts = _marts_with(home.lake, found)
    snapshots = dict(_snapshots(home.lake))
    made = {name: manifest for name, manifest in snapshots.items() if manifest["marts"] in marts}
    told = {m["snapshot_id"] for m in snapshots.values() if home.lake.path("marts", m["marts"]).exists()}
    ids = {manifest["snapshot_id"] for manifest in made.values()}
    versions = Registry(home).versions()
    return Withdrawal(
        find_object(home.lake, found.object_id),
        home.lake.version("marts") in marts,
        snapshots=tuple(made),
        versions=tuple(version.version for version in versions if version.snapshot_id in ids),
        unknown=tuple(v.version for v in versions if v.snapshot_id not in told and v.as_of >= found.landed_on),
    )


def _marts_with(lake: Lake, found: ObjectRead) -> set[str]:
    """The versions of the marts in which an object counts."""
    folders = lake.root.glob("marts/[!.]*/")
    return {folder.name for folder in folders if found.object_id in counted_objects(folder)}


def _snapshots(lake: Lake) -> list[tuple[str, dict[str, str]]]:
    """Every training set that is kept, by its name, with its manifest."""
    paths = sorted(lake.root.glob("training_set/*/*/manifest.json"))
    return [(path.parent.relative_to(lake.root).as_posix(), json.loads(path.read_text())) for path in paths]
