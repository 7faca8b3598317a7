"""Checks the objects that are new since the last publication, each and all together: totals would hide a bad night.

The bounds are those of the whole. A share over its bound counts only when chance alone does not explain it, so that a
few bad records in a small object raise no alarm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assets.duck import connect
from assets.settings import WarehouseSettings
from assets.warehouse.marts import mart

__all__ = ["NewObject", "Problems", "find_problems", "named", "new_objects"]

_CHANCE = 1e-3
"""How likely a share may be at its bound, by the binomial distribution, and still count as over it."""
_SHOWN = 3

_NEW = """
    with counts as (
        select * from read_parquet($counts)
        where landed > 0 and object_id not in (select unnest($published))
    ), records as (
        select object_id, label, count(*) as n from read_parquet($records)
        where object_id in (select object_id from counts) and label_reason is distinct from 'no-label-yet' group by all
    )
    select object_key, landed, quarantined, error, coalesce(sum(n), 0)::bigint,
        coalesce(map_from_entries(list((label, n)) filter (label is not null)), map {})
    from counts left join records using (object_id)
    group by object_id, object_key, landed, quarantined, error order by object_key, object_id
"""


@dataclass(frozen=True)
class NewObject:
    """The counts of a source object, or of all objects of a night together."""

    key: str
    landed: int
    quarantined: int
    error: str | None
    """Why the object, or its end, could not be read."""
    records: int
    """Versions of records that it brought and that have something to read a label from."""
    labels: dict[str, int]
    """Those of them that have one, by label."""

    @property
    def unmapped(self) -> int:
        return self.records - sum(self.labels.values())

    @property
    def refused(self) -> bool:
        return self.error is not None and self.landed == self.quarantined


@dataclass(frozen=True)
class Problems:
    """The objects that break each rule, with their numbers."""

    refused: tuple[str, ...] = ()
    """Read as nothing but a reject."""
    cut_short: tuple[str, ...] = ()
    """Whose end could not be read."""
    quarantined: tuple[str, ...] = ()
    unmapped: tuple[str, ...] = ()
    shifted: tuple[str, ...] = ()
    """Objects whose label mix differs from the published one."""
    of_one_label: tuple[str, ...] = ()


def new_objects(staged: Path, previous: Path | None) -> list[NewObject]:
    """The objects in a folder of marts that the previous publication does not have, except withdrawn ones."""
    with connect() as connection:
        published: list[str] = []
        if previous is not None:
            ids = "select object_id from read_parquet(?)"
            published = [i for (i,) in connection.execute(ids, [mart(previous, "record_counts")]).fetchall()]
        files = {"counts": mart(staged, "record_counts"), "records": mart(staged, "fct_records")}
        parameters = files | {"published": published}
        return [NewObject(*row) for row in connection.execute(_NEW, parameters).fetchall()]


def find_problems(new: Sequence[NewObject], mix: dict[str, float] | None, policy: WarehouseSettings) -> Problems:
    """What is wrong with new objects, each by itself, and together when they follow a publication with a label mix."""
    night = [_together(new)] if mix is not None and len(new) > 1 else []
    judged = [*new, *night]
    labelled = [one for one in judged if sum(one.labels.values()) >= policy.min_object_rows] if mix else []
    return Problems(
        refused=tuple(f"{one.key} ({_code(one)})" for one in new if one.refused),
        cut_short=tuple(f"{one.key} ({_code(one)})" for one in new if one.error is not None and not one.refused),
        quarantined=tuple(
            f"{one.key} ({one.quarantined:,} of {one.landed:,})"
            for one in judged
            if _over(one.quarantined, one.landed, policy.max_quarantined_share, policy)
        ),
        unmapped=tuple(
            f"{one.key} ({one.unmapped:,} of {one.records:,})"
            for one in judged
            if _over(one.unmapped, one.records, policy.max_unmapped_share, policy)
        ),
        shifted=tuple(
            f"{one.key} (distance {shift:.2f} of {sum(one.labels.values()):,} labels)"
            for one in labelled
            if (shift := _distance(one.labels, mix or {})) > policy.max_mix_shift
        ),
        of_one_label=tuple(
            f"{one.key} ({sum(one.labels.values()):,} labels, all {next(iter(one.labels))})"
            for one in labelled
            if len(one.labels) == 1
        ),
    )


def named(problems: Sequence[str]) -> str:
    """The first few, in words."""
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return ", ".join(problems[:_SHOWN]) + more


def _together(new: Sequence[NewObject]) -> NewObject:
    labels = sorted({label for one in new for label in one.labels})
    return NewObject(
        key=f"all {len(new)} new objects together",
        landed=sum(one.landed for one in new),
        quarantined=sum(one.quarantined for one in new),
        error=None,
        records=sum(one.records for one in new),
        labels={label: sum(one.labels.get(label, 0) for one in new) for label in labels},
    )


def _over(hits: int, rows: int, bound: float, policy: WarehouseSettings) -> bool:
    """Whether a share exceeds its bound beyond chance."""
    if rows < policy.min_object_rows or hits <= bound * rows:
        return False
    from scipy.special import bdtrc  # type: ignore[import-untyped]

    return bool(bdtrc(hits - 1, rows, bound) < _CHANCE)


def _distance(labels: dict[str, int], mix: dict[str, float]) -> float:
    """Total variation distance of an object's labels from the published mix."""
    rows = sum(labels.values())
    return sum(abs(labels.get(label, 0) / rows - mix.get(label, 0.0)) for label in labels.keys() | mix.keys()) / 2


def _code(one: NewObject) -> str:
    """The reason without the text that was read: a header may contain anything."""
    return str(one.error).partition(":")[0]
