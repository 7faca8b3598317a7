"""A training set once more, from the raw records and the days on which their objects landed.

The marts that a training set is made of cannot tell whether a correction was applied to days before it arrived: they
would hold it. So this reads the raw table, by SQL that shares nothing with the models of dbt or with the offline
store, and says what the rows of a snapshot and their statistics must be.

How labels are mapped, a domain with a model of its own says once more in `dbt/checks/mapped_labels.sql`: a query of
`versions`, with a column for each field of the label and `received_at`, that gives those columns and `label`; `$seeds`
is the path of the domain's seeds. Without that file its labels are not compared.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from assets.exceptions import SettingsError
from assets.features.snapshot import Snapshot
from assets.lake import Home
from assets.settings import Domain, domain_folder
from assets.warehouse.marts import mart

__all__ = ["Landed", "open_landed"]

_END = datetime(2200, 1, 1)
"""No record or label is of this time or later: timestamps in nanoseconds end not long after."""


class Landed:
    """The versions of records, with the instants at which they were known."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, domain: Domain, compares_labels: bool) -> None:
        self._connection, self._domain, self._compares_labels = connection, domain, compares_labels

    def other_rows(self, rows: pd.DataFrame, as_of: str) -> int:
        """How many rows are not the newest version known as of a date, with its label if labels are compared."""
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
        ((found,),) = self._connection.execute(sql, {"as_of": datetime.fromisoformat(as_of)}).fetchall()
        return int(found)

    def corrected(self, column: str) -> set[str]:
        """The values that a column has in records of which there are several versions: an entity, or `record_id`."""
        name = "_id" if column == "record_id" else _name(column)
        several = "select _id from versions group by _id having count(*) > 1"
        found = self._connection.execute(f"select distinct {name} from versions where _id in ({several})")  # noqa: S608
        return {value for (value,) in found.fetchall()}

    def statistics(self, key: str, rows: pd.DataFrame) -> pd.DataFrame:
        """What was known of each row's entity `key` before the day of its `known_at`."""
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
        found: pd.DataFrame = self._connection.execute(sql).df()
        return found

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
    """The raw records of the objects that a snapshot's marts were made of, as far as those are not withdrawn since.

    Raises SettingsError when the domain's own query of its labels cannot be run.
    """
    raw, marts = home.lake.current("raw_records"), home.lake.path("marts", snapshot.manifest["marts"])
    files = {
        "objects": str(raw / "objects.parquet"),
        "records": str(raw / "records" / "*.parquet"),
        "counted": mart(marts, "record_counts"),
    }
    with duckdb.connect(config={"memory_limit": "1GB"}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        _make_versions(connection, home.domain, files)
        mapped = _map_labels(connection, home.domain)
        _make_firsts(connection, home.domain.label.fields)
        yield Landed(connection, home.domain, mapped)


def _make_versions(connection: duckdb.DuckDBPyConnection, domain: Domain, files: dict[str, str]) -> None:
    """The table `versions`: every reading of a record that counts."""
    known, said = domain.label.known, domain.label.known.field
    formats: dict[str, Any] = {"received": _formats(domain, domain.received.field)}
    formats |= {"said": _formats(domain, said)} if said else {}
    default = "received_at + to_days($days)" if known.after_days is not None else "null"
    days = {"days": known.after_days} if known.after_days is not None else {}
    records = _records(connection, domain, files["records"])
    sql = f"""
        create temp table versions as
        with objects as (
            select object_id as _object, seq as _seq, cast(known_from as timestamp) as _from from read_parquet($objects)
            where (object_id, landed) in (select (object_id, landed) from read_parquet($counted))
        ), readings as (
            select trim(records.{_name(domain.id)}) as _id, records.content_hash as _content, _seq,
                records.line as _line, _from, hash({_text(domain)}) as _text, {_text(domain)} is not null as _has_text,
                {_instant(domain, domain.received.field, "received")} as received_at,
                {f"records.{_name(said)} is not null" if said else "false"} as _says_when,
                {_instant(domain, said, "said") if said else "null::timestamp"} as _when
                {_columns("records", domain.label.fields)}
                {"".join(f", coalesce(records.{_name(n)}, 'unknown') as {_name(n)}" for n in domain.entities)}
            from ({records}) as records join objects on records.object_id = _object
        ), counted as (
            select *, greatest(received_at, coalesce(_from, received_at)) as _known, coalesce(_when, {default}) as _told
            from readings
            where _id <> '' and received_at >= $first and received_at < $end
                and (not _says_when or coalesce(_when >= $first and _when < $end, false))
            qualify row_number() over (partition by _id, _content order by _seq, _line) = 1
        )
        select _id, _seq, _line, received_at, _known, _text, _has_text,
            case when coalesce({", ".join(map(_name, domain.label.fields))}) is not null and _told is not null
                then greatest(_known, _told) end as _label_known
            {_columns("counted", (*domain.label.fields, *domain.entities))}
        from counted
    """  # noqa: S608 - names of the domain; values are parameters
    first = datetime.combine(domain.received.not_before, datetime.min.time())
    connection.execute(sql, files | formats | days | {"first": first, "end": _END})


def _records(connection: duckdb.DuckDBPyConnection, domain: Domain, path: str) -> str:
    """A query of the raw records; a field that the domain did not have yet when they landed is null."""
    found = connection.execute("select distinct name from parquet_schema(?)", [path]).fetchall()
    absent = sorted(set(domain.source.fields) - {name for (name,) in found})
    columns = ", ".join(["*", *(f"null::varchar as {_name(name)}" for name in absent)])
    return f"select {columns} from read_parquet($records, union_by_name = true)"  # noqa: S608 - names are quoted


def _map_labels(connection: duckdb.DuckDBPyConnection, domain: Domain) -> bool:
    """The table `labels`, with a `_label` for values of the label's fields; whether it could be made without dbt."""
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
    """A label's name comes before what people call another one."""
    (field,) = domain.label.fields
    called = [
        (name, label, place) for label, display in domain.labels.items() for place, name in enumerate((label, display))
    ]
    connection.register("called", pa.table(list(zip(*called, strict=True)), names=["called", "_label", "_place"]))
    connection.execute(f"""
        create temp table labels as select said.*, arg_min(_label, _place) as _label
        from (select distinct {_name(field)}, received_at from versions) as said
        join called on lower(trim(said.{_name(field)})) = lower(trim(called)) group by all
    """)  # noqa: S608 - names of the domain


def _make_firsts(connection: duckdb.DuckDBPyConnection, fields: Sequence[str]) -> None:
    """The versions with their labels, and of each record the first, with the first label that the record got."""
    names = ", ".join(map(_name, fields))
    same = " and ".join(f"versions.{_name(n)} is not distinct from labels.{_name(n)}" for n in fields)
    connection.execute(f"""
        create temp table labelled as select versions.* exclude ({names}), labels._label from versions
        left join labels on versions._label_known is not null and versions.received_at = labels.received_at and {same}
    """)  # noqa: S608 - names of the domain
    # A version that is superseded before it is known is never seen.
    connection.execute("""
        create temp table firsts as
        with begun as (
            from labelled qualify row_number() over (partition by _id order by _known, _seq desc, _line desc) = 1
        ), seen as (
            from labelled where _id in (select _id from begun where _label is null)
            qualify coalesce(_known < min(_known) over (
                partition by _id order by _seq, _line rows between 1 following and unbounded following
            ), true)
        ), later as (
            select _id, arg_min(_label, _known) as _label, arg_min(_label_known, _known) as _label_known
            from seen where _label is not null group by _id
        )
        select begun.* replace (
            coalesce(begun._label, later._label) as _label,
            case when begun._label is null then later._label_known else begun._label_known end as _label_known
        )
        from begun left join later using (_id)
    """)


def _text(domain: Domain) -> str:
    said = ", ".join(f"records.{_name(name)}" for name in domain.text.fields)
    if len(domain.text.fields) == 1:
        return said
    return f"nullif(concat_ws(chr(10), {said}), '')"


def _formats(domain: Domain, field: str) -> list[str]:
    """How a field's times are written, in the letters of strptime."""
    return ["%Y-%m-%d", *domain.source.fields[field].formats]


def _instant(domain: Domain, field: str, formats: str) -> str:
    """SQL for a field's time in UTC: a day's midnight, or null when it says none."""
    said = f"try_strptime(records.{_name(field)}, ${formats})"
    if domain.source.fields[field].type == "day":
        return said
    written = f"epoch_us(try_cast(records.{_name(field)} as timestamptz))"
    return f"make_timestamp(coalesce({written}, epoch_us({said})))"


def _columns(table: str, names: Sequence[str]) -> str:
    return "".join(f", {table}.{_name(name)}" for name in names)


def _name(identifier: str) -> str:
    return f'"{identifier}"'
