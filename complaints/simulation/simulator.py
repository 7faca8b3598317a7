"""`simulate`: complaint files of a simulated world, the same for the same arguments."""

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

from assets.exceptions import SettingsError
from complaints.simulation.settings import load_simulator_settings
from complaints.simulation.world import MAX_RATE, World
from complaints.simulation.writer import Month, MonthWritten, write_month

__all__ = ["Simulated", "simulate"]

_log = logging.getLogger("evergreen")

_SINGLE_PROCESS_RECORDS = 50_000
"""Fewer records than this are written faster than more processes start."""

_QUIET_SECONDS = 2.0

_EARLIEST = date(2011, 12, 1)


@dataclass(frozen=True)
class Simulated:
    """What was written: files in chronological order, the number of records, and of dirty ones by kind."""

    files: tuple[Path, ...]
    records: int
    dirty: dict[str, int]
    change: date | None
    """When the world changes, if it does."""


@dataclass(frozen=True)
class _Arguments:
    output: Path
    start: date
    end: date
    rate: int
    seed: int
    scenario: str


def simulate(
    output: Path, start: date, end: date, rate: int, seed: int, scenario: str, *, daily: bool = False
) -> Simulated:
    """Write `rate` complaints for each day from `start` to `end` (both included) as complaints-YYYY-MM.csv in `output`.

    `daily` writes a file per day, complaints-YYYY-MM-DD.csv, with what was filed on that day: its name says when it was
    published. The same arguments give the same bytes, whatever the number of processes. Files with the same name are
    replaced, each in one step; other files in the folder are left alone. Raises SettingsError for an argument or a
    setting that is out of range, and for a folder that cannot be written.
    """
    arguments = _Arguments(output, start, end, rate, seed, scenario)
    _check(arguments)
    change = load_simulator_settings().scenario(scenario).change(start, end)
    _make(output)
    written = _written(arguments, list(_days(start, end, rate) if daily else _months(start, end, rate)))
    return _gathered(written, change)


def _check(arguments: _Arguments) -> None:
    if arguments.end < arguments.start:
        raise SettingsError(f"--to {arguments.end} lies before --from {arguments.start}; give the earlier date first")
    if not 1 <= arguments.rate <= MAX_RATE:
        raise SettingsError(f"--rate {arguments.rate}: give a number of records a day from 1 to {MAX_RATE}")
    if arguments.seed < 0:
        raise SettingsError(f"--seed {arguments.seed}: give a number that is not negative")
    if arguments.start < _EARLIEST:
        raise SettingsError(f"--from {arguments.start}: give a date from {_EARLIEST} on, the bureau's first complaints")


def _make(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--output {output}: cannot be made a folder: {error.strerror}") from None


def _months(start: date, end: date, rate: int) -> Iterator[Month]:
    first = start
    while first <= end:
        following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
        yield Month(first, min(end, following - timedelta(days=1)), start, rate)
        first = following


def _days(start: date, end: date, rate: int) -> Iterator[Month]:
    days = (start + timedelta(days=day) for day in range((end - start).days + 1))
    return (Month(day, day, start, rate, daily=True) for day in days)


def _written(arguments: _Arguments, months: list[Month]) -> Iterator[MonthWritten]:
    """The months' files in chronological order, written by as many processes as are worth starting."""
    records = arguments.rate * ((arguments.end - arguments.start).days + 1)
    workers = min(os.cpu_count() or 1, len(months)) if records >= _SINGLE_PROCESS_RECORDS else 1
    work = partial(_write_one, arguments)
    if workers == 1:
        yield from _reported(map(work, months), len(months))
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from _reported(pool.map(work, months), len(months))


def _write_one(arguments: _Arguments, month: Month) -> MonthWritten:
    settings = load_simulator_settings()
    scenario = settings.scenario(arguments.scenario)
    world = World(settings, scenario, arguments.seed, scenario.change(arguments.start, arguments.end))
    return write_month(arguments.output, month, world, settings, scenario)


def _reported(written: Iterator[MonthWritten], months: int) -> Iterator[MonthWritten]:
    started = time.perf_counter()
    for number, month in enumerate(written, 1):
        if time.perf_counter() - started > _QUIET_SECONDS:
            _log.info(
                "simulated %s: %s records (%d of %d files)", month.path.name, f"{month.records:,}", number, months
            )
        yield month


def _gathered(written: Iterator[MonthWritten], change: date | None) -> Simulated:
    files, records, dirty = [], 0, Counter[str]()
    for month in written:
        files.append(month.path)
        records += month.records
        dirty.update(month.dirty)
    return Simulated(tuple(files), records, dict(sorted(dirty.items())), change)
