"""The settings of a run: `configs/*.yaml` with a profile on top, validated as a whole.

Each section of `Settings` is one file in `configs/`; a profile in `configs/profiles/` has the same sections and
overrides single fields. A domain in a folder of its own overrides both with its `configs/`. An unknown or impossible
value is a SettingsError that names the file and the field.
"""

from assets.settings.answering import ServingSettings
from assets.settings.data import IngestionSettings, NameHints, SnapshotSettings, WarehouseSettings
from assets.settings.domain import Domain
from assets.settings.environment import EMBEDDED, Environment
from assets.settings.judging import EvaluationSettings, GatePolicy, LedgerSettings
from assets.settings.loading import (
    CONFIGS,
    Settings,
    domain_configs,
    domain_folder,
    load_alert_settings,
    load_domain,
    load_environment,
    load_front_settings,
    load_hints,
    load_ledger_settings,
    load_policy,
    load_serving_settings,
    load_settings,
    profiles,
)
from assets.settings.serving import (
    AlertSettings,
    DriftSettings,
    FrontSettings,
    Precision,
    RetentionSettings,
    RetrainingPolicy,
    ScoringSettings,
)
from assets.settings.training import TrainingSettings

__all__ = [
    "CONFIGS",
    "EMBEDDED",
    "AlertSettings",
    "Domain",
    "DriftSettings",
    "Environment",
    "EvaluationSettings",
    "FrontSettings",
    "GatePolicy",
    "IngestionSettings",
    "LedgerSettings",
    "NameHints",
    "Precision",
    "RetentionSettings",
    "RetrainingPolicy",
    "ScoringSettings",
    "ServingSettings",
    "Settings",
    "SnapshotSettings",
    "TrainingSettings",
    "WarehouseSettings",
    "domain_configs",
    "domain_folder",
    "load_alert_settings",
    "load_domain",
    "load_environment",
    "load_front_settings",
    "load_hints",
    "load_ledger_settings",
    "load_policy",
    "load_serving_settings",
    "load_settings",
    "profiles",
]
