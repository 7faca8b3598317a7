"""Shows names and values from data as plain text everywhere, never as markup, mathematics or formulas."""

import html
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from assets.settings import Domain

__all__ = [
    "Cell",
    "Markdown",
    "Table",
    "capitalized",
    "label_name",
    "markdown",
    "markdown_list",
    "markdown_table",
    "names_are_text",
    "plain",
    "slice_name",
    "text_table",
]

_MARKUP = re.compile(r"([\\`*_\[\]|~$])")
_AT_THE_START = re.compile(r"^([-+#=]|\d+(?=[.)](?:\s|$)))")
_NUMBER = re.compile(r"[-+]?\d")

Cell = str | int | float


class Table(NamedTuple):
    """A head and its rows, as plain data: how they are shown is `markdown_table`'s to say, or Dagster's."""

    head: Sequence[str]
    rows: Iterable[Sequence[Cell]]


class Markdown(str):
    """A cell that is Markdown already."""

    __slots__ = ()


def label_name(domain: Domain, label: str) -> str:
    """A label's display name, or the label itself if the domain does not (or no longer) have it."""
    return domain.labels.get(label, label)


def slice_name(domain: Domain, by: str, value: str) -> str:
    """A slice's display name: for a label the label's, otherwise the column and value."""
    return f"{domain.label.one} {label_name(domain, value)}" if by == "label" else f"{by.replace('_', ' ')} {value}"


def capitalized(words: str) -> str:
    """Words as at the start of a line; capitals within them stay."""
    return words[:1].upper() + words[1:]


def plain(value: object, most: int | None = None) -> str:
    """A value on one line: white space becomes one blank, invisible characters U+FFFD; cut after `most` characters."""
    shown = " ".join(str(value).split())
    shown = "".join("\ufffd" if unicodedata.category(character)[0] == "C" else character for character in shown)
    return shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…"


def markdown(value: object) -> str:
    """A value as Markdown that shows it literally, for Dagster and MLflow (CommonMark with GitHub's tables).

    Both turn a bare URL into a link, which does nothing by itself.
    """
    text = _MARKUP.sub(r"\\\1", html.escape(plain(value), quote=False))
    return _AT_THE_START.sub(lambda match: f"{match[0]}\\" if match[0].isdigit() else f"\\{match[0]}", text)


def markdown_list(items: Iterable[object]) -> str:
    """A bulleted list."""
    return "\n".join(f"- {markdown(item)}" for item in items)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A Markdown table, or `none` without rows. A column of numbers alone stands at the right."""
    if not (rows := [*rows]):
        return "none"
    numbers = (all(_NUMBER.match(str(cell)) for cell in column) for column in zip(*rows, strict=True))
    lines = [map(_cell, head), ("---:" if right else "---" for right in numbers), *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a terminal. The columns after the first are numbers, and stand at the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip() for first, *others in lines
    )


def _cell(value: Cell) -> str:
    return value.replace("|", "\\|") if isinstance(value, Markdown) else markdown(value)


@contextmanager
def names_are_text() -> Iterator[None]:
    """Draw with matplotlib so that `$` in a name starts no mathematics, and a letter missing from the font is a box."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield
