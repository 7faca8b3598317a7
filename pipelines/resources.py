"""Binds the resources of the graph to the environment."""

import os

from assets.resources import Evergreen

__all__ = ["resources"]


def resources() -> dict[str, object]:
    """The resources by the keys that assets ask for."""
    return {"evergreen": Evergreen(profile=os.environ.get("EVERGREEN_PROFILE", "quick"))}
