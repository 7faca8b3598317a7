"""`simulate`: a file per month or day, with the tickets opened, resolved or corrected in it, in their state at its
end."""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

from assets.exceptions import SettingsError
from simulation.settings import Settings, load_settings
from simulation.world import Ticket, Version, World

__all__ = ["Simulated", "simulate"]

_MAX_RATE = 7_000
"""A ticket's id has four digits for its number in the day, and a Monday has a third more tickets than `rate`."""

_Lines = defaultdict[str, list[tuple[datetime, str]]]
"""Lines of each file, with the times by which they are ordered."""


@dataclass(frozen=True)
class Simulated:
    """What was written: files in chronological order, their lines, and the day on which the world changes, if any."""

    files: tuple[Path, ...]
    records: int
    change: date | None


def simulate(
    output: Path, start: date, end: date, rate: int, seed: int, scenario: str, *, daily: bool = False
) -> Simulated:
    """Write about `rate` tickets a day, more on weekdays, from `start` to `end` (both included, in UTC) into `output`.

    Files are tickets-YYYY-MM.jsonl or, `daily`, tickets-YYYY-MM-DD.jsonl. What happens to a ticket after `end` is not
    written. The same arguments give the same bytes. Files of the same name are replaced, each in one step. Raises
    SettingsError for an argument that is out of range, and for a folder that cannot be written.
    """
    settings = load_settings()
    _check(start, end, rate, seed)
    change = settings.scenario(scenario).change(start, end)
    world = World(settings, settings.scenario(scenario), seed, change)
    lines: _Lines = defaultdict(list)
    files, records = [], 0
    for day in _days(start, end):
        for place in range(round(rate * settings.weekdays[day.weekday()])):
            _file(world.ticket(day, place), end, daily, settings, world.stream("dirt", day, place), lines)
        if daily or day == end or (day + timedelta(1)).day == 1:
            name = _name(day, daily)
            ordered = [line for _, line in sorted(lines.pop(name, []), key=lambda line: line[0])]
            files.append(_write(output, f"tickets-{name}.jsonl", ordered))
            records += len(ordered)
    return Simulated(tuple(files), records, change)


def _check(start: date, end: date, rate: int, seed: int) -> None:
    if end < start:
        raise SettingsError(f"--to {end} lies before --from {start}; give the earlier date first")
    if not 1 <= rate <= _MAX_RATE:
        raise SettingsError(f"--rate {rate}: give a number of tickets a day from 1 to {_MAX_RATE}")
    if seed < 0:
        raise SettingsError(f"--seed {seed}: give a number that is not negative")


def _file(ticket: Ticket, end: date, daily: bool, settings: Settings, random: Random, lines: _Lines) -> None:
    """Put a ticket's versions into the files of their times; of several versions in one file, only the last."""
    last = {_name(version.at.date(), daily): version for version in ticket.versions if version.at.date() <= end}
    for name, version in last.items():
        lines[name] += [(version.at, line) for line in _spoiled(_fields(ticket, version, settings), settings, random)]


def _fields(ticket: Ticket, version: Version, settings: Settings) -> dict[str, Any]:
    customer, opened = ticket.customer, ticket.versions[0].at
    plan = "plan" if version.at.date() >= settings.renamed else "tier"
    area, kind = version.resolution or (None, None)
    return {
        "id": ticket.id,
        "created_at": _written(opened, customer.zone),
        "updated_at": _written(version.at, customer.zone),
        "customer": {"id": customer.number, plan: customer.plan},
        "product": {"name": ticket.product},
        "channel": ticket.channel,
        "language": ticket.language,
        "subject": ticket.subject,
        "body": ticket.body,
        "resolved_at": _written(version.resolved_at, "Z") if version.resolved_at else None,
        "resolution": {"area": area, "kind": kind} if version.resolution else None,
    }


def _written(instant: datetime, zone: str) -> str:
    """An instant in a zone, which is named by its offset, for example 2024-03-01T09:30:00+01:00."""
    if zone == "Z":
        return f"{instant:%Y-%m-%dT%H:%M:%S}Z"
    hours, minutes = zone[1:].split(":")
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if zone[0] == "-" else 1)
    return instant.astimezone(timezone(offset)).isoformat()


def _spoiled(fields: dict[str, Any], settings: Settings, random: Random) -> Iterator[str]:
    """A ticket's line with at most one fault; a repeated line is written twice."""
    fault = random.choices([*settings.dirt, ""], [*settings.dirt.values(), 1 - sum(settings.dirt.values())])[0]
    line = json.dumps(_FAULTS.get(fault, dict)(fields), ensure_ascii=False)
    yield line[: len(line) // 2] if fault == "broken" else line
    if fault == "repeated":
        yield line


_FAULTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no_id": lambda fields: fields | {"id": None},
    "impossible_time": lambda fields: fields | {"created_at": "2024-02-30T25:00:00Z"},
    "no_text": lambda fields: fields | {"subject": "", "body": None},
}


def _name(day: date, daily: bool) -> str:
    return f"{day:%Y-%m-%d}" if daily else f"{day:%Y-%m}"


def _days(start: date, end: date) -> Iterator[date]:
    return (start + timedelta(days=day) for day in range((end - start).days + 1))


def _write(output: Path, name: str, lines: list[str]) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=output)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        Path(temporary).chmod(0o644)
        return Path(temporary).replace(output / name)
    except OSError as error:
        raise SettingsError(f"{output / name}: cannot be written: {error.strerror}") from None
