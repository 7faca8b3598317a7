"""Binds the resources of the graph to the environment."""

import os
from pathlib import Path

from dagster_dbt import DbtCliResource

from assets.lake import Home
from assets.resources import Evergreen

__all__ = ["PROJECT", "home", "resources"]

PROJECT = Path(__file__).parent.parent


def home() -> Home:
    """The home folder: `EVERGREEN_HOME`, or `.evergreen` in the project."""
    return Home(Path(os.environ.get("EVERGREEN_HOME", PROJECT / ".evergreen")).absolute())


def resources() -> dict[str, object]:
    return {
        "evergreen": Evergreen(root=str(home().root)),
        "dbt": DbtCliResource(project_dir=str(PROJECT / "dbt")),
    }
