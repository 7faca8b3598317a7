"""Reads `configs/`: the sections, overridden by a profile and a domain's own settings; errors name file and field."""

import os
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from assets.exceptions import SettingsError
from assets.settings.answering import ServingSettings
from assets.settings.data import IngestionSettings, NameHints, SnapshotSettings, WarehouseSettings
from assets.settings.domain import Domain
from assets.settings.environment import Environment
from assets.settings.judging import EvaluationSettings, GatePolicy, LedgerSettings
from assets.settings.section import Section
from assets.settings.serving import (
    AlertSettings,
    DriftSettings,
    FrontSettings,
    RetentionSettings,
    RetrainingPolicy,
    ScoringSettings,
)
from assets.settings.training import TrainingSettings

__all__ = [
    *("CONFIGS", "Settings", "domain_configs", "domain_folder"),
    *("load_alert_settings", "load_domain", "load_environment", "load_front_settings", "load_hints"),
    *("load_ledger_settings", "load_policy", "load_serving_settings", "load_settings", "profiles"),
]

CONFIGS = Path(__file__).parents[2] / "configs"

_Section = TypeVar("_Section", bound=Section)


class Settings(Section):
    """Every setting of a run, by section; each section is named after its file in `configs/`."""

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


def domain_folder() -> Path:
    """`EVERGREEN_DOMAIN`, or the project itself, which is also a domain."""
    return Path(os.environ.get("EVERGREEN_DOMAIN") or CONFIGS.parent).absolute()


def domain_configs() -> Path:
    """The domain's own `configs/`, with domain.yaml and settings that differ from the project's."""
    return domain_folder() / "configs" if os.environ.get("EVERGREEN_DOMAIN") else CONFIGS


def profiles() -> list[str]:
    """The names of the profiles in `configs/profiles`, sorted."""
    return sorted({path.stem for folder in _layers() for path in (folder / "profiles").glob("*.yaml")})


def load_settings(profile: str) -> Settings:
    """The settings of a profile. Raises SettingsError for an unknown profile, section or field."""
    if profile not in profiles():
        raise SettingsError(f"unknown profile {profile!r}; configs/profiles has {', '.join(profiles())}")
    overrides: dict[str, dict[str, Any]] = {}
    for path in _existing(f"profiles/{profile}.yaml"):
        fields = _read(path)
        if unknown := sorted(set(fields) - set(Settings.model_fields)):
            raise SettingsError(f"{_named(path)}: unknown section {unknown[0]!r}")
        overrides = _merged(Settings, overrides, fields)
    sections = _merged(
        Settings, {name: _section(f"{name}.yaml", inner) for name, inner in _inner(Settings).items()}, overrides
    )
    try:
        settings = Settings.model_validate(sections)
    except ValidationError as error:
        raise SettingsError(_explain(error, profile)) from None
    _check_labels(settings)
    return settings


def load_ledger_settings() -> LedgerSettings:
    """`configs/ledger.yaml`. Raises SettingsError for an unknown or impossible field."""
    return _validated(LedgerSettings, _section("ledger.yaml", LedgerSettings), CONFIGS / "ledger.yaml")


def load_front_settings() -> FrontSettings:
    """`configs/front.yaml`. Raises SettingsError for an unknown or impossible field."""
    return _validated(FrontSettings, _section("front.yaml", FrontSettings), CONFIGS / "front.yaml")


def load_alert_settings() -> AlertSettings:
    """`configs/alerts.yaml`. Raises SettingsError for an unknown or impossible field."""
    return _validated(AlertSettings, _section("alerts.yaml", AlertSettings), CONFIGS / "alerts.yaml")


def load_serving_settings() -> ServingSettings:
    """`configs/serving.yaml`. Raises SettingsError for an unknown or impossible field."""
    return _validated(ServingSettings, _section("serving.yaml", ServingSettings), CONFIGS / "serving.yaml")


def load_hints() -> NameHints:
    """`configs/onboarding.yaml`. Raises SettingsError for an unknown or impossible field."""
    return _validated(NameHints, _section("onboarding.yaml", NameHints), CONFIGS / "onboarding.yaml")


def load_domain() -> Domain:
    """The domain's `configs/domain.yaml`, for every profile. Raises SettingsError for an impossible field."""
    return _domain(domain_configs() / "domain.yaml")


@cache
def _domain(path: Path) -> Domain:
    return _validated(Domain, _read(path), path)


def load_environment() -> Environment:
    """The environment that `EVERGREEN_ENVIRONMENT` names, `local` without it, with the variables that replace values.

    Raises SettingsError for an unknown environment, and for an impossible field, whose value may be a secret.
    """
    variables = {name: os.environ.get(f"EVERGREEN_{name.upper()}") for name in Environment.model_fields}
    replaced = tuple((name, value) for name, value in variables.items() if value)
    return _environment(os.environ.get("EVERGREEN_ENVIRONMENT") or "local", replaced)


@cache
def _environment(name: str, replaced: tuple[tuple[str, str], ...]) -> Environment:
    known = {path.stem: path for path in sorted((CONFIGS / "environments").glob("*.yaml"))}
    if name not in known:
        raise SettingsError(f"EVERGREEN_ENVIRONMENT: no {name!r} in configs/environments; it has {', '.join(known)}")
    try:
        return Environment.model_validate(_read(known[name]) | dict(replaced))
    except ValidationError as error:
        raise SettingsError(_mistake(error, known[name], error.errors()[0]["loc"], hides=True)) from None


def load_policy(name: str) -> RetrainingPolicy:
    """configs/retraining.yaml with the changes of a file, or of one in configs/policies by its name alone.

    Raises SettingsError for a file that cannot be read and for an unknown or impossible field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / "policies" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONFIGS / "policies").glob("*.yaml")))
        raise SettingsError(f"no policy {name!r}: name a YAML file, or one of configs/policies: {known}")
    return _validated(RetrainingPolicy, _section("retraining.yaml", RetrainingPolicy) | _read(path), path)


def _merged(section: type[Section], base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Fields with some overridden, also in the sections inside a section."""
    fields = base | overrides
    for name, inner in _inner(section).items():
        if isinstance(base.get(name), dict) and isinstance(overrides.get(name), dict):
            fields[name] = _merged(inner, base[name], overrides[name])
    return fields


def _inner(section: type[Section]) -> dict[str, type[Section]]:
    """The fields that are sections themselves."""
    types = {name: field.annotation for name, field in section.model_fields.items()}
    return {name: kind for name, kind in types.items() if isinstance(kind, type) and issubclass(kind, Section)}


def _layers() -> tuple[Path, ...]:
    """The folders of the project's settings and of the domain's own, which override them."""
    return (CONFIGS,) if domain_configs() == CONFIGS else (CONFIGS, domain_configs())


def _existing(name: str) -> list[Path]:
    return [folder / name for folder in _layers() if (folder / name).exists()]


def _section(name: str, section: type[Section]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for path in _existing(name):
        fields = _merged(section, fields, _read(path))
    return fields


def _validated(section: type[_Section], fields: dict[str, Any], path: Path) -> _Section:
    try:
        return section.model_validate(fields)
    except ValidationError as error:
        raise SettingsError(_mistake(error, path, error.errors()[0]["loc"])) from None


def _check_labels(settings: Settings) -> None:
    gate, labels = settings.gate, load_domain().labels
    named = {"costs": {name for true, answers in gate.costs.items() for name in (true, *answers)}}
    named["decided_by"] = {label for name in gate.decided_by if (label := name.partition(":")[2])}
    for field, names in named.items():
        if unknown := sorted(names - set(labels)):
            fault = f"{unknown[0]!r} is not a label; configs/domain.yaml has {', '.join(labels)}"
            raise SettingsError(f"configs/gate.yaml: gate.{field}: {fault}")


def _mistake(error: ValidationError, path: Path, place: tuple[int | str, ...], *, hides: bool = False) -> str:
    """The first mistake on one line: its file, its field, what is wrong and, unless it is a section, the value.

    `hides`: the value is not shown.
    """
    first = error.errors()[0]
    field = ".".join(str(part) for part in place if part != "[key]")
    if isinstance(first["input"], bool) and first["type"] == "string_type":
        return f"{_named(path)}: {field}: write it in quotes: YAML takes yes, no, on and off for {first['input']}"
    what = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    where = f"{_named(path)}: {field}" if field else _named(path)
    if hides or first["type"] == "missing" or isinstance(first["input"], dict):
        return f"{where}: {what}"
    return f"{where}: {what[0].lower()}{what[1:]} (found {first['input']!r})"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{_named(path)}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{_named(path)}: expected fields, found {type(content).__name__}")
    return content


def _named(path: Path) -> str:
    """A file's name for messages: relative for a file of the project."""
    return f"configs/{path.relative_to(CONFIGS)}" if path.is_relative_to(CONFIGS) else str(path)


def _explain(error: ValidationError, profile: str) -> str:
    """The first mistake, in the last of the files that set its field."""
    section, *field = map(str, error.errors()[0]["loc"])
    layers = [(path, _read(path).get(section, {})) for path in _existing(f"profiles/{profile}.yaml")]
    layers = [*((path, _read(path)) for path in _existing(f"{section}.yaml")), *layers]
    path, _ = max(reversed(layers), key=lambda layer: _depth(layer[1], field)) if field else layers[0]
    return _mistake(error, path, (section, *field))


def _depth(fields: Any, field: list[str]) -> int:
    """How many of the names on the way to a field exist."""
    if not field or not isinstance(fields, dict) or field[0] not in fields:
        return 0
    return 1 + _depth(fields[field[0]], field[1:])
