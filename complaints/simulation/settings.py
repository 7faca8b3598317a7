"""The settings of the simulator: `configs/simulator.yaml`."""

from datetime import date, timedelta
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from assets.exceptions import SettingsError
from assets.settings import CONFIGS
from complaints import QUEUES

__all__ = ["DirtSettings", "Scenario", "SimulatorSettings", "TextSettings", "load_simulator_settings"]

_FILE = "configs/simulator.yaml"

Share = Field(ge=0, le=1)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TextSettings(_Section):
    """Shares of narratives, unless stated otherwise."""

    form_letter_share: float = Share
    identical_letter_share: float = Share
    """The share of form letters that are identical copies."""
    settled_share: float = Share
    """Narratives that also describe in full what another queue handles, and say that it is settled or irrelevant."""
    mention_share: float = Share
    """Narratives that mention another queue's actor or product in passing."""
    opening_share: float = Share
    closing_share: float = Share
    long_share: float = Share
    """Narratives with many more sentences of detail, most above 150 words."""
    typo_share: float = Share
    lower_case_share: float = Share

    @model_validator(mode="after")
    def _fits(self) -> "TextSettings":
        if self.settled_share + self.mention_share > 1:
            raise ValueError("settled_share and mention_share together exceed 1")
        return self


class DirtSettings(_Section):
    """Shares of records with each fault; a record has at most one."""

    broken_quote: float = Share
    not_utf8: float = Share
    too_few_fields: float = Share
    too_many_fields: float = Share
    impossible_date: float = Share
    empty_complaint_id: float = Share
    duplicate: float = Share
    """The same row again, up to `max_delay_days` later."""
    changed_version: float = Share
    """The same complaint again, up to `max_delay_days` later, with another product and response."""
    missing_state: float = Share
    lost_zero: float = Share
    """The ZIP code's leading zero is lost."""
    unmapped_product: float = Share

    @model_validator(mode="after")
    def _fits(self) -> "DirtSettings":
        if sum(self.model_dump().values()) > 1:
            raise ValueError("the shares together exceed 1")
        return self


class Scenario(_Section):
    """What changes on one date of the simulated range, gradually or in some months; all else stays the same."""

    description: str
    change_at: float | None = Field(default=None, ge=0, le=1)
    """The date of change, as a share of the simulated range."""
    change_on: date | None = None
    """The date of change; it replaces `change_at`."""
    change_days: int = Field(default=0, ge=0)
    """Days over which the change happens, evenly; 0 for all of it on its date."""
    months: tuple[int, ...] = ()
    """Months (1 to 12) of every year in which the change applies; if empty, it is permanent."""
    vocabulary_share: float = Field(default=0, ge=0, le=1)
    """Share of the narratives of `vocabulary_queues` in new words after the change."""
    vocabulary_queues: tuple[str, ...] = ()
    vocabulary_companies: int = Field(default=0, ge=0)
    """Only narratives about this many of the largest companies are in the new words; 0 for all companies."""
    swapped_queues: tuple[tuple[str, str], ...] = ()
    """Pairs of queues: what is filed under one before the change is filed under the other after it."""
    queue_mix: dict[str, float] | None = None
    """The weights of the queues after the change; None leaves them unchanged."""
    company_churn: float = Field(default=0, ge=0, le=1)
    """Share of companies that swap their volumes with one another at the change."""
    newest_taxonomy: bool = False
    """The newest product names apply from the change on, instead of from 2023-08-25."""
    lost_columns: tuple[Literal["Consumer consent provided?", "Consumer disputed?"], ...] = ()
    """Columns that a file lacks if its month ends on or after the date of change."""

    @field_validator("vocabulary_queues")
    @classmethod
    def _known(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        return _only_queues(queues)

    @field_validator("swapped_queues")
    @classmethod
    def _apart(cls, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        names = _only_queues(tuple(queue for pair in pairs for queue in pair))
        if len(set(names)) < len(names):
            raise ValueError("a queue can be swapped once")
        return pairs

    @field_validator("months")
    @classmethod
    def _in_a_year(cls, months: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [month for month in months if not 1 <= month <= 12]:
            raise ValueError(f"there is no month {wrong[0]}")
        return months

    @field_validator("queue_mix")
    @classmethod
    def _whole(cls, mix: dict[str, float] | None) -> dict[str, float] | None:
        return mix if mix is None else _weights(mix)

    def change(self, start: date, end: date) -> date | None:
        """The first day after the change within a range of days (both ends included); None for no change."""
        if self.change_on is not None or self.change_at is None:
            return self.change_on
        return start + timedelta(days=round(self.change_at * ((end - start).days + 1)))


class SimulatorSettings(_Section):
    """The simulated world, its dirt, and the scenarios by name."""

    narrative_share: float = Share
    """Share of records whose consumer consented to publish the narrative."""
    label_noise: float = Share
    """Share of records filed under another queue's product."""
    max_delay_days: int = Field(ge=1, le=28)
    """Duplicates and changed versions follow within this many days."""
    companies: int = Field(ge=9, le=200)
    company_noise: float = Field(ge=0, le=1)
    """Share of a company's complaints that does not follow its line of business."""
    queue_mix: dict[str, float]
    """The weights of the queues."""
    text: TextSettings
    dirt: DirtSettings
    scenarios: dict[str, Scenario]

    @field_validator("queue_mix")
    @classmethod
    def _whole(cls, mix: dict[str, float]) -> dict[str, float]:
        return _weights(mix)

    def scenario(self, name: str) -> Scenario:
        """A scenario by name. Raises SettingsError."""
        if name not in self.scenarios:
            raise SettingsError(f"unknown scenario {name!r}; {_FILE} has {', '.join(self.scenarios)}")
        return self.scenarios[name]


def load_simulator_settings() -> SimulatorSettings:
    """The settings in configs/simulator.yaml. Raises SettingsError, naming the field."""
    try:
        content: Any = yaml.safe_load((CONFIGS / "simulator.yaml").read_text())
        return SimulatorSettings.model_validate(content)
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{_FILE}: cannot be read: {error}") from None
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    unknown = [e for e in error.errors() if e["type"] == "extra_forbidden"]
    if unknown:
        return f"{_FILE}: {_place(unknown[0]['loc'])}: unknown setting"
    first = error.errors()[0]
    what = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f" (found {first['input']!r})"
    return f"{_FILE}: {_place(first['loc'])}: {what[:1].lower()}{what[1:]}{given}"


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _only_queues(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := sorted(set(names) - set(QUEUES)):
        raise ValueError(f"unknown queue {unknown[0]!r}")
    return names


def _weights(mix: dict[str, float]) -> dict[str, float]:
    _only_queues(tuple(mix))
    if missing := [queue for queue in QUEUES if queue not in mix]:
        raise ValueError(f"no weight for {missing[0]}")
    if min(mix.values()) < 0 or sum(mix.values()) <= 0:
        raise ValueError("weights must not be negative, nor all zero")
    whole = sum(mix.values())
    return {queue: mix[queue] / whole for queue in QUEUES}
