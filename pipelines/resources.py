"""Binds the resources of the graph."""

import os

import dagster as dg

from assets.resources import Evergreen

__all__ = ["PROFILE", "resources"]

PROFILE = os.environ.get("EVERGREEN_PROFILE", "quick")
"""The profile of what schedules, sensors and the front door do."""


class NoValues(dg.IOManager):
    """Keeps no values: assets pass each other files.

    Dagster's own store for values would accept a folder from a launch, and with that in memory it refuses to run again
    from the step that failed.
    """

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Nothing is kept."""

    def load_input(self, context: dg.InputContext) -> object:
        raise NotImplementedError("assets read each other's files")


def resources(profile: str) -> dict[str, object]:
    """The resources by the keys that assets use."""
    return {"evergreen": Evergreen(profile=profile), "io_manager": NoValues()}
