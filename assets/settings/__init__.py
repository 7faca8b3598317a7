"""What a run can be told: `configs/*.yaml`, with a profile laid over them, validated as a whole.

Each section of `Settings` is one file in `configs/`; a profile in `configs/profiles/` holds the same sections and
overrides single fields. A domain of its own folder lays its `configs/` over both. An unknown or impossible value is a
SettingsError that names the file and the field.
"""

from assets.settings.data import IngestionSettings, NameHints, SnapshotSettings, WarehouseSettings
from assets.settings.domain import Domain
from assets.settings.judging import EvaluationSettings, GatePolicy, LedgerSettings
from assets.settings.loading import (
    CONFIGS,
    Settings,
    domain_configs,
    domain_folder,
    load_domain,
    load_hints,
    load_ledger_settings,
    load_policy,
    load_settings,
    profiles,
)
from assets.settings.serving import DriftSettings, Precision, RetentionSettings, RetrainingPolicy, ScoringSettings
from assets.settings.training import TrainingSettings

__all__ = [
    "CONFIGS",
    "Domain",
    "DriftSettings",
    "EvaluationSettings",
    "GatePolicy",
    "IngestionSettings",
    "LedgerSettings",
    "NameHints",
    "Precision",
    "RetentionSettings",
    "RetrainingPolicy",
    "ScoringSettings",
    "Settings",
    "SnapshotSettings",
    "TrainingSettings",
    "WarehouseSettings",
    "domain_configs",
    "domain_folder",
    "load_domain",
    "load_hints",
    "load_ledger_settings",
    "load_policy",
    "load_settings",
    "profiles",
]
