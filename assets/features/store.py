"""Feast, opened on a home folder: where `feature_repo/` meets the lake.

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
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import yaml

from assets.exceptions import NotPublished
from assets.lake import Home, hash_file, hash_json, write_atomically

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = [
    "REPO",
    "SERVICE",
    "Definitions",
    "apply_definitions",
    "definitions",
    "feast_imports",
    "open_store",
    "write_registry",
]

REPO = Path(__file__).parents[2] / "feature_repo"
SERVICE = "complaint_routing"
"""The feature service that the model is trained and served with."""


@dataclass(frozen=True)
class Definitions:
    """What is in Feast's registry: names of entities and views, and the service's features in order."""

    digest: str
    """A hash of the feature repository's files and Feast's version."""
    entities: tuple[str, ...]
    views: tuple[str, ...]
    features: tuple[str, ...]
    changed: bool
    """Whether this call wrote the registry."""


def apply_definitions(home: Home) -> Definitions:
    """`feast apply` of `feature_repo/`; does nothing, and does not import Feast, when nothing changed.

    The registry is written beside and moved into place, so that a killed run leaves the old one or the new one.
    """
    applied = _applied(home)
    if applied is not None and applied.digest == _digest():
        return applied
    home.features.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".apply-", dir=home.features) as folder:
        found = write_registry(home, Path(folder))
        (Path(folder) / "registry.db").replace(_registry(home))
    write_atomically(home.features / "definitions.json", json.dumps(asdict(found), indent=1))
    return replace(found, changed=True)


def definitions(home: Home) -> Definitions:
    """What was applied last. Raises NotPublished before the first `apply_definitions`."""
    applied = _applied(home)
    if applied is None:
        raise NotPublished("the feature definitions are not applied yet; materialize feature_definitions first")
    return applied


def write_registry(home: Home, folder: Path) -> Definitions:
    """Apply `feature_repo/` to a new registry.db and online.db in `folder`."""
    store = open_store(home, folder=folder)
    objects = _load_repository()
    with warnings.catch_warnings():
        # Feast says of every on-demand view that it is slow offline; this one is vectorised.
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        store.apply(list(objects))
    service = store.get_feature_service(SERVICE)
    return Definitions(
        digest=_digest(),
        entities=tuple(sorted(entity.name for entity in store.list_entities())),
        views=tuple(projection.name for projection in service.feature_view_projections),
        features=tuple(f.name for projection in service.feature_view_projections for f in projection.features),
        changed=False,
    )


def open_store(home: Home, *, marts: Path | None = None, folder: Path | None = None) -> "FeatureStore":
    """The feature store of a home.

    `marts` pins the folder of Parquet that features are read from; without it that is the current publication at the
    moment of each query. `folder` takes the registry and the online store from there instead of from the home.
    """
    with feast_imports():
        from feast import FeatureStore, RepoConfig

    folder = folder or home.features
    text = Template((REPO / "feature_store.yaml").read_text())
    config: dict[str, Any] = yaml.safe_load(text.substitute(EVERGREEN_HOME=home.root.absolute().as_posix()))
    config["registry"]["path"] = str((folder / "registry.db").absolute())
    config["online_store"]["path"] = str((folder / "online.db").absolute())
    if marts is not None:
        config["offline_store"]["tables"] = str(marts.absolute())
    return FeatureStore(config=RepoConfig(repo_path=REPO, **config))


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
    """Import Feast without run-time type checks, and make the modules of `feature_repo/` importable.

    Feast decorates its classes with typeguard, which parses and compiles them again: 3 of the 8.5 s that the import
    takes. Nothing here depends on those checks.
    """
    import typeguard

    os.environ.setdefault("FEAST_USAGE", "False")
    if str(REPO) not in sys.path:
        sys.path.append(str(REPO))
    original = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = original


def _applied(home: Home) -> Definitions | None:
    path = home.features / "definitions.json"
    if not path.exists() or not _registry(home).exists():
        return None
    fields = json.loads(path.read_text())
    lists = ("entities", "views", "features")
    return Definitions(digest=fields["digest"], changed=False, **{name: tuple(fields[name]) for name in lists})


def _digest() -> str:
    files = {path.name: hash_file(path) for path in REPO.iterdir() if path.suffix in {".py", ".yaml"}}
    return hash_json({"feast": version("feast"), "repository": files})[:16]


def _registry(home: Home) -> Path:
    return home.features / "registry.db"
