"""The front door as static files with relative links, which work from a folder or on any server.

They have the rows of the champion and of versions that await approval, the first page of each, and no texts unless the
settings that are passed show them.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from assets.exceptions import NotPublished, SettingsError
from assets.front.drift import Drift, drift
from assets.front.history import Day, History
from assets.front.night import DRIFT_REPORT, Night, measured, pictures
from assets.front.pages import STATIC, Links, behind_page, drift_page, front_page, night_page, rows_page, why_page
from assets.front.rows import Behind, Wanted, behind, find_rows
from assets.front.why import why
from assets.home import Home
from assets.pages import Pages
from assets.settings import DriftSettings, FrontSettings

__all__ = ["Site", "export", "history_to_export"]

_MARK = ".evergreen-site"
"""A file in every exported folder."""
_TOP = Links("", "", "", live=False)
"""The links of a page in the site's own folder: an address is also a file's path."""


@dataclass(frozen=True)
class Site:
    """An exported site."""

    folder: Path
    pages: int
    bytes: int


@dataclass(frozen=True)
class _Source:
    home: Home
    history: History
    night_of: Callable[[Day], Night]
    settings: FrontSettings
    drift_settings: DriftSettings
    reports: bool

    @property
    def versions(self) -> list[str]:
        """The versions whose rows are exported."""
        now = self.history.now
        assert now is not None
        champion = [now.champion.version] if now.champion else []
        return [*dict.fromkeys((*champion, *(waiting.version for waiting in now.waiting)))]

    @property
    def newest(self) -> Day:
        return self.history.timeline.days[-1]

    @property
    def pictures(self) -> Mapping[str, str]:
        return pictures(self.home) if self.reports else {}

    @cached_property
    def drift(self) -> Drift | None:
        """Of the newest day."""
        found = drift(self.home, self.newest.as_of)
        return found if found is None or self.reports else replace(found, evidently=None)

    @property
    def copied(self) -> list[str]:
        """Paths of reports that are copied as they are."""
        documents = [path for name, path in self.night(self.newest).pages.items() if name != DRIFT_REPORT]
        evidently = self.drift.evidently if self.drift else None
        return [*documents, *([evidently] if evidently else []), *self.pictures.values()]

    def night(self, day: Day) -> Night:
        """The night of a day; only the newest has a drift page, and other reports if they are wanted."""
        night = self.night_of(day)
        wanted = (*night.pages,) if self.reports else (DRIFT_REPORT,)
        pages = {name: path for name, path in night.pages.items() if day is self.newest and name in wanted}
        return replace(night, pages=pages)

    def links(self, root: str) -> Links:
        return Links(root, "", "", live=False, shown=frozenset(self.versions))


def export(
    home: Home,
    folder: Path,
    night_of: Callable[[Day], Night],
    settings: FrontSettings,
    drift: DriftSettings,
    *,
    reports: bool = True,
) -> Site:
    """Write the site to a folder that does not exist, is empty, or is an earlier export, which is replaced.

    `reports`: also copy the last night's report by Evidently and Data Docs, and pictures. Raises SettingsError for a
    folder with anything else, and NotPublished for a home without a night.
    """
    _require_replaceable(folder)
    source = _Source(home, history_to_export(home), night_of, settings, drift, reports)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.absolute().parent) as staged:
        pages = _write(source, Path(staged) / "new")
        if folder.exists():
            folder.rename(Path(staged) / "old")
        (Path(staged) / "new").rename(folder)
    return Site(folder, pages, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def history_to_export(home: Home) -> History:
    """The history of a home. Raises NotPublished for one without a night."""
    history = History.of(home)
    if history.now is None:
        raise NotPublished("there is nothing to export: no night has run in this home")
    return history


def _require_replaceable(folder: Path) -> None:
    if folder.exists() and not (folder / _MARK).exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SettingsError(f"{folder} is neither an empty folder nor an earlier export; choose another folder")


def _write(source: _Source, folder: Path) -> int:
    """Write everything to a new folder, and return the number of pages."""
    shutil.copytree(STATIC, folder / "static")
    (folder / _MARK).touch()
    pages = dict(_pages(source))
    for path, text in pages.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for path in source.copied:
        _copy(source.home.pages, path, folder)
    return len(pages)


def _copy(pages: Pages, name: str, folder: Path) -> None:
    """Copy a file of the reports or, if it is an index, all of its folder."""
    within, _, last = name.rpartition("/")
    for each in pages.names(f"{within}/") if last == "index.html" else [name]:
        if path := pages.fetch(each):
            (folder / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / each)


def _pages(source: _Source) -> Iterator[tuple[str, str]]:
    """The path and the text of each page."""
    history, domain, links = source.history, source.home.domain, source.links("../")
    yield _TOP.home, _first(source)
    for day in history.timeline.days:
        yield _TOP.night(day.as_of), night_page(domain, links, history.timeline, day, source.night(day))
    if moved := source.drift:
        yield f"drift/{moved.as_of}.html", drift_page(domain, links, moved)
    for version in dict.fromkeys(str(entry.body["version"]) for entry in history.entries if entry.kind == "verdict"):
        if story := why(source.home, history, version):
            yield _TOP.why(version), why_page(domain, links, story)
    for version in source.versions:
        if numbers := behind(source.home, history, version):
            yield _TOP.rows({"version": version}), behind_page(domain, links, numbers)
            yield from _rows(source, numbers)


def _first(source: _Source) -> str:
    quality = source.history.now and source.history.now.quality
    measures = measured(source.home.lake, quality.as_of) if quality else None
    night = source.night(source.newest)
    return front_page(source.home.domain, source.links(""), source.history, measures, night, source.pictures)


def _rows(source: _Source, numbers: Behind) -> Iterator[tuple[str, str]]:
    links = source.links("../")
    for wanted in _wanted(numbers):
        if rows := find_rows(source.home, source.history, wanted, source.settings, source.drift_settings):
            yield _TOP.rows(wanted.parameters), rows_page(source.home.domain, links, wanted, rows)


def _wanted(numbers: Behind) -> Iterator[Wanted]:
    """The rows that the page of a version's numbers links to."""
    for column in numbers.moved:
        yield Wanted(as_of=numbers.window or "", column=column.column)
    for part in numbers.slices:
        yield Wanted(numbers.version, by=part.by, value=part.value)
    for label, counts in zip(numbers.labels, numbers.confusion, strict=True):
        yield Wanted(numbers.version, label=label)
        for answer, count in zip(numbers.labels, counts, strict=True):
            if count:
                yield Wanted(numbers.version, label=label, predicted=answer)
