"""What came of a night: what landed, what was found, what a training cost, and what was measured of the champion.

All of it is read from the small files of the lake; what retention has removed is not there any more.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from assets.duck import connect
from assets.front.history import Event, Timeline
from assets.home import Home
from assets.lake import Lake
from assets.warehouse.marts import mart

__all__ = ["DRIFT_REPORT", "Finding", "Landed", "Measured", "Night", "Run", "measured", "night", "pictures"]

DRIFT_REPORT = "Drift report"
"""What the drift page is called among the pages of a night."""
_LANDED = """
    select objects.key, coalesce(counts.landed, objects.landed) as landed, counts.valid,
           coalesce(counts.quarantined, objects.rejects) as quarantined, counts.duplicate, objects.error,
           objects.withdrawn
    from read_parquet($objects) objects left join read_parquet($counts) counts using (object_id)
    where objects.landed_on = $as_of order by objects.seq
"""
_REASONS = """
    select reason, count(*) from read_parquet($rows) where list_contains($keys, object_key)
    group by reason order by count(*) desc, reason
"""


@dataclass(frozen=True)
class Landed:
    """A source object that landed, and how its records ended; None where the marts do not have it (yet)."""

    key: str
    landed: int
    valid: int | None
    quarantined: int
    duplicate: int | None
    error: str | None
    """Why it, or the end of it, could not be read."""
    withdrawn: str | None
    """Why a person has taken it out since."""


@dataclass(frozen=True)
class Finding:
    """A check that warned or failed, in its own words."""

    name: str
    severity: Literal["warning", "error"]
    words: str
    about: str
    """The asset, or the suite, whose check it is."""


@dataclass(frozen=True)
class Run:
    """A run of the graph as of a night."""

    run_id: str
    job: str
    status: str
    seconds: float | None
    """None while it goes on."""
    failure: str | None = None
    """Where it stopped, and why."""


@dataclass(frozen=True)
class Measured:
    """What was measured of the champion's answers, beyond what decisions rest on."""

    as_of: str
    window_rows: int
    window_labels: int
    """Those whose label had arrived."""
    estimated: float | None
    """The accuracy that is expected of the newest window."""
    between: tuple[float, float] | None
    """What the two estimators say of it: the truth is expected between them."""
    macro_f1: float | None
    """Realised."""
    sentence: str


@dataclass(frozen=True)
class Night:
    """An as-of, from what landed to what was decided."""

    as_of: str
    landed: tuple[Landed, ...]
    reasons: dict[str, int]
    """How many records were quarantined, by reason, the most frequent first."""
    findings: tuple[Finding, ...]
    drift: str | None
    """What the drift report says, in a sentence; None where there is none."""
    verdicts: tuple[Event, ...]
    decision: Event | None
    """On retraining, the last."""
    cost: float | None
    """Of the night's trainings, in the unit of their price; None where there was none."""
    runs: tuple[Run, ...] = ()
    measured: Measured | None = None
    pages: dict[str, str] = field(default_factory=dict)
    """Paths of the drift page and of reports that are there, by what they are."""


def night(home: Home, as_of: str, known: Timeline, runs: Sequence[Run], checks: Sequence[Finding]) -> Night:
    """What came of the night of an as-of.

    runs, checks: what the graph's own record says of it, the newest run last.
    """
    lake, day = home.lake, known.day(as_of)
    events = day.events if day else ()
    landed = _landed(lake, as_of)
    drift = _published(lake, f"drift/{as_of}", "drift.json")
    decisions = [event for event in events if event.kind == "retraining"]
    return Night(
        as_of=as_of,
        landed=landed,
        reasons=_quarantined(lake, landed),
        findings=tuple(checks) or _audited(lake, as_of),
        drift=drift["reason"] if drift else None,
        verdicts=tuple(event for event in events if event.kind == "verdict"),
        decision=decisions[-1] if decisions else None,
        cost=_cost(lake, as_of),
        runs=tuple(runs),
        measured=measured(lake, as_of),
        pages=_pages(home, as_of, newest=as_of >= known.newest),
    )


def measured(lake: Lake, as_of: str) -> Measured | None:
    """What was published of an as-of; None where nothing was, or retention has removed it."""
    found = _published(lake, f"performance/{as_of}", "performance.json")
    if found is None:
        return None
    estimates = (found["estimated_accuracy"], found["estimated_by_threshold"])
    return Measured(
        as_of=as_of,
        window_rows=found["window_rows"],
        window_labels=found["window_labels"],
        estimated=found["estimated_accuracy"],
        between=None if None in estimates else (min(estimates), max(estimates)),
        macro_f1=found["realised"]["macro_f1"],
        sentence=found["sentence"],
    )


def _published(lake: Lake, table: str, file: str) -> dict[str, Any] | None:
    if lake.version(table) is None:
        return None
    content: dict[str, Any] = json.loads((lake.current(table) / file).read_text())
    return content


def _landed(lake: Lake, as_of: str) -> tuple[Landed, ...]:
    if lake.version("raw_records") is None or lake.version("marts") is None:
        return ()
    files = {"objects": str(lake.current("raw_records") / "objects.parquet"), "as_of": as_of}
    with connect() as connection:
        found = connection.execute(_LANDED, files | {"counts": mart(lake.current("marts"), "record_counts")})
        return tuple(Landed(*row) for row in found.fetchall())


def _quarantined(lake: Lake, landed: Sequence[Landed]) -> dict[str, int]:
    if not any(one.quarantined for one in landed):
        return {}
    rows = mart(lake.current("marts"), "quarantined_records")
    with connect() as connection:
        found = connection.execute(_REASONS, {"rows": rows, "keys": [one.key for one in landed]})
        return dict(found.fetchall())


def _audited(lake: Lake, as_of: str) -> tuple[Finding, ...]:
    """What the audit found, for a night whose runs are not recorded any more."""
    audit = _published(lake, f"mart_audit/{as_of}", "audit.json")
    failures = audit["failures"] if audit else []
    return tuple(
        Finding("expectation", "warning" if one["severity"] == "warning" else "error", one["expectation"], one["suite"])
        for one in failures
    )


def _cost(lake: Lake, as_of: str) -> float | None:
    table = f"challenger/{as_of}"
    reports = (lake.read(table, version, "training.json") for _, version in lake.versions(table))
    costs = [json.loads(report)["cost"] for report in reports if report]
    return sum(costs) if costs else None


def pictures(home: Home) -> dict[str, str]:
    """Paths of pictures that commands have left among the reports, by what they are of."""
    replays = [name for name in home.pages.names("replay/") if name.endswith(".png")]
    drawn = {f"replay {PurePosixPath(name).stem}": name for name in replays}
    name = "demonstration.png"
    return ({"demonstration": name} if home.pages.fetch(name) else {}) | drawn


def _pages(home: Home, as_of: str, *, newest: bool) -> dict[str, str]:
    found = {} if home.lake.version(f"drift/{as_of}") is None else {DRIFT_REPORT: f"drift/{as_of}.html"}
    docs = "data-docs/index.html"
    return found | ({"Data Docs": docs} if newest and home.pages.fetch(docs) else {})
