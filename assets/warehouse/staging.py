"""Writes the marts of a build: the partitions it may have changed; the others are linked from the last build.

What may have changed follows from what the build did, never from the files: in `dbt/models/`, `changed_records` and
`touched_statistics` say which records and entities new objects touch.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from assets.as_of import date_of
from assets.duck import connect
from assets.settings import Domain
from assets.warehouse.marts import damaged, link_others, mart_names, partitions, week, write_partitions

__all__ = ["stage"]


def stage(domain: Domain, database: Path, folder: Path, before: Path | None, days: Sequence[str | None]) -> None:
    """Write a warehouse's marts into a folder, reusing those of the build it added to (`before`), if any.

    `days`: when the added objects became known (as-ofs, None for history).
    """
    with connect(database, read_only=True, memory_limit="2500MB", temp_directory=f"{database}.tmp") as connection:
        if before is None:
            for mart in mart_names(domain):
                write_partitions(connection, mart, folder)
            return
        newest = max(filter(None, days), default=None)
        for mart, changed in _changed(domain, connection, before, days).items():
            lost = damaged(before, mart, date_of(newest)) if newest else set()
            link_others(before, mart, folder, changed | lost)
            write_partitions(connection, mart, folder, changed | lost)


def _changed(
    domain: Domain, connection: duckdb.DuckDBPyConnection, before: Path, days: Sequence[str | None]
) -> dict[str, set[str]]:
    """The partitions of each mart in which rows may have changed or gone.

    Every row of a record is one of its valid records, so it is in the week of one of them.
    """
    versions = _weeks(connection, "select distinct known_at::date from changed_records")
    return {
        "fct_records": versions,
        "labels": versions,
        **{f"{entity}_daily": _weeks_touched(connection, before, entity) for entity in domain.entities},
        "quarantined_records": {week(day) for day in days},
        "record_counts": {"all"},
    }


def _weeks_touched(connection: duckdb.DuckDBPyConnection, before: Path, entity: str) -> set[str]:
    """The weeks from the first day that a build touches, of its rows and of those before it."""
    since = f"(select min(from_day)::date from touched_statistics where entity = '{entity}')"  # noqa: S608
    rows = f"select distinct event_timestamp::date from {entity}_running where event_timestamp >= {since}"  # noqa: S608
    first = _weeks(connection, f"select {since}")
    existing = partitions(before, f"{entity}_daily")
    return _weeks(connection, rows) | {old for old in existing for start in first if old >= start}


def _weeks(connection: duckdb.DuckDBPyConnection, days: str) -> set[str]:
    return {week(day.isoformat()) for (day,) in connection.execute(days).fetchall() if day is not None}
