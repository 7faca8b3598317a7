"""The domain's simulator, if it has one."""

import sys
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from assets.exceptions import SettingsError
from assets.settings import Domain, domain_configs, domain_folder

__all__ = ["Simulate", "Simulated", "simulator"]


class Simulated(Protocol):
    """The result of a simulation."""

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def records(self) -> int: ...

    @property
    def change(self) -> date | None:
        """The day the simulated world changes, if it does."""


class Simulate(Protocol):
    """Writes the records of a simulated world into a folder, `rate` per day from `start` to `end`."""

    def __call__(
        self, output: Path, start: date, end: date, rate: int, seed: int, scenario: str, *, daily: bool = ...
    ) -> Simulated: ...


def simulator(domain: Domain) -> Simulate:
    """The function `simulate` of the module in the domain's folder that domain.yaml names.

    Raises SettingsError when it names none, or one that does not exist.
    """
    where = f"{domain_configs() / 'domain.yaml'}: simulator"
    if domain.simulator is None:
        raise SettingsError(f"{where}: the domain {domain.name} has none; name a module of its folder with `simulate`")
    folder = domain_folder()
    place = folder.joinpath(*domain.simulator.split("."))
    if not (place.with_suffix(".py").exists() or (place / "__init__.py").exists()):
        raise SettingsError(f"{where}: there is no module {domain.simulator} in {folder}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return cast(Simulate, import_module(domain.simulator).simulate)
