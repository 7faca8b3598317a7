"""What README and docs/ say exists: files, pictures, make targets, commands and their options."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml
from markdown_it import MarkdownIt

from assets.settings import Settings
from assets.settings.reference import domain_reference, settings_reference
from pipelines.cli import app
from pipelines.reference import reference as commands_reference

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/*.md"))]
TEXT = {page: page.read_text() for page in PAGES}
SHELL = [
    (page, line)
    for page, text in TEXT.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def links(text: str) -> set[str]:
    """Where the links and the pictures of a text in Markdown lead to."""
    inside = [child for token in MarkdownIt().enable("table").parse(text) for child in token.children or ()]
    found = {str(each.attrGet("href") or each.attrGet("src")) for each in inside if each.type in ("link_open", "image")}
    return {target for target in found if not target.startswith(("http://", "https://"))}


def anchors(text: str) -> set[str]:
    """The anchors that a forge and the site give to the headings of a text."""
    tokens = MarkdownIt().enable("table").parse(text)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target in sorted(links(text)):
        path, _, anchor = target.partition("#")
        to = page.parent / path if path else page
        if not to.exists() or (anchor and anchor not in anchors(text if to == page else to.read_text())):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    assert broken(page, TEXT[page]) == []


def test_a_broken_link_would_be_found() -> None:
    text = "# One `a`\n[a](#one-a) [b](#two) ![c](none.png) [d](docs/index.md#none) [e](docs/index.md)\n\n`[f](no)`"
    assert broken(ROOT / "README.md", text) == ["#two", "docs/index.md#none", "none.png"]


def test_every_page_is_in_the_contents_of_the_site() -> None:
    folder = ROOT / "docs"
    listed = re.findall(
        r"^[\w./-]+$", "".join(re.findall(r"```\{toctree\}(.*?)```", TEXT[folder / "index.md"], re.S)), re.M
    )
    assert {(folder / f"{page}.md").resolve() for page in listed} == {*PAGES} - {folder / "index.md"}


@pytest.mark.slow
def test_the_site_is_complete_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="make docs installs it")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    pages = sorted(tmp_path.rglob("*.html"))
    assert "evergreen rollback" in (tmp_path / "docs" / "commands.html").read_text()
    assert "Champion" in (tmp_path / "docs" / "_api" / "scoring.html").read_text()
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|source|iframe)[^>]* src=\"([^\"]+)|<link[^>]* href=\"([^\"]+)", text)
        linked = re.findall(r"<a [^>]*href=\"([^\"#]+)", text)
        assert not [target for pair in loaded for target in pair if target.startswith(("http", "//"))], page
        for target in [*(target for pair in loaded for target in pair if target), *linked]:
            if not target.startswith(("http:", "https:", "data:", "mailto:")):
                assert (page.parent / target.partition("?")[0].partition("#")[0]).exists(), (page, target)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_in_tables_exist(page: Path) -> None:
    for row in re.findall(r"^\|.*\|$", TEXT[page], re.M):
        for path in re.findall(r"`((?:assets|pipelines|dbt|configs|feature_repo|tests|bench)/[\w./*-]*)`", row):
            assert list(ROOT.glob(path)), path


@pytest.mark.parametrize(("page", "line"), SHELL, ids=lambda value: value if isinstance(value, str) else "")
def test_commands_exist(page: Path, line: str) -> None:
    words = shlex.split(line.partition("|")[0], comments=True)
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0].endswith("evergreen"):
        group = typer.main.get_command(app)
        if words[1] == "--domain":
            words = words[:1] + words[3:]
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        command.make_context(words[1], words[2:])
    elif words[0].endswith("python"):
        assert find_spec(words[2]) if words[1] == "-m" else (ROOT / words[1]).exists(), line
    elif words[:2] == ["docker", "compose"]:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        assert words[2] in ("up", "down", "logs")
        assert {word for word in words[3:] if not word.startswith("-")} <= set(services)
    elif words[0] in ("kubectl", "helm"):
        assert all((ROOT / word).exists() for word in words if word.startswith("deploy/")), line
    else:
        assert words[0] in {"dagster", "dg", "export", "unset", "."}, f"{page.name}: nothing tests {line!r}"


@pytest.mark.parametrize(
    ("page", "reference"),
    [("domain", domain_reference), ("settings", settings_reference), ("commands", commands_reference)],
)
def test_the_references_are_those_of_their_types(page: str, reference: Callable[[], str]) -> None:
    assert TEXT[ROOT / "docs" / f"{page}.md"] == reference(), "run make docs"


def test_every_setting_has_its_meaning_and_its_values() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \| (.*?) \|$", settings_reference(), re.M)
    assert not [row for row in rows if not all(row)]
    (test_rows,) = [row for row in rows if row[0] == "test_rows"]
    assert test_rows[1:3] == ("a whole number, at least 1", "`1500`, quick `500`, replay `500`")
    nested = {name for name, *_ in rows}
    assert {*Settings.model_fields["gate"].annotation.model_fields, "max_tokens", "anchor", "page_rows"} <= nested  # type: ignore[union-attr]


@pytest.mark.parametrize(("badge", "said"), [("licence", "licence: {licence}"), ("python", "python: {versions}")])
def test_badges_are_true(badge: str, said: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, end = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups())  # type: ignore[union-attr]
    versions = " | ".join(f"3.{minor}" for minor in range(first, end))
    picture = (ROOT / "docs" / "images" / f"{badge}.svg").read_text()
    assert f"<title>{said.format(licence=project['license'], versions=versions)}</title>" in picture
    assert f"(docs/images/{badge}.svg)" in TEXT[ROOT / "README.md"]


def test_the_readme_names_where_each_package_works() -> None:
    packages = "dagster dbt-core torch transformers mlflow evidently great-expectations feast boto3 deepspeed"
    for package in packages.split():
        assert re.search(rf"^\| {package} \|", TEXT[ROOT / "README.md"], re.M), package
