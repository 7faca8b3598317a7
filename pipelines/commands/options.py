"""The options that several commands have."""

import re
from pathlib import Path
from typing import Annotated

import typer

from assets.as_of import Cadence, parse
from assets.settings import load_domain

__all__ = ["Json", "Profile", "Sources", "SourcesOrConfigured", "absolute", "to_as_of", "to_date", "to_days"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Profile = Annotated[
    str, typer.Option(envvar="EVERGREEN_PROFILE", help="A file in configs/profiles, without its ending.")
]
Sources = Annotated[list[str], typer.Option(help="A file, a folder or s3://bucket/prefix. May be given again.")]
SourcesOrConfigured = Annotated[
    list[str] | None,
    typer.Option(help="A file, a folder or s3://bucket/prefix; by default EVERGREEN_SOURCES. May be given again."),
]


def absolute(source: str) -> str:
    """A source that stays the same in another working folder."""
    return source if source.startswith("s3://") else str(Path(source).absolute())


def to_as_of(text: str | None) -> str | None:
    """An as-of of the domain's cadence. Raises BadParameter."""
    return None if text is None else _parsed(text, load_domain().cadence)


def to_date(text: str) -> str:
    """A day, YYYY-MM-DD. Raises BadParameter."""
    return _parsed(text, "day")


def to_days(text: str) -> str:
    """A number of days, like 7d. Raises BadParameter."""
    if not re.fullmatch(r"[1-9]\d*d", text):
        raise typer.BadParameter(f"{text!r} is not a number of days; write 7d")
    return text


def _parsed(text: str, cadence: Cadence) -> str:
    try:
        return parse(text, cadence)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
