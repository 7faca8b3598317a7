"""What README and docs/ say exists: files, pictures, make targets, commands and their options."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from assets.onboarding.reference import reference
from pipelines.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page: page.read_text() for page in PAGES}
SHELL = [
    (page, line)
    for page, text in TEXT.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT[page]):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_tables_exist(page: Path) -> None:
    for row in re.findall(r"^\|.*\|$", TEXT[page], re.M):
        for path in re.findall(r"`((?:assets|pipelines|dbt|configs|feature_repo|tests|bench)/[\w./*-]*)`", row):
            assert list(ROOT.glob(path)), path


@pytest.mark.parametrize(("page", "line"), SHELL, ids=lambda value: value if isinstance(value, str) else "")
def test_commands_exist(page: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
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
        assert (ROOT / words[1]).exists(), line
    else:
        assert words[0] in {"dagster", "dg", "export"}, f"{page.name}: nothing tests {line!r}"


def test_the_reference_of_a_domain_is_that_of_its_types() -> None:
    page = ROOT / "docs" / "domain.md"
    assert TEXT[page] == reference(), "run python -m assets.onboarding.reference > docs/domain.md"


def test_the_readme_names_where_each_package_works() -> None:
    packages = "dagster dbt-core torch transformers mlflow evidently great-expectations feast boto3 deepspeed"
    for package in packages.split():
        assert re.search(rf"^\| {package} \|", TEXT[ROOT / "README.md"], re.M), package
