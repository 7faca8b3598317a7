"""What the reports' folder has, by what it is, so that all of it can be found from one page."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from assets.home import Home

__all__ = ["Shelf", "shelves"]

_SHOWN = (".html", ".png", ".md")
_NAMES = {"data-docs": "Data Docs", "": "other"}
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
    names: dict[str, list[str]] = {}
    for name in home.pages.names():
        if name.endswith(_SHOWN):
            folder, _, below = name.rpartition("/") if "/" not in name else name.partition("/")
            names.setdefault(folder, []).append(below)
    found = [Shelf(_NAMES.get(folder, folder), _paths(folder, names[folder])) for folder in sorted(names, key=_last)]
    return tuple(found)


def _last(folder: str) -> tuple[bool, str]:
    """What is in no folder comes last."""
    return not folder, folder


def _paths(folder: str, names: list[str]) -> dict[str, str]:
    shown = [_WHOLE] if _WHOLE in names and folder else sorted(names, reverse=True)
    return {_name(PurePosixPath(name)): f"{folder}/{name}".removeprefix("/") for name in shown}


def _name(path: PurePosixPath) -> str:
    """What a page is of; other files have their endings."""
    if path.name == _WHOLE:
        return "all pages"
    return str(path.with_suffix("") if path.suffix == ".html" else path)
