"""The only loader: every stage's definitions, the jobs, schedules and sensors, and the resources they use."""

from datetime import timedelta

import dagster as dg

from assets.evaluation import definitions as evaluation
from assets.features import definitions as features
from assets.ingestion import definitions as ingestion
from assets.monitoring import definitions as monitoring
from assets.registry import definitions as registry
from assets.scoring import definitions as scoring
from assets.training import definitions as training
from assets.validation import definitions as validation
from assets.warehouse import definitions as warehouse
from pipelines.jobs import JOBS, settle
from pipelines.resources import resources
from pipelines.schedules import nightly
from pipelines.sensors import SENSORS

__all__ = ["defs"]

# The nightly run keeps everything a day old at most: the UI warns after one missed night and fails after two.
FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=60), warn_window=timedelta(hours=36))

STAGES = [ingestion, warehouse, validation, features, training, evaluation, registry, scoring, monitoring]


def _fresh(spec: dg.AssetSpec) -> dg.AssetSpec:
    return spec.replace_attributes(freshness_policy=FRESHNESS)


defs = dg.Definitions(
    assets=dg.map_asset_specs(_fresh, dg.load_assets_from_modules(STAGES)),  # type: ignore[arg-type]
    asset_checks=dg.load_asset_checks_from_modules(STAGES),
    jobs=[*JOBS, settle],
    schedules=[nightly],
    sensors=SENSORS,
    resources=resources(),
    executor=dg.in_process_executor,
)
