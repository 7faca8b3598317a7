"""The asset `raw_records`: what the sources hold, read once, and its blocking conservation check."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import dagster as dg
from pydantic import Field

from assets.exceptions import EvergreenError
from assets.ingestion.forgotten import Forgotten
from assets.ingestion.landing import Imbalance, Landing, ObjectRead, find_imbalances, ingest
from assets.ingestion.served import drop_read, land, served_sources
from assets.ingestion.sources import configured_sources
from assets.ingestion.tables import objects_table, refused_table
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, table
from assets.s3 import UnreachableError

__all__ = ["IngestionConfig", "raw_records"]

_SHOWN_OBJECTS = 20


class IngestionConfig(dg.Config):
    """Where records come from."""

    sources: list[str] = Field(
        default=configured_sources(),
        description=(
            "Local files, folders or s3://bucket/prefix, with CSV or JSON Lines (plain, .gz, .zst, .zip) or "
            "Parquet, as configs/domain.yaml declares the fields. When empty: those in EVERGREEN_SOURCES, separated by "
            "blanks or commas, or without it the home's simulated records."
        ),
    )
    history: bool = Field(
        default=False,
        description=(
            "Whether the sources' objects, new ones and those read before, are history: known by their records' dates, "
            "not from the day they land. The first landing is, unless `published_in_key` is set."
        ),
    )


@dg.asset(
    group_name="ingestion",
    pool="ingestion",
    kinds={"python", "parquet", "s3"},
    owners=["team:evergreen"],
    partitions_def=AS_OF,
    check_specs=[
        dg.AssetCheckSpec(
            "conservation",
            asset="raw_records",
            blocking=True,
            description="For each object, published records and rejects add up to what the reader counted as landed.",
        ),
        dg.AssetCheckSpec(
            "sources_only_grow",
            asset="raw_records",
            description="No object was overwritten or deleted since the last run; its records are kept.",
        ),
    ],
)
def raw_records(context: dg.AssetExecutionContext, config: IngestionConfig, evergreen: Evergreen) -> Concluded:
    """One row per source record, all text, with its object and line; pieces that are no record are kept as rejects.

    Each object is read once, by key and content hash; nothing new publishes nothing.
    """
    sources = config.sources or configured_sources()
    if not sources:
        raise dg.Failure("no source: set `sources` of raw_records or EVERGREEN_SOURCES", allow_retries=False)
    try:
        evergreen.home.claim()
        home, settings = evergreen.home, evergreen.settings.ingestion
        land(home)
        where = ([*sources, *served_sources(home)], home.lake, settings, home.domain, as_of(context))
        landing = ingest(*where, history=config.history, forgotten=Forgotten.read(home))
        drop_read(home)
    except UnreachableError as error:
        # Not a retry policy: it would also restart a run that was asked to stop.
        raise dg.RetryRequested(max_retries=1, seconds_to_wait=2) from error
    except EvergreenError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if landing.new:
        context.log.info(_arrival(landing.new))
    yield from concluded(
        context, _metadata(landing), [_conservation(landing, find_imbalances(landing.path)), _growth(landing)]
    )


def _arrival(new: Sequence[ObjectRead]) -> str:
    """One line for the person who runs it: how many objects are new, and from when they are known."""
    dated = [read.known_from for read in new if read.known_from is not None]
    line = f"{len(new)} new object{'s' if len(new) > 1 else ''}: "
    if dated:
        days = min(dated) if min(dated) == max(dated) else f"{min(dated)} to {max(dated)}"
        line += f"{len(dated)} known from {days} (is it old history, known by its own dates? run with --history)"
    if len(dated) < len(new):
        line += f"{', ' if dated else ''}{len(new) - len(dated)} taken as history, each record known by its own date"
    return line


def _conservation(landing: Landing, imbalances: Sequence[Imbalance]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="conservation",
        passed=not imbalances,
        metadata={
            "landed": landing.landed,
            "objects": len(landing.objects),
            "imbalances": table(["object", "landed", "records", "rejects"], map(astuple, imbalances)),
        },
    )


def _growth(landing: Landing) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="sources_only_grow",
        passed=not (landing.overwritten or landing.deleted),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"overwritten": list(landing.overwritten), "deleted": list(landing.deleted)},
    )


def _metadata(landing: Landing) -> dict[str, Any]:
    return {
        "dagster/row_count": landing.records,
        "landed": landing.landed,
        "records": landing.records,
        "rejects": landing.rejects,
        "new_objects": len(landing.new),
        "reasons": table(["reason", "rejects"], landing.reasons.items()),
        "objects": table(*objects_table(landing, _SHOWN_OBJECTS)),
        "refused_objects": table(*refused_table(landing, _SHOWN_OBJECTS)),
        "not_read": list(landing.not_read[:_SHOWN_OBJECTS]),
        "version": landing.version,
        "path": dg.MetadataValue.path(landing.path),
    }
