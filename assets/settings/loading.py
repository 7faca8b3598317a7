"""Reads `configs/`: a profile laid over the sections, and mistakes that name their file and field."""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from assets.exceptions import SettingsError
from assets.settings.data import IngestionSettings, SnapshotSettings, WarehouseSettings
from assets.settings.domain import Domain
from assets.settings.judging import EvaluationSettings, GatePolicy, LedgerSettings
from assets.settings.section import Section
from assets.settings.serving import DriftSettings, RetentionSettings, RetrainingPolicy, ScoringSettings
from assets.settings.training import TrainingSettings

__all__ = ["CONFIGS", "Settings", "load_domain", "load_ledger_settings", "load_policy", "load_settings", "profiles"]

CONFIGS = Path(__file__).parents[2] / "configs"

_Section = TypeVar("_Section", bound=Section)


class Settings(Section):
    """Every setting of a run, by section; the name of a section is the name of its file in `configs/`."""

    ingestion: IngestionSettings
    warehouse: WarehouseSettings
    snapshot: SnapshotSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    gate: GatePolicy
    scoring: ScoringSettings
    drift: DriftSettings
    retraining: RetrainingPolicy
    retention: RetentionSettings


def profiles() -> list[str]:
    """Names of the profiles in `configs/profiles`, sorted."""
    return sorted(path.stem for path in (CONFIGS / "profiles").glob("*.yaml"))


def load_settings(profile: str) -> Settings:
    """The settings of a profile. Raises SettingsError for an unknown profile, section or field."""
    if profile not in profiles():
        raise SettingsError(f"unknown profile {profile!r}; configs/profiles has {', '.join(profiles())}")
    overrides = _read(CONFIGS / "profiles" / f"{profile}.yaml")
    if unknown := sorted(set(overrides) - set(Settings.model_fields)):
        raise SettingsError(f"configs/profiles/{profile}.yaml: unknown section {unknown[0]!r}")
    sections = {name: _read(CONFIGS / f"{name}.yaml") | overrides.get(name, {}) for name in Settings.model_fields}
    try:
        settings = Settings.model_validate(sections)
    except ValidationError as error:
        raise SettingsError(_explain(error, profile, overrides)) from None
    _check_costs(settings)
    return settings


def load_ledger_settings() -> LedgerSettings:
    """`configs/ledger.yaml`. Raises SettingsError for an unknown or impossible field."""
    return _load(LedgerSettings, CONFIGS / "ledger.yaml")


def load_domain() -> Domain:
    """`configs/domain.yaml`, whatever the profile. Raises SettingsError for an unknown or impossible field."""
    return _domain(CONFIGS)


@cache
def _domain(configs: Path) -> Domain:
    return _load(Domain, configs / "domain.yaml")


def load_policy(name: str) -> RetrainingPolicy:
    """configs/retraining.yaml under the changes of a file, or of one in configs/policies by its name alone.

    Raises SettingsError for a file that cannot be read and for an unknown or impossible field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / "policies" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONFIGS / "policies").glob("*.yaml")))
        raise SettingsError(f"no policy {name!r}: name a YAML file, or one of configs/policies: {known}")
    try:
        return RetrainingPolicy.model_validate(_read(CONFIGS / "retraining.yaml") | _read(path))
    except ValidationError as error:
        raise SettingsError(_first(error, path)) from None


def _load(section: type[_Section], path: Path) -> _Section:
    try:
        return section.model_validate(_read(path))
    except ValidationError as error:
        raise SettingsError(_first(error, path)) from None


def _check_costs(settings: Settings) -> None:
    costs, labels = settings.gate.costs, load_domain().labels
    if unknown := {name for true, answers in costs.items() for name in (true, *answers)} - set(labels):
        found = f"{sorted(unknown)[0]!r} is no label; configs/domain.yaml has {', '.join(labels)}"
        raise SettingsError(f"configs/gate.yaml: gate.costs: {found}")


def _first(error: ValidationError, path: Path) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "[key]")
    what = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing" or not field:  # what was found is all of the file
        return f"{_named(path)}: {field}: {what}" if field else f"{_named(path)}: {what}"
    return f"{_named(path)}: {field}: {what[0].lower()}{what[1:]} (found {first['input']!r})"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{_named(path)}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{_named(path)}: expected fields, found {type(content).__name__}")
    return content


def _named(path: Path) -> str:
    """What people call a file: those of the project by their place in it."""
    return f"configs/{path.relative_to(CONFIGS)}" if path.is_relative_to(CONFIGS) else str(path)


def _explain(error: ValidationError, profile: str, overrides: dict[str, Any]) -> str:
    first = error.errors()[0]
    section, *field = [str(part) for part in first["loc"]]
    overridden = bool(field) and field[0] in overrides.get(section, {})
    file = f"profiles/{profile}.yaml" if overridden else f"{section}.yaml"
    what = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"].lower()
    return f"configs/{file}: {'.'.join([section, *field])}: {what} (found {first['input']!r})"
