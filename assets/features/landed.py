"""Recomputes a training set from the raw records and the days on which their objects landed.

The marts a training set is built from cannot show whether a correction was applied to days before it arrived: they
would already hold it. So this reads the raw table, with SQL that shares nothing with dbt's models or the offline store,
and computes what the rows of a snapshot and their statistics must be.

A domain with a label mapping of its own repeats it in `dbt/checks/mapped_labels.sql`: a query of `versions`, which has
a column for each field of the label and `received_at`, that returns those columns and `label`; `$seeds` is the path of
the domain's seeds. Without that file its labels are not compared.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from assets.as_of import instant, instant_sql
from assets.duck import connect
from assets.exceptions import SettingsError
from assets.features.snapshot import Snapshot
from assets.home import Home
from assets.settings import Domain, domain_folder
from assets.warehouse.marts import mart

__all__ = ["Landed", "open_landed"]

_END = datetime(2200, 1, 1)
"""No record or label is from this time or later: nanosecond timestamps end not long after."""


class Landed:
    """The versions of records, with the instants at which they became known."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, domain: Domain, compares_labels: bool) -> None:
        self._connection, self._domain, self._compares_labels = connection, domain, compares_labels

    def other_rows(self, rows: pd.DataFrame, as_of: str) -> int:
        """The number of rows that are not the newest version known as of a date, including its label if compared."""
        self._connection.register("rows", rows)
        labels = ("rows.label", "_label") if self._compares_labels else ("null", "null")
        ours, theirs = (_columns(table, self._domain.entities) for table in ("rows", "newest"))
        sql = f"""
            with newest as (
                select * from labelled where _known <= $as_of
                qualify row_number() over (partition by _id order by _seq desc, _line desc) = 1
            )
            select count(*) from rows left join newest on rows.record_id = _id
            where (rows.known_at, rows.label_known_at, hash(rows.text), {labels[0]}{ours})
                is distinct from (_known, _label_known, _text, {labels[1]}{theirs})
        """  # noqa: S608 - names of the domain
        ((differing,),) = self._connection.execute(sql, {"as_of": instant(as_of)}).fetchall()
        return int(differing)

    def corrected(self, column: str) -> set[str]:
        """The values of a column, an entity or `record_id`, in records with several versions."""
        name = "_id" if column == "record_id" else _name(column)
        several = "select _id from versions group by _id having count(*) > 1"
        query = f"select distinct {name} from versions where _id in ({several})"  # noqa: S608 - names of the domain
        return {value for (value,) in self._connection.execute(query).fetchall()}

    def statistics(self, key: str, rows: pd.DataFrame) -> pd.DataFrame:
        """The statistics of each row's entity `key` as known before the day of its `known_at`."""
        assert key in self._domain.entities
        days, name = rows["known_at"].dt.floor("D"), _name(key)
        self._connection.register("rows", rows.assign(_position=range(len(rows)), _day=days))
        of_days = ", ".join(f"count(*) filter (received_at >= _day - to_days({n})) as records_{n}d" for n in _DAYS)
        ratios = ", ".join(f'case when records > 0 then {sql} end as "{key}_{name}"' for name, sql in self._ratios())
        sql = f"""
            with counted as (
                select _position, count(_id) as records, count(*) filter (_has_text) as texts, {of_days}
                from rows left join firsts on firsts.{name} = rows.{name} and _known < _day
                group by _position
            ), labels as (
                select _position, count(_id) as labels{self._counts()}
                from rows left join firsts on firsts.{name} = rows.{name} and _label_known < _day and _label is not null
                group by _position
            )
            select {ratios} from counted join labels using (_position) order by _position
        """  # noqa: S608 - names of the domain
        statistics: pd.DataFrame = self._connection.execute(sql).df()
        return statistics

    def _counts(self) -> str:
        return "".join(f", count(*) filter (_label = '{label}') as \"of_{label}\"" for label in self._domain.labels)

    def _ratios(self) -> Iterator[tuple[str, str]]:
        yield from ((f"records_{days}d", f"records_{days}d") for days in _DAYS)
        yield "text_share", "texts / records"
        if self._compares_labels:
            yield "labels", "labels"
            for label in self._domain.labels:
                yield f"share_{label}", f'coalesce("of_{label}" / nullif(labels, 0), 0)'


_DAYS = (7, 30, 90)


@contextmanager
def open_landed(home: Home, snapshot: Snapshot) -> Iterator[Landed]:
    """The raw records of the objects behind a snapshot's marts, except those withdrawn since.

    Raises SettingsError when the domain's own label query fails.
    """
    raw, marts = home.lake.current("raw_records"), home.lake.path("marts", snapshot.manifest["marts"])
    files = {
        "objects": str(raw / "objects.parquet"),
        "records": str(raw / "records" / "*.parquet"),
        "counted": mart(marts, "record_counts"),
    }
    with connect(memory_limit="1GB") as connection:
        connection.execute("set TimeZone = 'UTC'")
        _make_versions(connection, home.domain, files)
        mapped = _map_labels(connection, home.domain)
        _make_firsts(connection, home.domain.label.fields)
        yield Landed(connection, home.domain, mapped)


def _make_versions(connection: duckdb.DuckDBPyConnection, domain: Domain, files: dict[str, str]) -> None:
    """Create the table `versions`: every reading of a record that counts."""
    known, field = domain.label.known, domain.label.known.field
    formats: dict[str, Any] = {"received": _formats(domain, domain.received.field)}
    formats |= {"label_known": _formats(domain, field)} if field else {}
    default = "received_at + to_days($days)" if known.after_days is not None else "null"
    days = {"days": known.after_days} if known.after_days is not None else {}
    records = _records(connection, domain, files["records"])
    sql = f"""
        create temp table versions as
        with objects as (
            select object_id as _object, seq as _seq, {instant_sql("known_from")} as _from from read_parquet($objects)
            where (object_id, landed) in (select (object_id, landed) from read_parquet($counted))
        ), readings as (
            select trim(records.{_name(domain.id)}) as _id, records.content_hash as _content, _seq,
                records.line as _line, _from, hash({_text(domain)}) as _text, {_text(domain)} is not null as _has_text,
                {_instant(domain, domain.received.field, "received")} as received_at,
                {f"records.{_name(field)} is not null" if field else "false"} as _has_when,
                {_instant(domain, field, "label_known") if field else "null::timestamp"} as _when
                {_columns("records", domain.label.fields)}
                {"".join(f", coalesce(records.{_name(n)}, 'unknown') as {_name(n)}" for n in domain.entities)}
            from ({records}) as records join objects on records.object_id = _object
        ), counted as (
            select *, greatest(received_at, coalesce(_from, received_at)) as _known,
                coalesce(_when, {default}) as _judged
            from readings
            where _id <> '' and received_at >= $first and received_at < $end
                and (not _has_when or coalesce(_when >= $first and _when < $end, false))
            qualify row_number() over (partition by _id, _content order by _seq, _line) = 1
        )
        select _id, _seq, _line, received_at, _known, _text, _has_text,
            case when coalesce({", ".join(map(_name, domain.label.fields))}) is not null and _judged is not null
                then greatest(_known, _judged) end as _label_known
            {_columns("counted", (*domain.label.fields, *domain.entities))}
        from counted
    """  # noqa: S608 - names of the domain; values are parameters
    first = datetime.combine(domain.received.not_before, datetime.min.time())
    connection.execute(sql, files | formats | days | {"first": first, "end": _END})


def _records(connection: duckdb.DuckDBPyConnection, domain: Domain, path: str) -> str:
    """A query of the raw records; a field that the domain gained after they landed is null."""
    names = connection.execute("select distinct name from parquet_schema(?)", [path]).fetchall()
    absent = sorted(set(domain.source.fields) - {name for (name,) in names})
    columns = ", ".join(["*", *(f"null::varchar as {_name(name)}" for name in absent)])
    return f"select {columns} from read_parquet($records, union_by_name = true)"  # noqa: S608 - names are quoted


def _map_labels(connection: duckdb.DuckDBPyConnection, domain: Domain) -> bool:
    """Create the table `labels`, with a `_label` for values of the label's fields; whether that works without dbt."""
    folder = domain_folder() / "dbt"
    own = folder / "checks" / "mapped_labels.sql"
    if own.exists():
        _map_by_query(connection, own, folder / "seeds")
        return True
    if (folder / "models" / "mapped_labels.sql").exists():
        connection.execute("create temp table labels as select *, null::varchar as _label from versions limit 0")
        return False
    _map_by_name(connection, domain)
    return True


def _map_by_query(connection: duckdb.DuckDBPyConnection, path: Path, seeds: Path) -> None:
    query = path.read_text()
    values = {"seeds": str(seeds)} if "$seeds" in query else {}
    table = f"create temp table labels as select * rename (label as _label) from (\n{query}\n)"  # noqa: S608 - its own
    try:
        connection.execute(table, values)
    except duckdb.Error as error:
        raise SettingsError(f"{path}: {str(error).splitlines()[0]}") from error


def _map_by_name(connection: duckdb.DuckDBPyConnection, domain: Domain) -> None:
    """Map by names; a label's own name takes precedence over another label's display name."""
    (field,) = domain.label.fields
    called = [
        (name, label, place) for label, display in domain.labels.items() for place, name in enumerate((label, display))
    ]
    connection.register("called", pa.table(list(zip(*called, strict=True)), names=["called", "_label", "_place"]))
    connection.execute(f"""
        create temp table labels as select distinct_values.*, arg_min(_label, _place) as _label
        from (select distinct {_name(field)}, received_at from versions) as distinct_values
        join called on lower(trim(distinct_values.{_name(field)})) = lower(trim(called)) group by all
    """)  # noqa: S608 - names of the domain


def _make_firsts(connection: duckdb.DuckDBPyConnection, fields: Sequence[str]) -> None:
    """Create the table of labelled versions, and that of each record's first version with the record's first label."""
    names = ", ".join(map(_name, fields))
    same = " and ".join(f"versions.{_name(n)} is not distinct from labels.{_name(n)}" for n in fields)
    connection.execute(f"""
        create temp table labelled as select versions.* exclude ({names}), labels._label from versions
        left join labels on versions._label_known is not null and versions.received_at = labels.received_at and {same}
    """)  # noqa: S608 - names of the domain
    # A version superseded before it is known is never visible.
    connection.execute("""
        create temp table firsts as
        with first_known as (
            from labelled qualify row_number() over (partition by _id order by _known, _seq desc, _line desc) = 1
        ), visible as (
            from labelled where _id in (select _id from first_known where _label is null)
            qualify coalesce(_known < min(_known) over (
                partition by _id order by _seq, _line rows between 1 following and unbounded following
            ), true)
        ), later as (
            select _id, arg_min(_label, _known) as _label, arg_min(_label_known, _known) as _label_known
            from visible where _label is not null group by _id
        )
        select first_known.* replace (
            coalesce(first_known._label, later._label) as _label,
            case when first_known._label is null then later._label_known else first_known._label_known end
                as _label_known
        )
        from first_known left join later using (_id)
    """)


def _text(domain: Domain) -> str:
    fields = ", ".join(f"records.{_name(name)}" for name in domain.text.fields)
    if len(domain.text.fields) == 1:
        return fields
    return f"nullif(concat_ws(chr(10), {fields}), '')"


def _formats(domain: Domain, field: str) -> list[str]:
    """The formats of a field's times, as strptime codes."""
    return ["%Y-%m-%d", *domain.source.fields[field].formats]


def _instant(domain: Domain, field: str, formats: str) -> str:
    """SQL for a field's time in UTC: a day is its midnight; null when it is no time."""
    by_format = f"try_strptime(records.{_name(field)}, ${formats})"
    if domain.source.fields[field].type == "day":
        return by_format
    iso_8601 = f"epoch_us(try_cast(records.{_name(field)} as timestamptz))"
    return f"make_timestamp(coalesce({iso_8601}, epoch_us({by_format})))"


def _columns(table: str, names: Sequence[str]) -> str:
    return "".join(f", {table}.{_name(name)}" for name in names)


def _name(identifier: str) -> str:
    return f'"{identifier}"'
