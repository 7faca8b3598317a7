"""The front door's pages, by the templates beside this file. What comes from data is text in them, whatever it says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from assets.addresses import address
from assets.as_of import instant
from assets.display import capitalized, label_name, slice_name
from assets.front.drift import Drift
from assets.front.history import Day, History, Reign, Timeline
from assets.front.night import Measured, Night
from assets.front.reports import Shelf
from assets.front.rows import Behind, Rows, Wanted
from assets.front.why import Why
from assets.hashing import hash_json
from assets.home import Home
from assets.registry.registry import MODEL, MODELS_SHOWN, version_path
from assets.settings import Domain

__all__ = [
    *("STATIC", "Links", "behind_page", "chart", "drift_page", "front_page", "message_page", "night_page", "render"),
    *("reports_page", "rows_page", "why_page"),
]

_OPEN = ",".join(f"global%40global%3A{group}" for group in ("registry", "monitoring"))
_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")
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
    """Whether a server answers: only then are there forms, and otherwise every page is a file."""
    shown: frozenset[str] = frozenset()
    """The versions whose rows are among the files."""

    @classmethod
    def of(cls, home: Home) -> "Links":
        """To the servers of a home."""
        return cls("/", address(home, "dagster"), address(home, "mlflow"))

    @property
    def home(self) -> str:
        """The first page."""
        return self.root if self.live else f"{self.root}index.html"

    def night(self, as_of: str) -> str:
        """The page of an as-of."""
        return f"{self.root}nights?{urlencode({'as_of': as_of})}" if self.live else self._file("nights", as_of)

    def why(self, version: str) -> str:
        """The page on a version's verdict."""
        return f"{self.root}why/{quote(version, safe='')}" if self.live else self._file("why", version)

    def rows(self, parameters: Mapping[str, str], page: int = 1) -> str:
        """The rows behind a number, by `Wanted.parameters`; with a version alone, what can be asked of it."""
        if not self.live:
            return self._file("rows", hash_json(dict(parameters))[:16])
        return f"{self.root}rows?{urlencode({**parameters, **({'page': page} if page > 1 else {})})}"

    def has_rows(self, version: str) -> bool:
        """Whether the rows behind its numbers can be looked at."""
        return self.live or version in self.shown

    def _file(self, folder: str, name: str) -> str:
        return f"{self.root}{folder}/{name if _PLAIN.fullmatch(name) else hash_json(name)[:16]}.html"

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
    return render("front.html", domain, links, **about, measured=measured, night=night, pictures=pictures, decided=True)


def night_page(domain: Domain, links: Links, known: Timeline, day: Day, night: Night) -> str:
    """What was known and decided on an as-of, and what came of its night."""
    place = known.days.index(day)
    before, after = known.days[place - 1] if place else None, next(iter(known.days[place + 1 :]), None)
    return render("night.html", domain, links, day=day, night=night, before=before, after=after, decided=False)


def drift_page(domain: Domain, links: Links, drift: Drift) -> str:
    """Whether a window drifted, and what moved."""
    return render("drift.html", domain, links, drift=drift)


def why_page(domain: Domain, links: Links, why: Why) -> str:
    """A verdict as a story."""
    return render("why.html", domain, links, why=why)


def behind_page(domain: Domain, links: Links, behind: Behind) -> str:
    """The numbers of a version, each of which leads to its rows."""
    return render("behind.html", domain, links, behind=behind)


def rows_page(domain: Domain, links: Links, wanted: Wanted, rows: Rows) -> str:
    """A page of rows."""
    return render("rows.html", domain, links, wanted=wanted, rows=rows)


def reports_page(domain: Domain, links: Links, shelves: Sequence[Shelf]) -> str:
    """Every report that there is."""
    return render("reports.html", domain, links, shelves=shelves)


def message_page(domain: Domain, links: Links, title: str, words: str) -> str:
    """A page that says one thing."""
    return render("message.html", domain, links, title=title, words=words)


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


def render(template: str, domain: Domain, links: Links, **values: Any) -> str:
    """A template of this room, with what every page needs."""
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
    made.filters |= {"number": _number, "label_of": _label_of, "slice_of": _slice_of}
    return made


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def _label_of(label: str, domain: Domain) -> str:
    return label_name(domain, label)


def _slice_of(value: str, by: str, domain: Domain) -> str:
    return slice_name(domain, by, value)


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"


def _count(number: int) -> str:
    return f"{number:,}"


def _total(rows: Sequence[Any], name: str) -> int:
    """The sum of an attribute, where it is known."""
    return sum(getattr(row, name) or 0 for row in rows)
