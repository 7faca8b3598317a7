"""A training set once more, from the raw records and the days on which their objects landed.

The marts that a training set is made of cannot tell whether a correction was applied to days before it arrived: they
would hold it. So this reads the raw table, by SQL that shares nothing with the models in dbt/ or with the offline
store, and says what the rows of a snapshot and their statistics must be.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pandas as pd
import yaml

from assets.features.snapshot import Snapshot
from assets.lake import Home
from assets.warehouse.marts import mart
from assets.warehouse.project import PROJECT

__all__ = ["Landed", "open_landed"]

_VERSIONS = """
    create temp table versions as
    with objects as (
        select object_id, seq, cast(known_from as timestamp) as day from read_parquet($objects)
        where (object_id, landed) in (select (object_id, landed) from read_parquet($counted))
    ), readings as (
        select trim(complaint_id) as id, content_hash, seq, line, day, product, date_sent_to_company as sent_text,
            coalesce(company, 'unknown') as company, coalesce(state, 'unknown') as state, hash(narrative) as text_hash,
            narrative is not null as has_text,
            try_strptime(date_received, ['%Y-%m-%d', '%m/%d/%Y']) as received,
            try_strptime(date_sent_to_company, ['%Y-%m-%d', '%m/%d/%Y']) as sent
        from read_parquet($records) join objects using (object_id)
    )
    select id, seq, line, product, company, state, text_hash, has_text, received,
        greatest(received, coalesce(day, received)) as known,
        greatest(received, coalesce(day, received), coalesce(sent, received + to_days($days))) as label_known
    from readings
    where id <> '' and received between $first and $last
        and (sent_text is null or coalesce(sent between $first and $last, false))
    qualify row_number() over (partition by id, content_hash order by seq, line) = 1
"""
_MAPPED = """
    create temp table labels as
    select named.product, received,
        arg_min(queue, greatest(valid_from - received::date, received::date - valid_to, 0)) as label
    from (select distinct product, received from versions) named
    join read_csv($seed) seed on lower(trim(named.product)) = lower(trim(seed.product))
    group by all
"""
_FIRSTS = """
    create temp table firsts as
    select versions.*, label from versions left join labels using (product, received)
    qualify row_number() over (partition by id order by known, seq desc, line desc) = 1
"""
_OTHER_ROWS = """
    with newest as (
        select versions.*, label from versions left join labels using (product, received) where known <= $as_of
        qualify row_number() over (partition by id order by seq desc, line desc) = 1
    )
    select count(*) from rows left join newest on record_id = id
    where (known_at, label_known_at, rows.company, rows.state, rows.label, hash(rows.text))
        is distinct from (known, label_known, newest.company, newest.state, newest.label, text_hash)
"""
_STATISTICS = """
    select {columns} from rows left join firsts on firsts.{key} = rows.{key} and known < known_at
    group by position order by position
"""


class Landed:
    """The versions of records, with the days on which they were known."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, labels: Iterable[str]) -> None:
        self._connection, self._labels = connection, labels

    def other_rows(self, rows: pd.DataFrame, as_of: str) -> int:
        """How many rows are not the newest version known as of a date, with its label."""
        self._connection.register("rows", rows)
        found = self._connection.execute(_OTHER_ROWS, {"as_of": datetime.fromisoformat(as_of)}).fetchone()
        assert found is not None
        return int(found[0])

    def corrected(self) -> set[str]:
        """The companies of records of which there are several versions."""
        several = "select company from versions where id in (select id from versions group by id having count(*) > 1)"
        return {company for (company,) in self._connection.execute(several).fetchall()}

    def statistics(self, key: str, rows: pd.DataFrame) -> pd.DataFrame:
        """What was known of each row's company or state, whichever `key` is, before the day of its `known_at`."""
        assert key in ("company", "state")
        self._connection.register("rows", rows.assign(position=range(len(rows))))
        labelled = "count(*) filter (label_known < known_at and label is not null)"
        of_label = "count(*) filter (label_known < known_at and label = '{}')"
        columns = {
            **{f"records_{n}d": f"count(id) filter (received >= known_at - to_days({n}))" for n in (7, 30, 90)},
            "text_share": "count(*) filter (has_text) / count(id)",
            "labels": labelled,
            **{
                f"share_{label}": f"coalesce({of_label.format(label)} / nullif({labelled}, 0), 0)"
                for label in self._labels
            },
        }
        selected = ", ".join(f"case when count(id) > 0 then {sql} end as {key}_{name}" for name, sql in columns.items())
        found: pd.DataFrame = self._connection.execute(_STATISTICS.format(columns=selected, key=key)).df()
        return found


@contextmanager
def open_landed(home: Home, snapshot: Snapshot) -> Iterator[Landed]:
    """The raw records of the objects that a snapshot's marts were made of, as far as those are not withdrawn since."""
    raw, marts = home.lake.current("raw_records"), home.lake.path("marts", snapshot.manifest["marts"])
    told = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["vars"]
    files = {
        "objects": str(raw / "objects.parquet"),
        "records": str(raw / "records" / "*.parquet"),
        "counted": mart(marts, "record_counts"),
    }
    bounds = {name: datetime.fromisoformat(told[f"{name}_possible_day"]) for name in ("first", "last")}
    with duckdb.connect(config={"memory_limit": "1GB"}) as connection:
        connection.execute(_VERSIONS, files | bounds | {"days": told["days_to_label"]})
        connection.execute(_MAPPED, {"seed": str(PROJECT / "seeds" / "queue_by_product.csv")})
        connection.execute(_FIRSTS)
        yield Landed(connection, home.domain.labels)
