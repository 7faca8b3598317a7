"""The figures of an audit: one SQL pass over the staged marts, only aggregates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from assets.as_of import instant
from assets.duck import connect
from assets.warehouse.marts import mart, visible

__all__ = ["Figures", "measure"]


@dataclass(frozen=True)
class Figures:
    """What is about to be published, in numbers."""

    rows: dict[str, int]
    """Rows by mart."""
    landed: int
    valid: int
    quarantined: int
    duplicate: int
    withdrawn: int
    """Records that were withdrawn with their objects, and are in none of the other counts."""
    unbalanced_objects: int
    """Source objects of which landed is not valid + quarantined + duplicate."""
    known: int
    """Records visible as of the as-of date."""
    staleness_days: int | None
    """Days from the newest day of receipt of what is known as of the as-of date to that date; None when none is."""
    label_values: int
    """Versions of records that have something to read a label from."""
    unmapped: int
    """Those of them without a label."""
    label_mix: dict[str, float]
    """Share of each label among those of the newest versions."""
    published_mix: dict[str, float] | None
    """The same of the previous publication; None without one."""
    mix_shift: float | None
    """Total variation distance between this label mix and the previous publication's; None without one."""


def measure(staged: Path, previous: Path | None, as_of: str) -> Figures:
    """Measure the marts in a folder, compared with the folder of the previous publication, if any."""
    with connect() as connection:
        mix = _label_mix(connection, staged)
        published = None if previous is None else _label_mix(connection, previous)
        return Figures(
            rows={
                folder.name: _number(connection, "select count(*) from read_parquet(?)", staged, folder.name)
                for folder in sorted(staged.iterdir())
                if folder.is_dir()
            },
            **_counts(connection, staged),
            known=_number(connection, _KNOWN, staged, "fct_records", instant(as_of)),
            staleness_days=_number(connection, _STALENESS, staged, "fct_records", instant(as_of)),
            label_values=_number(connection, _LABEL_VALUES, staged, "fct_records"),
            unmapped=_number(connection, _UNMAPPED, staged, "fct_records"),
            label_mix=mix,
            published_mix=published,
            mix_shift=None if published is None else _distance(mix, published),
        )


_KNOWN = f"select count(*) from read_parquet($1) records where {visible('records', '$2::timestamp')}"  # noqa: S608

_STALENESS = """
    select date_diff('day', max(received_at), cast($2 as timestamp)) from read_parquet($1)
    where known_at <= cast($2 as timestamp)
"""

_LABEL_VALUES = "select count(*) from read_parquet($1) where label_reason is distinct from 'no-label-yet'"
_UNMAPPED = "select count(*) from read_parquet($1) where label_reason = 'unmapped-label'"

_COUNTS = """
    select
        coalesce(sum(landed), 0)::bigint as landed,
        coalesce(sum(valid), 0)::bigint as valid,
        coalesce(sum(quarantined), 0)::bigint as quarantined,
        coalesce(sum(duplicate), 0)::bigint as duplicate,
        coalesce(sum(withdrawn), 0)::bigint as withdrawn,
        count(*) filter (landed <> valid + quarantined + duplicate) as unbalanced_objects
    from read_parquet($1)
"""

_LABELS = "select label, count(*) from read_parquet($1) where known_until is null group by label order by label"


def _number(connection: duckdb.DuckDBPyConnection, query: str, folder: Path, name: str, *arguments: Any) -> Any:
    row = connection.execute(query, [mart(folder, name), *arguments]).fetchone()
    assert row is not None
    return row[0]


def _counts(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    result = connection.execute(_COUNTS, [mart(folder, "record_counts")])
    names = [column[0] for column in result.description or []]
    return dict(zip(names, result.fetchall()[0], strict=True))


def _label_mix(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, float]:
    counts = dict(connection.execute(_LABELS, [mart(folder, "labels")]).fetchall())
    total = sum(counts.values())
    return {label: count / total for label, count in counts.items()}


def _distance(mix: dict[str, float], other: dict[str, float]) -> float:
    """Half the summed differences of two distributions: the share of labels that would have to change."""
    return sum(abs(mix.get(label, 0.0) - other.get(label, 0.0)) for label in mix.keys() | other.keys()) / 2
