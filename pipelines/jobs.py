"""The whole graph and its parts, as jobs that take an as-of date as their partition."""

from typing import Literal

import dagster as dg
from dagster._core.storage.tags import RETRY_STRATEGY_TAG  # dagster exports what reads it, but not this
from pydantic import Field

from assets.resources import Evergreen

__all__ = ["JOBS", "observe", "refresh", "retrain", "settle"]

_DATA = dg.AssetSelection.groups("ingestion", "warehouse", "validation")
_MODEL = dg.AssetSelection.groups("training", "evaluation", "registry") | dg.AssetSelection.assets(
    "feature_definitions", "training_set"
)
_CLEAN = dg.AssetSelection.groups("retention")
_SERVE = dg.AssetSelection.groups("scoring", "monitoring") | dg.AssetSelection.assets(
    "feature_definitions", "online_features"
)

_AGAIN = {RETRY_STRATEGY_TAG: "ALL_STEPS"}
"""A run whose process died is launched again as a whole: another may have published in between, and what this one has
published is not made twice."""

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all(),
    tags=_AGAIN,
    description="The whole graph: from the sources to a gated champion, its predictions and the next decision.",
)
observe = dg.define_asset_job(
    "observe",
    selection=_DATA | _SERVE | _CLEAN,
    tags=_AGAIN,
    description="Everything except training: read new data, score it with the champion, decide whether to retrain, "
    "and remove what nothing needs.",
)
retrain = dg.define_asset_job(
    "retrain",
    selection=_MODEL,
    tags=_AGAIN,
    description="A training set, a challenger, its evaluation and the gate, on the published data.",
)
ingest = dg.define_asset_job(
    "ingest",
    selection=_DATA,
    tags=_AGAIN,
    description="Read new source objects and publish audited marts.",
)
score = dg.define_asset_job(
    "score",
    selection=_SERVE,
    tags=_AGAIN,
    description="Score the newest records with the champion and watch for drift.",
)

JOBS = [refresh, observe, retrain, ingest, score]


class Settlement(dg.Config):
    """A person's decision on a version that awaits approval. What is left empty is refused."""

    version: str = Field("", description="A version that awaits approval.")
    decision: Literal["approve", "reject"] = Field("approve", description="Whether it becomes the champion, or never.")
    by: str = Field("", description="Who decides; recorded in the ledger.")
    reason: str = Field("", description="Why; recorded in the ledger.")


@dg.op
def settle_version(context: dg.OpExecutionContext, config: Settlement, evergreen: Evergreen) -> None:
    """Approve or reject, and log who is champion then."""
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    succession = Succession(Registry(evergreen.home))
    champion = succession.settle(config.version, config.decision, config.by, config.reason)
    context.log.info(f"version {champion.version} is the champion" if champion else "there is no champion yet")


@dg.job(description="Approve or reject a version that awaits it (approval: required in configs/gate.yaml).")
def settle() -> None:
    settle_version()
