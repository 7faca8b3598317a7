"""The front door as static files: each page at a relative address, to be opened from a folder or served by anything.

Rows are those of the champion and of what awaits approval, the first page of each. Texts are left out unless asked for.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from assets.exceptions import SettingsError
from assets.front.history import Day, History
from assets.front.night import Night, measured
from assets.front.pages import STATIC, Links, behind_page, front_page, night_page, rows_page, why_page
from assets.front.rows import Behind, Wanted, behind, find_rows
from assets.front.why import why
from assets.lake import Home
from assets.settings import DriftSettings, FrontSettings

__all__ = ["Site", "export"]

_MARK = ".evergreen-site"
"""A file by which a folder is known to be an earlier copy."""
_TOP = Links("", "", "", live=False)
_BELOW = Links("../", "", "", live=False)


@dataclass(frozen=True)
class Site:
    """What was written."""

    folder: Path
    pages: int
    bytes: int


def export(
    home: Home,
    folder: Path,
    night_of: Callable[[Day], Night],
    settings: FrontSettings,
    drift: DriftSettings,
    *,
    reports: bool = True,
) -> Site:
    """Write the site into a folder that is empty, not there, or an earlier copy, which it replaces.

    reports: whether the last night's drift page and Data Docs are copied, too. Raises SettingsError for a folder that
    holds something else, and for a home without a night.
    """
    if folder.exists() and not (folder / _MARK).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder}: is neither empty nor an earlier copy of a front door; name another folder")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.absolute().parent) as staged:
        made = Path(staged) / "site"
        pages = _write(_Source(home, History.of(home), night_of, settings, drift, reports), made)
        if folder.exists():
            folder.rename(Path(staged) / "before")
        made.rename(folder)
    return Site(folder, pages, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


@dataclass(frozen=True)
class _Source:
    home: Home
    history: History
    night_of: Callable[[Day], Night]
    settings: FrontSettings
    drift: DriftSettings
    reports: bool

    @property
    def shown(self) -> list[str]:
        """The versions whose rows are written."""
        now = self.history.now
        if now is None:
            raise SettingsError("this home has no night behind it: run Evergreen first")
        champion = [now.champion.version] if now.champion else []
        return [*dict.fromkeys((*champion, *(waiting.version for waiting in now.waiting)))]


def _write(source: _Source, folder: Path) -> int:
    """How many pages there are."""
    shutil.copytree(STATIC, folder / "static")
    (folder / _MARK).touch()
    pages = dict(_pages(source))
    for path, text in pages.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    if source.reports:
        _copy_reports(source, folder)
    return len(pages)


def _pages(source: _Source) -> Iterator[tuple[str, str]]:
    """Addresses and contents."""
    history, known = source.history, source.history.timeline
    about = (source.home.domain, replace(_BELOW, shown=frozenset(source.shown)))
    for day in known.days:
        newest = day is known.days[-1]
        night = source.night_of(day)
        if not (newest and source.reports):
            night = replace(night, pages={})
        yield _TOP.night(day.as_of), night_page(*about, known, day, night)
        if newest:
            yield _TOP.home, _first(source, night)
    for version in dict.fromkeys(str(entry.body["version"]) for entry in history.entries if entry.kind == "verdict"):
        if found := why(source.home, history, version):
            yield _TOP.why(version), why_page(*about, found)
    for version in source.shown:
        if numbers := behind(source.home, history, version):
            yield _TOP.rows({"version": version}), behind_page(*about, numbers)
            yield from _rows(source, numbers, about[1])


def _first(source: _Source, night: Night) -> str:
    quality = source.history.now and source.history.now.quality
    found = measured(source.home.lake, quality.as_of) if quality else None
    links = replace(_TOP, shown=frozenset(source.shown))
    return front_page(source.home.domain, links, source.history, found, night)


def _rows(source: _Source, numbers: Behind, links: Links) -> Iterator[tuple[str, str]]:
    for wanted in _numbers(numbers):
        if found := find_rows(source.home, source.history, wanted, source.settings, source.drift):
            yield _TOP.rows(wanted.parameters), rows_page(source.home.domain, links, wanted, found)


def _numbers(numbers: Behind) -> Iterator[Wanted]:
    """Everything that its page leads to."""
    for column in numbers.moved:
        yield Wanted(as_of=numbers.window or "", column=column.column)
    for part in numbers.slices:
        yield Wanted(numbers.version, by=part.by, value=part.value)
    for label, counts in zip(numbers.labels, numbers.confusion, strict=True):
        yield Wanted(numbers.version, label=label)
        for answer, count in zip(numbers.labels, counts, strict=True):
            if count:
                yield Wanted(numbers.version, label=label, predicted=answer)


def _copy_reports(source: _Source, folder: Path) -> None:
    """Those of the last night: a page by itself, or the folder of an index."""
    for path in map(Path, source.night_of(source.history.timeline.days[-1]).pages.values()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if path.name == "index.html":
            shutil.copytree(source.home.reports / path.parent, folder / path.parent, dirs_exist_ok=True)
        else:
            shutil.copyfile(source.home.reports / path, folder / path)
