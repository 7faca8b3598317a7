"""What assets are given: the home folder and the settings of a profile."""

from functools import cached_property
from pathlib import Path

import dagster as dg

from assets.lake import Home
from assets.settings import Settings, load_settings

__all__ = ["Evergreen", "as_of"]


class Evergreen(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where state lives, and the profile whose settings a run uses."""

    root: str
    profile: str = "quick"

    @cached_property
    def home(self) -> Home:
        return Home(Path(self.root))

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.profile)


def as_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
    """The date that the run pretends it is, YYYY-MM-DD: its partition key."""
    return context.partition_key
