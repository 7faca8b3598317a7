"""What a launcher is: the ranks of a plan as processes of some machines."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from assets.cluster.jobs import Job
from assets.settings import TrainingSettings
from assets.training.launchers.compatibility import Machine
from assets.training.plan import TrainingPlan

__all__ = ["Launcher", "Run"]

Run = Callable[[list[str] | Job], None]
"""Runs a command here or a job there, shows its reports, and returns when it has succeeded; raises
TrainingError when the command fails, ClusterError when the job does."""


class Launcher(Protocol):
    """Where ranks are started, and how."""

    def world_size(self, settings: TrainingSettings) -> int:
        """The number of ranks. Raises SettingsError when the settings name none that can be."""

    def machine(self, settings: TrainingSettings, deepspeed: Mapping[str, Any]) -> Machine:
        """The capabilities of a machine that ranks run on. Raises SettingsError where these settings need others."""

    def start(self, plan: TrainingPlan, folder: Path, run: Run) -> None:
        """Train, from the newest checkpoint on, until the bundle is in `plan.output`; `folder` is empty, in the home.

        Raises SettingsError before anything starts, TrainingError when the ranks stop.
        """

    def clear(self, plan: TrainingPlan) -> None:
        """Remove everything but the bundle, as far as possible."""
