"""The whole graph and its parts, as jobs that take an as-of date as their partition."""

import dagster as dg

__all__ = ["JOBS", "observe", "refresh", "retrain"]

_DATA = dg.AssetSelection.groups("ingestion", "warehouse", "validation")
_MODEL = dg.AssetSelection.groups("training", "evaluation", "registry") | dg.AssetSelection.assets(
    "feature_definitions", "training_set"
)
_SERVE = dg.AssetSelection.groups("scoring", "monitoring") | dg.AssetSelection.assets(
    "feature_definitions", "online_features"
)

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all(),
    description="The whole graph: from the sources to a gated champion, its predictions and the next decision.",
)
observe = dg.define_asset_job(
    "observe",
    selection=_DATA | _SERVE,
    description="Everything but training: read new data, score it with the champion, and decide whether to retrain.",
)
retrain = dg.define_asset_job(
    "retrain",
    selection=_MODEL,
    description="A training set, a challenger, its evaluation and the gate, on the data that is published.",
)
ingest = dg.define_asset_job(
    "ingest",
    selection=_DATA,
    description="Read new source objects and publish audited marts.",
)
score = dg.define_asset_job(
    "score",
    selection=_SERVE,
    description="Score the newest complaints with the champion and watch for drift.",
)

JOBS = [refresh, observe, retrain, ingest, score]
