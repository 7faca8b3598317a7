"""The domain's simulator, where it has one."""

from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from assets.exceptions import SettingsError
from assets.settings import Domain

__all__ = ["Simulate", "Simulated", "simulator"]


class Simulated(Protocol):
    """What was written."""

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def records(self) -> int: ...

    @property
    def change(self) -> date | None:
        """When the simulated world changes, if it does."""


class Simulate(Protocol):
    """Writes the records of a simulated world into a folder, `rate` for each day from `start` to `end`."""

    def __call__(
        self, output: Path, start: date, end: date, rate: int, seed: int, scenario: str, *, daily: bool = ...
    ) -> Simulated: ...


def simulator(domain: Domain) -> Simulate:
    """The domain's `simulate`. Raises SettingsError when it has none."""
    if domain.simulator is None:
        raise SettingsError(f"configs/domain.yaml: simulator: the domain {domain.name} has none")
    return cast(Simulate, import_module(domain.simulator).simulate)
