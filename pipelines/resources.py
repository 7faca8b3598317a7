"""Binds the resources of the graph."""

import os

import dagster as dg

from assets.resources import Evergreen

__all__ = ["PROFILE", "resources"]

PROFILE = os.environ.get("EVERGREEN_PROFILE", "quick")
"""The profile of what schedules, sensors and the front door do."""


def resources(profile: str) -> dict[str, object]:
    """The resources by the keys that assets use.

    Assets pass each other files, never values: Dagster's own store for values would accept a folder from a launch.
    """
    return {
        "evergreen": Evergreen(profile=profile),
        "io_manager": dg.mem_io_manager,
    }
