"""What the reports' folder has, by what it is, so that all of it can be found from one page."""

from dataclasses import dataclass
from pathlib import Path

from assets.lake import Home

__all__ = ["Shelf", "shelves"]

_SHOWN = (".html", ".png", ".md")
_NAMES = {"data-docs": "Data Docs", "reports": "other"}
_WHOLE = "index.html"
"""The page of a folder that is a site of its own."""


@dataclass(frozen=True)
class Shelf:
    """Reports of a kind."""

    title: str
    paths: dict[str, str]
    """Their addresses below the reports, by name, the newest first."""


def shelves(home: Home) -> tuple[Shelf, ...]:
    """All reports of a home that can be looked at, by folder. What is hidden, or a link out of it, is left out."""
    folders = sorted(path for path in home.reports.glob("[!.]*") if path.is_dir() and not path.is_symlink())
    found = [Shelf(_NAMES.get(folder.name, folder.name), _paths(home, folder)) for folder in (*folders, home.reports)]
    return tuple(shelf for shelf in found if shelf.paths)


def _paths(home: Home, folder: Path) -> dict[str, str]:
    whole = folder / _WHOLE
    files = [whole] if whole.is_file() else sorted(_files(folder, deep=folder != home.reports), reverse=True)
    return {_name(path.relative_to(folder)): path.relative_to(home.reports).as_posix() for path in files}


def _name(path: Path) -> str:
    """What a page is of; other files have their endings."""
    if path.name == _WHOLE:
        return "all pages"
    return str(path.with_suffix("") if path.suffix == ".html" else path)


def _files(folder: Path, *, deep: bool) -> list[Path]:
    found = folder.rglob("[!.]*") if deep else folder.glob("[!.]*")
    return [path for path in found if path.suffix in _SHOWN and path.is_file() and not path.is_symlink()]
