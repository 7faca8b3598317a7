"""Feast's objects: the daily statistics of the domain's entities, and what the domain's `feature_repo/` adds to them.

Every feature view and on-demand feature view of a module in `feature_repo/` is part of the feature service, after the
engine's. Each module is loaded by its path and cannot import others in its folder. Keys and inputs of its views are
columns known when a record comes in; Feast accepts no column as both. A domain without an on-demand view of its own
gets the one in `default_views.py`.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from assets.exceptions import SettingsError
from assets.settings import Domain

if TYPE_CHECKING:
    from feast import Entity, FeatureView

__all__ = ["SERVICE", "Statistic", "repository", "statistics"]

SERVICE = "model_features"
"""The feature service that the model is trained and served with."""

_DEFAULT = Path(__file__).with_name("default_views.py")
# A statistic holds until the next row of its key, and every change adds a row: it never expires.
_NO_EXPIRY = timedelta(0)


class Statistic(NamedTuple):
    """A column of `<entity>_daily`."""

    name: str
    is_count: bool
    description: str


def statistics(entity: str, labels: Iterable[str]) -> tuple[Statistic, ...]:
    """The daily statistics of an entity, in the order of the features."""
    records = (
        Statistic(f"{entity}_records_{days}d", True, f"Records received in the last {days} days")
        for days in (7, 30, 90)
    )
    shares = (Statistic(f"{entity}_share_{label}", False, f"Share of {label} among known labels") for label in labels)
    return (
        *records,
        Statistic(f"{entity}_text_share", False, "Share of all records that have a text"),
        Statistic(f"{entity}_labels", True, "Labels known so far"),
        *shares,
    )


def repository(domain: Domain, folder: Path) -> list[Any]:
    """All Feast objects of a domain whose `feature_repo/` is the folder, which need not exist.

    Raises SettingsError naming the module that cannot be run.
    """
    from feast import FeatureService, FeatureView, OnDemandFeatureView

    entities = [_entity(name, domain) for name in domain.entities]
    ours = [_statistics_view(entity, domain) for entity in entities]
    own = [value for path in sorted(folder.glob("*.py")) for value in _defined_in(path)]
    if not any(isinstance(value, OnDemandFeatureView) for value in own):
        own += _defined_in(_DEFAULT)
    views = [value for value in own if isinstance(value, FeatureView | OnDemandFeatureView)]
    service = FeatureService(
        name=SERVICE,
        features=[*ours, *views],
        description="Everything the model is trained and served with besides the text.",
    )
    return [*entities, *(view.batch_source for view in ours), *ours, *own, service]


def _entity(name: str, domain: Domain) -> "Entity":
    from feast import Entity, ValueType

    return Entity(
        name=name,
        join_keys=[name],
        value_type=ValueType.STRING,
        description=f"The field {name} of a {domain.record.one}; 'unknown' where it is empty.",
    )


def _statistics_view(entity: "Entity", domain: Domain) -> "FeatureView":
    from feast import FeatureView, Field, FileSource
    from feast.types import Float64, Int64

    daily = FileSource(
        name=f"{entity.name}_daily",
        # Relative to the offline store's `tables`, so that publishing new marts changes no definition.
        path=f"{entity.name}_daily/*.parquet",
        timestamp_field="event_timestamp",
        description=f"One row per {entity.name} and day on which one of its statistics changes, known at day's end.",
    )
    return FeatureView(
        name=f"{entity.name}_statistics",
        entities=[entity],
        schema=[
            Field(name=column.name, dtype=Int64 if column.is_count else Float64, description=column.description)
            for column in statistics(entity.name, domain.labels)
        ],
        source=daily,
        ttl=_NO_EXPIRY,
        description=f"How many {domain.record.many} of the {entity.name} there are, and how they were labelled.",
    )


def _defined_in(path: Path) -> Iterator[Any]:
    """Every Feast object of a module, once."""
    from feast import Entity, FeatureView, OnDemandFeatureView
    from feast.data_source import DataSource

    spec = spec_from_file_location(f"feature_repo_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SettingsError(f"{path}: {type(error).__name__}: {error}") from error
    kinds = (DataSource, Entity, FeatureView, OnDemandFeatureView)
    yield from {id(value): value for value in vars(module).values() if isinstance(value, kinds)}.values()
