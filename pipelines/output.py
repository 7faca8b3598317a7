"""Where the command writes: its result to stdout, what it is doing to stderr."""

import json
from typing import Any

import typer

__all__ = ["result", "say", "show"]


def say(line: str) -> None:
    """Write a line of progress, a warning or a hint to stderr."""
    typer.echo(line, err=True)


def show(lines: str) -> None:
    """Write lines of the result to stdout."""
    typer.echo(lines)


def result(value: Any, lines: str, *, as_json: bool) -> None:
    """Write the result to stdout: its lines or, alone, its JSON."""
    show(json.dumps(value) if as_json else lines)
