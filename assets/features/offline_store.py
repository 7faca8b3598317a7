"""A Feast offline store over Parquet: one DuckDB ASOF join per feature view, on the instant a value became known.

A row is known from the later of its event and created timestamps. Of the rows known at its own instant, a training row
sees the one with the greatest (event, created); a view's ttl is applied to that row afterwards. Feast's own file and
duckdb stores differ: the first drops rows without a feature inside the ttl, the second ignores the created timestamp,
so that late arrivals leak into the past.

A source is one Parquet file, or a pattern whose matches are read in the order of their names. Its path is relative to
`tables`, a folder of Parquet files or a folder of versions with a CURRENT file that names the version to read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, FileSource, OnDemandFeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from pydantic import StrictStr

from assets.duck import connect

__all__ = ["AsOfOfflineStore", "AsOfOfflineStoreConfig", "AsOfRetrievalJob"]

_POINTER = "CURRENT"


class AsOfOfflineStoreConfig(FeastConfigBaseModel):
    """The configuration of the offline store."""

    type: Literal["assets.features.offline_store.AsOfOfflineStore"] = "assets.features.offline_store.AsOfOfflineStore"
    tables: StrictStr
    """The folder that source paths are relative to; its CURRENT file, if any, names the subfolder to read."""


class AsOfRetrievalJob(RetrievalJob):
    """A query that runs when its result is requested; Feast adds the on-demand features to the result."""

    def __init__(
        self,
        query: Callable[[], pa.Table],
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._query = query
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's interface
        return self._query()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool | None = False,
        timeout: int | None = None,
    ) -> None:
        """Write the result to one Parquet file. Raises FileExistsError unless overwriting is allowed."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise ValueError(f"AsOfOfflineStore saves to a SavedDatasetFileStorage, not to {type(storage).__name__}")
        target = Path(storage.file_options.uri)
        if target.exists() and not allow_overwrite:
            raise FileExistsError(f"{target} already exists; allow overwriting it or name another file")
        pq.write_table(self.to_arrow(timeout=timeout), target)


class AsOfOfflineStore(OfflineStore):
    """Point-in-time joins over Parquet files with DuckDB."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,  # noqa: ARG004 - Feast's interface
    ) -> RetrievalJob:
        """For every entity row, in order, the features as they were known at its timestamp.

        Late values never leak, so Feast's `filter_by_created_timestamp` changes nothing here.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError("AsOfOfflineStore needs an entity_df that is a pandas DataFrame")
        timestamp = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        joins = [_join_of(view, feature_refs, config, full_feature_names) for view in feature_views]
        entities = entity_df.reset_index(drop=True)
        return AsOfRetrievalJob(
            query=lambda: _join_all(entities, timestamp, joins),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=sorted(set(entity_df.columns) - {timestamp}),
                min_event_timestamp=entities[timestamp].min(),
                max_event_timestamp=entities[timestamp].max(),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Each key's newest row known by `end_date`, with an event not before `start_date`."""
        source = _Source.of(data_source, config, timestamp_field, created_timestamp_column)
        keys = _names(join_key_columns)
        columns = source.columns(join_key_columns, feature_name_columns)
        order = f"{{'event': {source.event}, 'created': {source.created}, 'file': file_index, 'row': file_row_number}}"
        # The first pass reads only the keys and instants of all rows.
        sql = f"""
            with newest as (select max({order}) as place from {_SCAN} where {source.known_within} group by {keys})
            select {columns} from {_SCAN}
            semi join newest on file_index = place.file and file_row_number = place.row order by {keys}
        """  # noqa: S608 - identifiers are quoted, values are parameters
        return AsOfRetrievalJob(lambda: source.query(sql, start_date, end_date))

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row known by `end_date`, with an event not before `start_date`, in the order of the file."""
        source = _Source.of(data_source, config, timestamp_field, created_timestamp_column)
        columns = source.columns(join_key_columns, feature_name_columns)
        sql = f"""
            select {columns} from {_SCAN} where {source.known_within} order by {_POSITION}
        """  # noqa: S608 - identifiers are quoted, values are parameters
        return AsOfRetrievalJob(lambda: source.query(sql, start_date, end_date))

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Raises ValueError for a source that is not a FileSource, or that renames columns."""
        _Source.of(data_source, config, data_source.timestamp_field, data_source.created_timestamp_column)


_ALWAYS = (-(2**62), 2**62)
"""A range that contains every instant, in microseconds."""

_SCAN = "read_parquet($path, file_row_number = true)"
_POSITION = "(file_index::bigint << 40) + file_row_number"
"""The order of the files, and of the rows in each."""


@dataclass(frozen=True)
class _Source:
    """Parquet files, and SQL for their instants in microseconds: comparing integers needs no time zone."""

    path: str
    timestamp_field: str
    created_field: str | None

    @classmethod
    def of(cls, source: DataSource | None, config: RepoConfig, timestamp: str, created: str | None) -> "_Source":
        if not isinstance(source, FileSource):
            raise ValueError(f"AsOfOfflineStore reads a FileSource, not {type(source).__name__}")
        if source.field_mapping:
            raise ValueError(f"source {source.name}: AsOfOfflineStore has no field_mapping; rename the columns instead")
        return cls(str(_tables(config) / source.path), timestamp, created or None)

    @property
    def event(self) -> str:
        return f"epoch_us({_name(self.timestamp_field)})"

    @property
    def created(self) -> str:
        return f"coalesce(epoch_us({_name(self.created_field)}), {self.event})" if self.created_field else self.event

    @property
    def known_within(self) -> str:
        return f"{self.event} >= $start and greatest({self.event}, {self.created}) <= $end"

    def columns(self, keys: list[str], features: list[str]) -> str:
        instants = [self.timestamp_field, *([self.created_field] if self.created_field else [])]
        return _names([*keys, *features, *instants])

    def query(self, sql: str, start: datetime | None, end: datetime | None) -> pa.Table:
        bounds = {"start": _micros(start, _ALWAYS[0]), "end": _micros(end, _ALWAYS[1])}
        with connect() as connection:
            return _fetch(connection, sql, {"path": self.path, **bounds})


@dataclass(frozen=True)
class _Join:
    """One feature view's part of a point-in-time join."""

    source: _Source
    keys: tuple[tuple[str, str], ...]
    """Pairs of the source's key column and the entity frame's."""
    features: tuple[tuple[str, str], ...]
    """Pairs of the source's column and the result's."""
    ttl_micros: int | None

    @property
    def sql(self) -> str:
        """One row per entity row, in order: the features of the newest source row known at its instant, or nulls."""
        key_names = ", ".join(f"k{i}" for i in range(len(self.keys)))
        same_key = " and ".join(f"e.k{i} = n.k{i}" for i in range(len(self.keys)))
        features = ", ".join(f"f.{_name(column)} as {_name(name)}" for column, name in self.features)
        fresh = "true" if self.ttl_micros is None else f"m.instant - m.event <= {self.ttl_micros}"
        return f"""
            with known as (
                select {", ".join(f"{_name(column)} as k{i}" for i, (column, _) in enumerate(self.keys))},
                    {self.source.event} as event, {self.source.created} as created, {_POSITION} as position
                from {_SCAN} where {self.source.known_within}
            ),
            newest as ({self._newest(key_names)}),
            matched as (
                select e.position, e.instant, n.newest.event as event, n.newest.position as source_position
                from entities e asof left join newest n on {same_key} and e.instant >= n.known
            )
            select {features} from matched m
            left join (select *, {_POSITION} as source_position from {_SCAN}) f
                on m.source_position = f.source_position and {fresh}
            order by m.position
        """  # noqa: S608 - identifiers are quoted, values are parameters

    def _newest(self, keys: str) -> str:
        """For each key and each instant at which a row became known: the newest row known then."""
        if not self.source.created_field:
            return f"""
                select {keys}, event as known, {{'event': event, 'position': max(position)}} as newest
                from known group by {keys}, event
            """  # noqa: S608 - names of ours
        return f"""
            select {keys}, greatest(event, created) as known,
                max({{'event': event, 'created': created, 'position': position}}) over (
                    partition by {keys} order by greatest(event, created)
                    range between unbounded preceding and current row
                ) as newest
            from known
        """  # noqa: S608 - names of ours


def _join_of(view: FeatureView, feature_refs: list[str], config: RepoConfig, full_names: bool) -> _Join:
    batch = view.batch_source
    if batch is None:
        raise ValueError(f"feature view {view.name} has no batch source to read history from")
    name: str = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    wanted = [feature for prefix, feature in (ref.split(":") for ref in feature_refs) if prefix == name]
    join_keys = view.projection.join_key_map
    return _Join(
        source=_Source.of(batch, config, batch.timestamp_field, batch.created_timestamp_column),
        keys=tuple((column.name, join_keys.get(column.name, column.name)) for column in view.entity_columns),
        features=tuple((feature, f"{name}__{feature}" if full_names else feature) for feature in wanted),
        ttl_micros=round(view.ttl.total_seconds() * 1_000_000) if view.ttl else None,
    )


def _join_all(entities: pd.DataFrame, timestamp: str, joins: list[_Join]) -> pa.Table:
    result = pa.Table.from_pandas(entities, preserve_index=False)
    instants = pd.to_datetime(entities[timestamp], utc=True).dt.as_unit("us").astype("int64")
    with connect() as connection:
        for join in joins:
            slim = {f"k{i}": result[column] for i, (_, column) in enumerate(join.keys)}
            slim |= {"position": pa.array(range(len(entities)), pa.int64()), "instant": pa.array(instants)}
            connection.register("entities", pa.table(slim))
            bounds = {"start": _ALWAYS[0], "end": int(instants.max()) if len(instants) else _ALWAYS[0]}
            joined = _fetch(connection, join.sql, {"path": join.source.path, **bounds})
            if joined.num_rows != result.num_rows:
                raise ValueError(f"{join.source.path}: {joined.num_rows} rows were joined to {result.num_rows}")
            for _, name in join.features:
                result = result.append_column(name, joined[name])
    return result


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> pa.Table:
    return connection.sql(sql, params=parameters).to_arrow_table()


def _tables(config: RepoConfig) -> Path:
    folder = Path(config.offline_store.tables)
    pointer = folder / _POINTER
    return folder / pointer.read_text() if pointer.exists() else folder


def _micros(instant: datetime | None, default: int) -> int:
    return default if instant is None else pd.Timestamp(instant).value // 1000


def _name(identifier: str | None) -> str:
    assert identifier
    return '"' + identifier.replace('"', '""') + '"'


def _names(identifiers: list[str]) -> str:
    return ", ".join(_name(identifier) for identifier in identifiers)
