"""Binds the resources of the graph to the environment."""

from assets.lake import Home
from assets.resources import Evergreen

__all__ = ["resources"]


def resources() -> dict[str, object]:
    """The resources by the keys that assets ask for."""
    return {"evergreen": Evergreen(root=str(Home.from_environment().root))}
