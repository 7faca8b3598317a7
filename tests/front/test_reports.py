"""The list of all reports: what is there and served, by what it is, and nothing else."""

from pathlib import Path
from typing import Any

from assets.front.pages import Links, reports_page
from assets.front.reports import Shelf, shelves
from assets.home import Home


def test_all_that_is_served_is_listed_the_newest_first(home: Home, tmp_path: Path) -> None:
    files = ("drift/2024-01-01.html", "drift/2024-01-02.html", "drift/.2024-01-03.html-x", "letters/2024-01-01.md")
    whole = ("data-docs/index.html", "data-docs/validations/x.html", ".data-docs/index.html")
    for path in (*files, *whole, "demonstration.png", "demonstration.bin"):
        (home.reports / path).parent.mkdir(parents=True, exist_ok=True)
        (home.reports / path).touch()
    (tmp_path / "secret.html").touch()
    (home.reports / "drift" / "2024-02-01.html").symlink_to(tmp_path / "secret.html")
    (home.reports / "elsewhere").symlink_to(tmp_path)
    assert shelves(home) == (
        Shelf("Data Docs", {"all pages": "data-docs/index.html"}),
        Shelf("drift", {"2024-01-02": "drift/2024-01-02.html", "2024-01-01": "drift/2024-01-01.html"}),
        Shelf("letters", {"2024-01-01.md": "letters/2024-01-01.md"}),
        Shelf("other", {"demonstration.png": "demonstration.png"}),
    )


def test_names_of_reports_are_text(home: Home, hostile: str, read: Any) -> None:
    name = hostile.replace("/", "") + ".html"
    (home.reports / "replay").mkdir(parents=True)
    (home.reports / "replay" / name).touch()
    page = read(reports_page(home.domain, Links("/", "", ""), shelves(home)))
    assert name.removesuffix(".html") in page.text
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    (link,) = [link for link in page.links if link.startswith("/replay/")]
    assert "<" not in link


def test_a_home_without_reports_says_so(home: Home, read: Any) -> None:
    assert "None yet" in read(reports_page(home.domain, Links("/", "", ""), shelves(home))).text
