"""The asset `raw_complaints`: what the sources hold, read once, and its blocking conservation check."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from assets.exceptions import EvergreenError
from assets.ingestion.landing import Imbalance, Landing, find_imbalances, ingest
from assets.ingestion.sources import UnreachableError, configured_sources
from assets.resources import Evergreen

__all__ = ["IngestionConfig", "raw_complaints"]

_SHOWN_OBJECTS = 20


class IngestionConfig(dg.Config):
    """Where complaint records come from."""

    sources: list[str] = Field(
        default=[],
        description=(
            "Local files, folders or s3://bucket/prefix, holding the bureau's CSV export (plain or .gz) or Parquet. "
            "When empty: the environment variable EVERGREEN_SOURCES, separated by blanks or commas."
        ),
    )


@dg.asset(
    group_name="ingestion",
    kinds={"python", "parquet", "s3"},
    owners=["team:evergreen"],
    retry_policy=dg.RetryPolicy(max_retries=1, delay=2),
    check_specs=[
        dg.AssetCheckSpec(
            "conservation",
            asset="raw_complaints",
            blocking=True,
            description="For each object, published records and rejects add up to what the reader counted as landed.",
        )
    ],
)
def raw_complaints(config: IngestionConfig, evergreen: Evergreen) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per source record, all text, with its object and line; what is no record lies beside it as rejects.

    Each object is read once, by key and content hash; nothing new publishes nothing.
    """
    sources = config.sources or configured_sources()
    if not sources:
        raise dg.Failure("no source: set `sources` of raw_complaints or EVERGREEN_SOURCES", allow_retries=False)
    try:
        landing = ingest(sources, evergreen.home.lake, evergreen.settings.ingestion)
    except UnreachableError:
        raise
    except EvergreenError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    return dg.MaterializeResult(
        metadata=_metadata(landing), check_results=[_conservation(landing, find_imbalances(landing.path))]
    )


def _conservation(landing: Landing, imbalances: Sequence[Imbalance]) -> dg.AssetCheckResult:
    rows = [[i.key, i.landed, i.records, i.rejects] for i in imbalances]
    return dg.AssetCheckResult(
        check_name="conservation",
        passed=not imbalances,
        metadata={
            "landed": landing.landed,
            "objects": len(landing.objects),
            "imbalances": dg.MetadataValue.md(_table(["object", "landed", "records", "rejects"], rows)),
        },
    )


def _metadata(landing: Landing) -> dict[str, Any]:
    shown = landing.objects[-_SHOWN_OBJECTS:]
    objects = [[r.key, r.bytes, r.landed, r.records, r.rejects, r.error or ""] for r in shown]
    heads = ["object", "bytes", "landed", "records", "rejects", "error"]
    return {
        "dagster/row_count": landing.records,
        "landed": landing.landed,
        "records": landing.records,
        "rejects": landing.rejects,
        "new_objects": landing.new_objects,
        "reasons": dg.MetadataValue.md(_table(["reason", "rejects"], [list(item) for item in landing.reasons.items()])),
        "objects": dg.MetadataValue.md(_table(heads, objects)),
        "version": landing.version,
        "path": dg.MetadataValue.path(landing.path),
    }


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "none"
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
