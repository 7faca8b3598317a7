"""Names and values from data, shown to people: text they are everywhere, and never markup, mathematics or formulas."""

import html
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from assets.settings import Domain

__all__ = [
    "capitalized",
    "label_name",
    "markdown",
    "markdown_list",
    "markdown_table",
    "names_are_text",
    "plain",
    "slice_name",
]

_MARKUP = re.compile(r"([\\`*_\[\]|~])")
_AT_THE_START = re.compile(r"^([-+#=]|\d+(?=[.)](?:\s|$)))")


def label_name(domain: Domain, label: str) -> str:
    """What people call a label; one that the domain does not know (any more) is called as it is."""
    return domain.labels.get(label, label)


def slice_name(domain: Domain, by: str, value: str) -> str:
    """What people call a slice: a label by its own name, any other by its column and value."""
    return f"{domain.label.one} {label_name(domain, value)}" if by == "label" else f"{by.replace('_', ' ')} {value}"


def capitalized(words: str) -> str:
    """Words as a line begins with them; capitals within them stay."""
    return words[:1].upper() + words[1:]


def plain(value: object, most: int | None = None) -> str:
    """A value in one line: white space is one blank, what cannot be seen is U+FFFD, and beyond `most` it is cut."""
    shown = " ".join(str(value).split())
    shown = "".join("\ufffd" if unicodedata.category(character)[0] == "C" else character for character in shown)
    return shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…"


def markdown(value: object) -> str:
    """A value as Markdown that shows it as it is, for Dagster and MLflow (CommonMark, and tables as GitHub has them).

    Both make a link of a bare web address, which leads nowhere by itself.
    """
    text = _MARKUP.sub(r"\\\1", html.escape(plain(value), quote=False))
    return _AT_THE_START.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", text)


def markdown_list(items: Iterable[object]) -> str:
    """A bulleted list."""
    return "\n".join(f"- {markdown(item)}" for item in items)


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, or `none` without rows; columns after the first are numbers, unless the head is empty."""
    ruler = " | ".join(["---", *["---:" if head[0] else "---"] * (len(head) - 1)])
    lines = [" | ".join(map(markdown, cells)) for cells in rows]
    return "\n".join(f"| {line} |" for line in [" | ".join(map(markdown, head)), ruler, *lines]) if lines else "none"


@contextmanager
def names_are_text() -> Iterator[None]:
    """Draw with matplotlib so that `$` in a name is no mathematics, and a letter that its font lacks is a box."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield
