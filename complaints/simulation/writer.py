"""Complaint files: one per calendar month or day, in the official layout, with the dirt that real files have."""

import os
import tempfile
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from pathlib import Path

from assets.exceptions import SettingsError
from complaints.simulation.dirt import LINE_FAULTS, REPEATS, line, spoiled, spoiled_line
from complaints.simulation.grammar import Draw
from complaints.simulation.settings import Scenario, SimulatorSettings
from complaints.simulation.world import COLUMNS, Record, World

__all__ = ["Month", "MonthWritten", "write_month"]


@dataclass(frozen=True)
class Month:
    """The days of one file (both ends included), within a month, of a simulation that starts on `start`."""

    first: date
    last: date
    start: date
    rate: int
    daily: bool = False

    @property
    def name(self) -> str:
        return f"complaints-{self.first:{'%Y-%m-%d' if self.daily else '%Y-%m'}}.csv"


@dataclass(frozen=True)
class MonthWritten:
    """A file, the records in it (broken and repeated ones included), and how many of them are dirty, by kind."""

    path: Path
    records: int
    dirty: dict[str, int]


def write_month(
    output: Path, month: Month, world: World, settings: SimulatorSettings, scenario: Scenario
) -> MonthWritten:
    """Write a month's file under a temporary name and rename it. Raises SettingsError when it cannot be written."""
    lost = scenario.lost_columns if world.change is not None and _month_end(month) >= world.change else ()
    clerk = _Clerk(month, world, settings, lost)
    try:
        path = _write(output, month.name, clerk.days())
    except OSError as error:
        raise SettingsError(f"{output / month.name}: cannot be written: {error.strerror}") from None
    return MonthWritten(path, clerk.records, dict(clerk.dirty))


class _Clerk:
    """Writes the records of a month, some of them with faults."""

    def __init__(self, month: Month, world: World, settings: SimulatorSettings, lost: tuple[str, ...]) -> None:
        self.records = 0
        self.dirty: Counter[str] = Counter()
        self._month, self._world, self._delay = month, world, settings.max_delay_days
        self._kept = [place for place, column in enumerate(COLUMNS) if column not in lost]
        shares = settings.dirt.model_dump()
        self._kinds: list[str] = [*shares, ""]
        self._bounds = list(accumulate(shares.values()))
        self._later: dict[date, list[tuple[str, Record]]] = defaultdict(list)

    def days(self) -> Iterator[str]:
        """The text of the file, a day at a time."""
        yield self._row(COLUMNS)
        self._recall()
        for day in _days(self._month.first, self._month.last):
            yield "".join(self._day(day))

    def _recall(self) -> None:
        """Find the records of the days before this month that are repeated in it."""
        first = max(self._month.start, self._month.first - timedelta(days=self._delay))
        for day in _days(first, self._month.first - timedelta(days=1)):
            for index in range(self._month.rate):
                draw = self._world.stream(day, index)
                if (kind := self._kind(draw)) in REPEATS:
                    self._repeat(kind, self._world.record(day, index, draw), day, draw)

    def _day(self, day: date) -> Iterator[str]:
        self.records += self._month.rate
        for index in range(self._month.rate):
            draw = self._world.stream(day, index)
            kind = self._kind(draw)
            record = self._world.record(day, index, draw)
            if not kind:
                yield self._row(record.fields)
            elif kind in REPEATS:
                yield self._row(record.fields)
                self._repeat(kind, record, day, draw)
            else:
                self.dirty[kind] += 1
                yield self._spoiled(kind, record, draw)
        for kind, record in self._later.pop(day, []):
            self.records += 1
            self.dirty[kind] += 1
            yield self._row(record.fields)

    def _kind(self, draw: Draw) -> str:
        return self._kinds[bisect(self._bounds, draw())]

    def _repeat(self, kind: str, record: Record, day: date, draw: Draw) -> None:
        again = record if kind == "duplicate" else self._world.revised(record, day, draw)
        self._later[day + timedelta(days=1 + int(draw() * self._delay))].append((kind, again))

    def _spoiled(self, kind: str, record: Record, draw: Draw) -> str:
        if kind in LINE_FAULTS:
            return spoiled_line(kind, self._exported(record.fields), draw)
        return self._row(spoiled(kind, record, self._world, draw).fields)

    def _row(self, fields: tuple[str, ...]) -> str:
        return line(self._exported(fields))

    def _exported(self, fields: tuple[str, ...]) -> list[str]:
        return [fields[place] for place in self._kept]


def _write(output: Path, name: str, parts: Iterator[str]) -> Path:
    handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=output)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part.encode("utf-8", "surrogateescape"))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(output / name)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return output / name


def _days(first: date, last: date) -> Iterator[date]:
    """Every day of a range, both ends included."""
    return (first + timedelta(days=day) for day in range((last - first).days + 1))


def _month_end(month: Month) -> date:
    return (month.first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
