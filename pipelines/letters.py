"""What can be taken from the front door: last night as a letter, and all pages as files."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg

from assets.addresses import address
from assets.exceptions import NotPublished
from assets.front.history import Day, History, Timeline
from assets.front.letter import as_html, as_markdown, compose
from assets.front.night import Night, measured
from assets.front.pages import Links
from assets.front.site import Site, export, history_to_export
from assets.front.why import why
from assets.home import Home
from assets.settings import load_front_settings, load_settings
from assets.writing import write_atomically
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
    """Write the letter about the newest as-of, by default to the reports. Raises NotPublished without a night."""
    history = History.of(home)
    if history.now is None:
        raise NotPublished("there is nothing to write about: no night has run in this home")
    day, quality = history.timeline.days[-1], history.now.quality
    with open_instance(home) as instance:
        night = night_of(home, instance, history.timeline, day.as_of)
    judged = {event.version for event in day.events if event.kind == "verdict" and event.version}
    stories = {version: told.story for version in judged if (told := why(home, history, version))}
    links = Links(address(home, "front"), address(home, "dagster"), address(home, "mlflow"))
    measures = measured(home.lake, quality.as_of) if quality else None
    letter = compose(home.domain, links, history.now, day, night, measures, stories)
    target = (folder or home.reports / "letters") / day.as_of
    written = Written(target.with_suffix(".html"), target.with_suffix(".md"))
    write_atomically(written.page, as_html(letter, home.domain, links))
    write_atomically(written.markdown, as_markdown(letter))
    if folder is None:
        home.pages.put(written.page)
        home.pages.put(written.markdown)
    return written


def copy_site(home: Home, folder: Path, *, texts: bool, reports: bool) -> Site:
    """Export the front door; `texts` shows only what configs/front.yaml shows as well.

    Raises NotPublished without a night, and as `export` does.
    """
    settings = load_front_settings()
    settings = settings.model_copy(update={"texts": texts and settings.texts})
    history = history_to_export(home)  # before Dagster's instance, which would make a home
    with open_instance(home) as instance:
        night = partial(_night, home, instance, history.timeline)
        return export(home, folder, night, settings, load_settings(PROFILE).drift, reports=reports)


def _night(home: Home, instance: dg.DagsterInstance, known: Timeline, day: Day) -> Night:
    return night_of(home, instance, known, day.as_of)
