"""Binds the resources of the graph."""

import dagster as dg

from assets.resources import Evergreen

__all__ = ["resources"]


def resources(profile: str) -> dict[str, object]:
    """The resources by the keys that assets use.

    Assets pass each other files, never values: Dagster's own store for values would accept a folder from a launch.
    """
    return {
        "evergreen": Evergreen(profile=profile),
        "io_manager": dg.mem_io_manager,
    }
