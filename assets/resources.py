"""What assets are given: the home folder and the settings of a profile."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Self

import dagster as dg
from pydantic import Field

from assets.lake import Home
from assets.settings import Settings, load_settings

__all__ = ["AS_OF", "REPORTS_PORT", "Evergreen", "as_of", "report_url"]

AS_OF = dg.DailyPartitionsDefinition(start_date="2011-12-01", end_offset=1)
"""One partition per as-of date."""

REPORTS_PORT = 3001
"""Where `evergreen ui` serves `home.reports`, on 127.0.0.1."""


class Evergreen(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where state lives, and the profile whose settings a run uses.

    The home is the process's EVERGREEN_HOME and no field of a launch: whoever may launch writes nowhere else.
    """

    profile: str = Field(default="quick", description="A file in configs/profiles, without its ending.")

    @cached_property
    def home(self) -> Home:
        return Home.from_environment()

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.profile)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Self]:
        """Say that the run's process is at work, while it is: a run that was killed cannot. Sensors have no run."""
        with self.home.in_use(context.run.run_id) if context.run else nullcontext():
            yield self


def as_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
    """The date that the run pretends it is, YYYY-MM-DD: its partition key."""
    return str(context.partition_key)


def report_url(path: str) -> dg.UrlMetadataValue:
    """A link to a page under `home.reports`, where `evergreen ui` serves it."""
    return dg.MetadataValue.url(f"http://127.0.0.1:{REPORTS_PORT}/{path}")
