"""Feast's feature store of a home folder: the domain's features over the lake.

Feast keeps functions in its registry and runs them from there. So the registry is built in each process, from what the
engine and the domain's `feature_repo/` define, and is never read from a file.

<home>/features/definitions.json   what was applied
<home>/features/online.db          the online store, replaced in one step by `assets.features.serving.materialize`

An environment with a server for the online features has them there (assets/features/generations.py).
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.exceptions import NotPublished
from assets.features.generations import Generation
from assets.features.repository import SERVICE, repository
from assets.hashing import hash_file, hash_json
from assets.home import Home
from assets.lean import lean
from assets.settings import domain_folder, load_domain
from assets.writing import write_atomically

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = [
    "SERVICE",
    "Definitions",
    "Place",
    "apply_definitions",
    "apply_repository",
    "definitions",
    "digest",
    "feast_imports",
    "open_store",
    "repository_registry",
]

Place = Path | Generation
"""Where online features are: a folder with a file, or a fill of a server."""

PROJECT = "evergreen"
"""Feast's project, unless it tells the fills of a server apart."""

_WRITTEN_AT_ONCE = 10_000
"""Keys that a fill of the online store has in memory at a time: Feast makes a message of each value."""

_ENGINE_MODULES = ("default_views.py", "offline_store.py", "repository.py")
"""The engine's modules that the registry depends on."""


@dataclass(frozen=True)
class Definitions:
    """The content of Feast's registry: names of entities and views, and the service's features in order."""

    digest: str
    """A hash of everything they depend on."""
    entities: tuple[str, ...]
    views: tuple[str, ...]
    features: tuple[str, ...]
    request: tuple[str, ...]
    """The columns that on-demand features are computed from."""
    changed: bool
    """Whether this call wrote the registry."""


def apply_definitions(home: Home) -> Definitions:
    """Write a description of the registry to the home; if nothing changed, does nothing and does not import Feast."""
    applied = _applied(home)
    if applied is not None and applied.digest == digest():
        return applied
    home.features.mkdir(parents=True, exist_ok=True)
    described = _describe(open_store(home))
    write_atomically(home.features / "definitions.json", json.dumps(asdict(described), indent=1))
    return replace(described, changed=True)


def definitions(home: Home) -> Definitions:
    """The definitions applied last. Raises NotPublished before the first `apply_definitions`.

    A home that machines share has the folder's copy, which any of them makes: it follows from the code.
    """
    if home.environment.online:
        return apply_definitions(home)
    applied = _applied(home)
    if applied is None:
        raise NotPublished("the feature definitions are not applied yet; materialize feature_definitions first")
    return applied


def open_store(home: Home, *, marts: Path | None = None, place: Place | None = None) -> "FeatureStore":
    """The feature store of a home.

    `marts` pins the folder of Parquet to read features from; without it, each query reads what is published at the
    time. `place` is where the online features are, by default a file in the home.
    """
    with feast_imports():
        from feast import FeatureStore, RepoConfig

    project, online = _online(place or home.features)
    registry = {"path": project, "registry_store_type": "assets.features.registry.RepositoryRegistryStore"}
    config = _config(project, registry, marts or home.lake.root / "marts", online)
    return FeatureStore(config=RepoConfig(repo_path=home.root, **config))


def _online(place: Place) -> tuple[str, dict[str, Any]]:
    """Feast's project, and its configuration of the online store in a place."""
    if isinstance(place, Path):
        return PROJECT, {"type": "sqlite", "path": str((place / "online.db").absolute())}
    return place.server.project or place.name, place.server.feast(place.name)


def repository_registry(project: str = PROJECT) -> bytes:
    """Feast's registry of the domain, built once per process."""
    return _registry_of(project, digest())


@lru_cache(8)  # a project may be a fill of the online store, of which a process that serves sees many
def _registry_of(project: str, digest: str) -> bytes:  # noqa: ARG001 - what it depends on
    with feast_imports():
        from feast import FeatureStore, RepoConfig

    with tempfile.TemporaryDirectory(prefix="evergreen-feast-") as folder:
        registry = {"path": str(Path(folder) / "registry.db")}
        config = _config(project, registry, Path(folder), None)
        apply_repository(FeatureStore(config=RepoConfig(repo_path=Path(folder), **config)))
        return (Path(folder) / "registry.db").read_bytes()


def apply_repository(store: "FeatureStore") -> None:
    """`feast apply`: fill a store's registry, and create the tables of its online store."""
    with warnings.catch_warnings():
        # Feast warns that on-demand views are slow offline; these are vectorised.
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        store.apply(repository(load_domain(), _own()))


def digest() -> str:
    """A hash of the domain's `feature_repo/`, its labels and entities, the engine's definitions and Feast's version."""
    own = [path for path in _own().glob("*") if path.suffix in {".py", ".yaml"}]
    ours = [Path(__file__).with_name(name) for name in _ENGINE_MODULES]
    domain = load_domain()
    return hash_json(
        {
            "feast": version("feast"),
            "own": {path.name: hash_file(path) for path in own},
            "ours": {path.name: hash_file(path) for path in ours},
            "labels": list(domain.labels),
            "entities": list(domain.entities),
        }
    )[:16]


def _own() -> Path:
    """The folder of the domain's own definitions, if it has any."""
    return domain_folder() / "feature_repo"


def _config(project: str, registry: dict[str, str], tables: Path, online: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "project": project,
        "provider": "local",
        "registry": registry | {"cache_ttl_seconds": 0},
        "offline_store": {
            "type": "assets.features.offline_store.AsOfOfflineStore",
            "tables": str(tables.absolute()),
        },
        "online_store": online,
        "materialization": {"pull_latest_features": True, "online_write_batch_size": _WRITTEN_AT_ONCE},
        "entity_key_serialization_version": 3,
    }


def _describe(store: "FeatureStore") -> Definitions:
    service = store.get_feature_service(SERVICE)
    return Definitions(
        digest=digest(),
        entities=tuple(sorted(entity.name for entity in store.list_entities())),
        views=tuple(projection.name for projection in service.feature_view_projections),
        features=tuple(f.name for projection in service.feature_view_projections for f in projection.features),
        request=tuple(sorted(_requested(store))),
        changed=False,
    )


def _requested(store: "FeatureStore") -> set[str]:
    views = store.list_on_demand_feature_views()
    return {field.name for view in views for source in view.source_request_sources.values() for field in source.schema}


@contextmanager
def feast_imports() -> Iterator[None]:
    """Import Feast without the parts that are not used.

    Feast decorates its classes with typeguard, which parses and compiles them again, and imports torch, to return
    tensors, and its web servers. Nothing here needs those, and they take nine tenths of the import time.
    """
    import typeguard

    os.environ.setdefault("FEAST_USAGE", "False")
    original = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        with lean(absent=("torch",), late=("feast.feature_server", "feast.ui_server")):
            yield
    finally:
        typeguard.typechecked = original


def _applied(home: Home) -> Definitions | None:
    path = home.features / "definitions.json"
    if not path.exists():
        return None
    fields = json.loads(path.read_text())
    lists = ("entities", "views", "features", "request")
    return Definitions(digest=fields["digest"], changed=False, **{name: tuple(fields[name]) for name in lists})
