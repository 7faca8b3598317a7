"""Feast, opened on a home folder: where `feature_repo/` meets the lake.

Feast keeps functions in its registry and runs them from there. So the registry that is used is made of `feature_repo/`
in this process, and what lies in the home is written for the `feast` command and never read.

<home>/features/registry.db        Feast's registry, replaced in one step by `apply_definitions`
<home>/features/definitions.json   what was applied, written after it
<home>/features/online.db          the online store, replaced in one step by `assets.features.serving.materialize`
"""

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import yaml

from assets.exceptions import NotPublished
from assets.lake import Home, hash_file, hash_json, write_atomically
from assets.lean import lean
from assets.settings import load_domain

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = [
    "REPO",
    "SERVICE",
    "Definitions",
    "apply_definitions",
    "apply_repository",
    "definitions",
    "digest",
    "feast_imports",
    "open_store",
    "repository_registry",
]

REPO = Path(__file__).parents[2] / "feature_repo"
SERVICE = "model_features"
"""The feature service that the model is trained and served with."""


@dataclass(frozen=True)
class Definitions:
    """What is in Feast's registry: names of entities and views, and the service's features in order."""

    digest: str
    """A hash of the feature repository's files and Feast's version."""
    entities: tuple[str, ...]
    views: tuple[str, ...]
    features: tuple[str, ...]
    request: tuple[str, ...]
    """Columns of a row that features are computed from on demand."""
    changed: bool
    """Whether this call wrote the registry."""


def apply_definitions(home: Home) -> Definitions:
    """`feast apply` of `feature_repo/`; does nothing, and does not import Feast, when nothing changed.

    The registry is written beside and moved into place, so that a killed run leaves the old one or the new one.
    """
    applied = _applied(home)
    if applied is not None and applied.digest == digest():
        return applied
    home.features.mkdir(parents=True, exist_ok=True)
    with home.lake.staging("feature_definitions") as folder:
        beside = folder / "registry.db"
        beside.write_bytes(repository_registry())
        beside.replace(_registry(home))
    found = _describe(open_store(home))
    write_atomically(home.features / "definitions.json", json.dumps(asdict(found), indent=1))
    return replace(found, changed=True)


def definitions(home: Home) -> Definitions:
    """What was applied last. Raises NotPublished before the first `apply_definitions`."""
    applied = _applied(home)
    if applied is None:
        raise NotPublished("the feature definitions are not applied yet; materialize feature_definitions first")
    return applied


def open_store(home: Home, *, marts: Path | None = None, folder: Path | None = None) -> "FeatureStore":
    """The feature store of a home, with the registry that `feature_repo/` defines.

    `marts` pins the folder of Parquet that features are read from; without it that is the current publication at the
    moment of each query. `folder` has the online store instead of the home.
    """
    with feast_imports():
        from feast import FeatureStore, RepoConfig

    text = Template((REPO / "feature_store.yaml").read_text())
    config: dict[str, Any] = yaml.safe_load(text.substitute(EVERGREEN_HOME=home.root.absolute().as_posix()))
    config["registry"] |= {"path": "", "registry_store_type": "assets.features.registry.RepositoryRegistryStore"}
    config["online_store"]["path"] = str(((folder or home.features) / "online.db").absolute())
    if marts is not None:
        config["offline_store"]["tables"] = str(marts.absolute())
    return FeatureStore(config=RepoConfig(repo_path=REPO, **config))


@cache
def repository_registry() -> bytes:
    """Feast's registry as `feature_repo/` defines it, made once in a process."""
    with feast_imports():
        from feast import FeatureStore, RepoConfig

    config: dict[str, Any] = yaml.safe_load((REPO / "feature_store.yaml").read_text())
    with tempfile.TemporaryDirectory(prefix="evergreen-feast-") as folder:
        config["registry"]["path"] = str(Path(folder) / "registry.db")
        apply_repository(FeatureStore(config=RepoConfig(repo_path=REPO, **config | {"online_store": None})))
        return (Path(folder) / "registry.db").read_bytes()


def apply_repository(store: "FeatureStore") -> None:
    """`feast apply`: fill a store's registry, and make the tables of its online store."""
    with warnings.catch_warnings():
        # Feast says of every on-demand view that it is slow offline; this one is vectorised.
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        store.apply(list(_load_repository()))


def digest() -> str:
    """A hash of the feature repository's files, the labels and Feast's version."""
    files = {path.name: hash_file(path) for path in REPO.iterdir() if path.suffix in {".py", ".yaml"}}
    return hash_json({"feast": version("feast"), "repository": files, "labels": list(load_domain().labels)})[:16]


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


def _load_repository() -> Iterator[Any]:
    """Every Feast object that the modules of `feature_repo/` define, each once."""
    from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView
    from feast.data_source import DataSource

    kinds = (DataSource, Entity, FeatureView, OnDemandFeatureView, FeatureService)
    modules = [import_module(path.stem) for path in sorted(REPO.glob("*.py"))]
    found = {id(value): value for module in modules for value in vars(module).values() if isinstance(value, kinds)}
    yield from found.values()


@contextmanager
def feast_imports() -> Iterator[None]:
    """Import Feast without what is not used of it, and make the modules of `feature_repo/` importable.

    Feast decorates its classes with typeguard, which parses and compiles them again. It imports torch, to give tensors,
    and its web servers. Nothing here depends on those: nine tenths of what the import takes.
    """
    import typeguard

    os.environ.setdefault("FEAST_USAGE", "False")
    if str(REPO) not in sys.path:
        sys.path.append(str(REPO))
    original = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        with lean(absent=("torch",), late=("feast.feature_server", "feast.ui_server")):
            yield
    finally:
        typeguard.typechecked = original


def _applied(home: Home) -> Definitions | None:
    path = home.features / "definitions.json"
    if not path.exists() or not _registry(home).exists():
        return None
    fields = json.loads(path.read_text())
    lists = ("entities", "views", "features", "request")
    return Definitions(digest=fields["digest"], changed=False, **{name: tuple(fields[name]) for name in lists})


def _registry(home: Home) -> Path:
    return home.features / "registry.db"
