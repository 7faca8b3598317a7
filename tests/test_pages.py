"""Pages are the newest writer's, whichever machine shows them."""

from pathlib import Path

import boto3
import pytest

from assets.home import Home
from assets.pages import Pages
from assets.settings import EMBEDDED
from tests.conftest import empty_bucket


@pytest.fixture
def machines(objects_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Pages, Pages]:
    """The reports of two machines that share a home, and no folder."""
    empty_bucket("pages", objects_server, monkeypatch)
    one, two = (
        Home(tmp_path / name, EMBEDDED.model_copy(update={"objects": "s3://pages/team"})).pages
        for name in ("one", "two")
    )
    return one, two


def write(pages: Pages, name: str, text: str) -> Path:
    path = pages.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(pages: Pages, name: str) -> str | None:
    path = pages.fetch(name)
    return path.read_text() if path else None


def test_a_page_is_shown_as_the_newest_writer_left_it(machines: tuple[Pages, Pages]) -> None:
    one, two = machines
    one.put(write(one, "evidently/2024-07-01.html", "first"))
    assert read(two, "evidently/2024-07-01.html") == "first"
    two.put(write(two, "evidently/2024-07-01.html", "second"))
    assert read(one, "evidently/2024-07-01.html") == "second"
    assert one.names() == two.names() == ["evidently/2024-07-01.html"]
    assert read(two, "evidently/2024-07-02.html") is None


def test_a_site_takes_the_place_of_the_one_before(machines: tuple[Pages, Pages]) -> None:
    one, two = machines
    for pages, names in ((one, ("index.html", "suites/old.html")), (two, ("index.html", "suites/new.html"))):
        for name in names:
            write(pages, f"data-docs/{name}", f"{name} of {pages.folder.parent.name}")
        pages.put(pages.folder / "data-docs")
    assert one.names("data-docs/") == ["data-docs/index.html", "data-docs/suites/new.html"]
    assert read(one, "data-docs/index.html") == "index.html of two"
    assert read(one, "data-docs/suites/old.html") is None  # a copy of its own, too


def test_what_is_removed_is_gone_everywhere(machines: tuple[Pages, Pages]) -> None:
    one, two = machines
    one.put(write(one, "letters/a.html", "text"))
    assert read(two, "letters/a.html") == "text"
    two.remove(["letters/a.html", "letters/never-there.html"])
    assert read(one, "letters/a.html") is None
    assert one.names() == []


def test_a_part_of_the_pages_has_names_of_its_own(machines: tuple[Pages, Pages]) -> None:
    one, two = machines
    one.put(write(one, "pictures/drift/2024-07-01/abc.png", "png"))
    assert read(two.below("pictures"), "drift/2024-07-01/abc.png") == "png"
    assert two.below("pictures").names() == ["drift/2024-07-01/abc.png"]


@pytest.mark.parametrize("name", ["../DOMAIN", ".hidden/x", "a/../../DOMAIN", "a//b", "/etc/passwd", "a/.b", ""])
def test_no_name_leads_out(machines: tuple[Pages, Pages], tmp_path: Path, name: str) -> None:
    (tmp_path / "two" / "reports").mkdir(parents=True)
    (tmp_path / "two" / "DOMAIN").write_text("secret")
    boto3.client("s3").put_object(Bucket="pages", Key="team/DOMAIN", Body=b"secret")
    for pages in machines:
        assert pages.fetch(name) is None


def test_a_folders_pages_are_neither_hidden_nor_linked(tmp_path: Path) -> None:
    pages = Home(tmp_path).pages
    write(pages, "letters/a.html", "text")
    write(pages, ".hidden/a.html", "text")
    write(pages, "letters/.half.html", "text")
    (pages.folder / "letters" / "out.html").symlink_to(tmp_path)
    (pages.folder / "out").symlink_to(pages.folder / "letters", target_is_directory=True)
    pages.put(pages.folder / "letters" / "a.html")
    assert pages.names() == pages.names("letters/") == ["letters/a.html"]
    assert read(pages, "letters/a.html") == "text"
    assert pages.fetch("letters/out.html") is None
    pages.remove(["letters/a.html"])
    assert pages.names() == []
