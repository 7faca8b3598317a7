"""The time in a home: the wall clock's, or in a home of simulated records that of their world."""

from datetime import UTC, datetime
from pathlib import Path

from assets.as_of import PERIODS, at, instant
from assets.home import Home
from assets.ingestion.sources import configured_sources
from assets.registry.shared_ledger import ledger_of

__all__ = ["NO_DAY", "following", "now"]

NO_DAY = "the sources are simulated, and no run has told yet which day it is in their world: start with `evergreen run`"


def now(home: Home) -> str | None:
    """The as-of of a run that is started by itself; None when that is unknown (`NO_DAY`).

    Simulated records end on some day, however long ago: their home is as of its newest run.
    """
    return _newest(home) if _is_simulated(home) else at(datetime.now(UTC), home.domain.cadence)


def following(home: Home, time: datetime) -> str | None:
    """The as-of of the run that is scheduled for a time in UTC; None when that is unknown (`NO_DAY`).

    In the world of simulated records each scheduled run is the next day, or hour.
    """
    cadence = home.domain.cadence
    if not _is_simulated(home):
        return at(time, cadence)
    newest = _newest(home)
    return newest and at(instant(newest) + PERIODS[cadence], cadence)


def _newest(home: Home) -> str | None:
    return ledger_of(home).newest_day() or None


def _is_simulated(home: Home) -> bool:
    """Whether every source lies in the home: nobody else writes there."""
    sources = configured_sources()
    return bool(sources) and all(Path(source).absolute().is_relative_to(home.root) for source in sources)
