"""The documentation's site: the repository's Markdown, and the Python API from its types and docstrings.

The root of the repository is the source, so that links work on a forge and on the site.
"""

import logging
import re
import sys
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

project = "Evergreen"
html_title = "Evergreen"
html_theme = "furo"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "index.html"}
extensions = ["myst_parser", "sphinx.ext.autodoc"]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/*/*.md"]
exclude_patterns = [".*", "docs/_build", "**/.*"]

myst_heading_anchors = 4
myst_links_external_new_tab = False
# Links to what is no page work on a forge alone; tests/test_docs.py tests all. dbt's SQL is not SQL to a lexer, and a
# type may have the name of a field.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure", "ref.python"]

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
maximum_signature_line_length = 100

for _talkative in ("great_expectations", "py.warnings"):  # as they are imported
    logging.getLogger(_talkative).setLevel(logging.ERROR)

_CODE = re.compile(r"`([^`\n]+)`")
_MARKUP = re.compile(r"([*|\\])")
_COLUMNS = re.compile(r"\S {3,}\S")


def _as_text(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text, with code in backticks, as in Markdown, and columns that are kept."""
    paragraphs = "\n".join(lines).strip("\n").split("\n\n")
    lines[:] = "\n\n".join(map(_paragraph, paragraphs)).split("\n")


def _paragraph(text: str) -> str:
    if _COLUMNS.search(text):
        return f"::\n\n{textwrap.indent(text, '    ')}"
    parts = _CODE.split(text)
    return "".join(f"``{part}``" if code % 2 else _MARKUP.sub(r"\\\1", part) for code, part in enumerate(parts))


def _write_api(_app: Sphinx) -> None:
    """A page for each room of assets/, with every public name of its plain modules."""
    folder = ROOT / "docs" / "_api"
    folder.mkdir(exist_ok=True)
    rooms: dict[str, list[str]] = {}
    for path in sorted((ROOT / "assets").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] not in ("definitions", "resources", "__init__"):
            rooms.setdefault(parts[1] if len(parts) > 2 else "foundation", []).append(".".join(parts))
            # autodoc would import it as a type checker does, which breaks other packages; some of them chat.
            with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
                import_module(".".join(parts))
    for room, modules in rooms.items():
        blocks = [f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n" for module in modules]
        (folder / f"{room}.md").write_text("\n".join([f"# {room}\n", *blocks]))


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", _write_api)
    app.connect("autodoc-process-docstring", _as_text)
