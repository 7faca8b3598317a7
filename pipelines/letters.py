"""What leaves the front door: last night as a letter, and all of it as a folder of files."""

from dataclasses import dataclass
from pathlib import Path

from assets.addresses import address
from assets.exceptions import NotPublished
from assets.front.history import History
from assets.front.letter import as_html, as_markdown, compose
from assets.front.night import measured
from assets.front.pages import Links
from assets.front.site import Site, export
from assets.front.why import why
from assets.lake import Home, write_atomically
from assets.settings import load_front_settings, load_settings
from pipelines.instance import open_instance
from pipelines.nights import night_of
from pipelines.resources import PROFILE

__all__ = ["Written", "copy_site", "write"]


@dataclass(frozen=True)
class Written:
    """The files of a letter."""

    page: Path
    markdown: Path


def write(home: Home, folder: Path | None = None) -> Written:
    """The newest as-of's letter, by default among the reports. Raises NotPublished for a home without a night."""
    history = History.of(home)
    if history.now is None:
        raise NotPublished("this home has no night behind it")
    day = history.timeline.days[-1]
    with open_instance(home) as instance:
        night = night_of(home, instance, history.timeline, day.as_of)
    quality = history.now.quality
    told = {
        event.version: why(home, history, event.version)
        for event in day.events
        if event.kind == "verdict" and event.version
    }
    stories = {version: found.story for version, found in told.items() if found}
    links = Links(address(home, "front"), address(home, "dagster"), address(home, "mlflow"))
    found = measured(home.lake, quality.as_of) if quality else None
    letter = compose(home.domain, links, history.now, day, night, found, stories)
    target = folder or home.reports / "letters"
    written = Written(target / f"{day.as_of}.html", target / f"{day.as_of}.md")
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(written.page, as_html(letter, home.domain, links))
    write_atomically(written.markdown, as_markdown(letter))
    return written


def copy_site(home: Home, folder: Path, *, texts: bool, reports: bool) -> Site:
    """The front door as files; texts only where the settings show them as well. Raises as `export` does."""
    settings = load_front_settings()
    settings = settings.model_copy(update={"texts": texts and settings.texts})
    known = History.of(home).timeline
    with open_instance(home) as instance:
        return export(
            home,
            folder,
            lambda day: night_of(home, instance, known, day.as_of),
            settings,
            load_settings(PROFILE).drift,
            reports=reports,
        )
