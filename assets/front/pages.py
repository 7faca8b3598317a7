"""The front door's pages, by the templates beside this file. What comes from data is text in them, whatever it says."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from assets.addresses import address
from assets.as_of import instant
from assets.display import capitalized
from assets.front.history import Day, History, Reign, Timeline
from assets.front.night import Measured, Night
from assets.lake import Home
from assets.registry.registry import MODEL, MODELS_SHOWN, version_path
from assets.settings import Domain

__all__ = ["STATIC", "Links", "chart", "front_page", "message_page", "night_page"]

_OPEN = ",".join(f"global%40global%3A{group}" for group in ("registry", "monitoring"))
STATIC = Path(__file__).parent / "static"
"""The style sheet, the script and the chart's library."""


@dataclass(frozen=True)
class Links:
    """Where the pages' links lead."""

    root: str
    """What the front door's own paths begin with."""
    dagster: str
    mlflow: str
    live: bool = True
    """Whether a server answers: only then are there forms."""

    @classmethod
    def of(cls, home: Home) -> "Links":
        """To the servers of a home."""
        return cls("/", address(home, "dagster"), address(home, "mlflow"))

    @property
    def lineage(self) -> str:
        """The graph, with the groups open that people look for."""
        return f"{self.dagster}asset-groups?expanded={_OPEN}"

    @property
    def models(self) -> str:
        return f"{self.mlflow}#/models/{MODEL}?{MODELS_SHOWN}"

    def run(self, run_id: str) -> str:
        return f"{self.dagster}runs/{run_id}"

    def version(self, version: str) -> str:
        return f"{self.mlflow}{version_path(version)}"


def front_page(
    domain: Domain,
    links: Links,
    history: History,
    measured: Measured | None,
    night: Night | None,
    pictures: Mapping[str, str],
) -> str:
    """The first page. measured: of the as-of that the newest quality is of; night: the newest; pictures: by name."""
    known = history.timeline
    about = {"known": known, "now": history.now, "problem": history.problem, "chart": chart(known)}
    return _render("front.html", domain, links, **about, measured=measured, night=night, pictures=pictures)


def night_page(domain: Domain, links: Links, known: Timeline, day: Day, night: Night) -> str:
    """What was known and decided on an as-of, and what came of its night."""
    return _render("night.html", domain, links, known=known, day=day, night=night)


def message_page(domain: Domain, links: Links, title: str, words: str) -> str:
    """A page that says one thing."""
    return _render("message.html", domain, links, title=title, words=words)


def chart(known: Timeline) -> dict[str, Any]:
    """What the chart and its slider show: columns of equal length by day, and the reigns."""
    qualities = [day.quality for day in known.days]
    return {
        "as_of": [day.as_of for day in known.days],
        "seconds": [_seconds(day.as_of) for day in known.days],
        "realised": [quality and quality.realised and asdict(quality.realised) for quality in qualities],
        "estimated": [quality and quality.estimated for quality in qualities],
        "champion": [day.champion and day.champion.version for day in known.days],
        "version": [quality and quality.version for quality in qualities],
        "drifted": [quality and quality.drifted for quality in qualities],
        "marks": [day.marks for day in known.days],
        "events": [[{"title": event.title, "why": event.reasons} for event in day.events] for day in known.days],
        "reigns": [_band(reign) for reign in known.reigns],
    }


def _band(reign: Reign) -> dict[str, Any]:
    until = None if reign.until is None else _seconds(reign.until)
    return {"version": reign.version, "since": _seconds(reign.since), "until": until}


def _seconds(as_of: str) -> float:
    """Since 1970, in UTC."""
    return instant(as_of).replace(tzinfo=UTC).timestamp()


def _render(template: str, domain: Domain, links: Links, **values: Any) -> str:
    return _environment().get_template(template).render(domain=domain, links=links, **values)


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": _percent, "count": _count, "capitalized": capitalized, "total": _total}
    return made


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"


def _count(number: int) -> str:
    return f"{number:,}"


def _total(rows: Sequence[Any], name: str) -> int:
    """The sum of an attribute, where it is known."""
    return sum(getattr(row, name) or 0 for row in rows)
