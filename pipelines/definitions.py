"""The only loader: every stage's definitions, the jobs, schedules and sensors, and the resources they use."""

import dagster as dg

from assets import logs
from assets.evaluation import definitions as evaluation
from assets.features import definitions as features
from assets.ingestion import definitions as ingestion
from assets.monitoring import definitions as monitoring
from assets.registry import definitions as registry
from assets.retention import definitions as retention
from assets.scoring import definitions as scoring
from assets.settings import load_settings
from assets.training import definitions as training
from assets.validation import definitions as validation
from assets.warehouse import definitions as warehouse
from pipelines.failures import say_why_interrupted
from pipelines.freshness import promise
from pipelines.jobs import JOBS, settle
from pipelines.resources import PROFILE, resources
from pipelines.schedules import nightly
from pipelines.sensors import SENSORS

__all__ = ["defs"]

SETTINGS = load_settings(PROFILE)

STAGES = [ingestion, warehouse, validation, features, training, evaluation, registry, scoring, monitoring, retention]

logs.begin()
say_why_interrupted()

defs = dg.Definitions(
    assets=promise(dg.load_assets_from_modules(STAGES), SETTINGS.retraining.max_age_days),  # type: ignore[arg-type]
    asset_checks=dg.load_asset_checks_from_modules(STAGES),
    jobs=[*JOBS, settle],
    schedules=[nightly],
    sensors=SENSORS,
    resources=resources(PROFILE),
    executor=dg.in_process_executor,
)
