"""The simulated world and its scenarios: world.yaml, and the resolutions that the domain's seed maps to teams."""

import csv
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from assets.exceptions import SettingsError

__all__ = ["Scenario", "Settings", "Team", "load_resolutions", "load_settings", "load_words"]

_HERE = Path(__file__).parent


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Team(_Section):
    weight: float
    hours: float


class Product(_Section):
    weight: float
    raises: dict[str, float]


class Scenario(_Section):
    """What is different from the day of change on."""

    description: str
    change_at: float | None = Field(default=None, ge=0, le=1)
    new_words: dict[str, float] = {}
    """The share of each team's tickets in new words."""
    launched: dict[str, float] = {}
    """The share of tickets about each new product."""
    handed_over: dict[str, str] = {}
    """The team that takes over each team's work."""
    german: float | None = None

    def change(self, start: date, end: date) -> date | None:
        """The first day after the change, in a range of days (both ends included); None for no change."""
        if self.change_at is None:
            return None
        return start + timedelta(days=round(self.change_at * ((end - start).days + 1)))


class Settings(_Section):
    weekdays: tuple[float, ...]
    hours: tuple[float, ...]
    customers: int
    customer_power: float
    german: float
    plans: dict[str, float]
    channels: dict[str, float]
    zones: dict[str, float]
    vague: float
    vague_subject: float
    aside: float
    detail: float
    misfiled: float
    corrected: float
    unmapped: float
    unresolved: float
    spread: float
    max_days: int
    renamed: date
    dirt: dict[str, float]
    teams: dict[str, Team]
    products: dict[str, Product]
    scenarios: dict[str, Scenario]

    def scenario(self, name: str) -> Scenario:
        """A scenario by name. Raises SettingsError."""
        if name not in self.scenarios:
            raise SettingsError(f"unknown scenario {name!r}; simulation/world.yaml has {', '.join(self.scenarios)}")
        return self.scenarios[name]


@cache
def load_settings() -> Settings:
    return Settings.model_validate(yaml.safe_load((_HERE / "world.yaml").read_text()))


@cache
def load_words() -> dict[str, Any]:
    """The texts of tickets, by language."""
    words: dict[str, Any] = yaml.safe_load((_HERE / "words.yaml").read_text())
    return words


@cache
def load_resolutions() -> dict[str, list[tuple[str, str]]]:
    """The areas and kinds of each team's resolutions."""
    resolutions: dict[str, list[tuple[str, str]]] = {}
    with (_HERE.parent / "dbt" / "seeds" / "team_by_resolution.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            resolutions.setdefault(row["team"], []).append((row["area"], row["kind"]))
    return resolutions
