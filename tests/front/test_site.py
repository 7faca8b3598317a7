"""The exported site: every link leads to a file, nothing needs a server, and no text is in it unasked."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from assets.exceptions import NotPublished, SettingsError
from assets.front.history import Day, History
from assets.front.night import Night, night
from assets.front.site import Site, export
from assets.home import Home
from assets.monitoring.report import DriftReport
from assets.settings import FrontSettings, load_domain, load_settings

DRIFT = load_settings("quick").drift
FRONT = FrontSettings(texts=False, text_characters=40, page_rows=20)


@pytest.fixture
def write(harmed: Any, tmp_path: Path) -> Callable[..., Site]:
    def export_(folder: Path = tmp_path / "site", settings: FrontSettings = FRONT, **options: Any) -> Site:
        known = History.of(harmed.home).timeline

        def night_of(day: Day) -> Night:
            return night(harmed.home, day.as_of, known, (), ())

        return export(harmed.home, folder, night_of, settings, DRIFT, **options)

    return export_


def pages(site: Site, read: Any) -> dict[Path, Any]:
    return {path: read(path.read_text()) for path in sorted(site.folder.rglob("*.html"))}


def test_every_link_leads_to_a_file_of_the_site(write: Callable[..., Site], read: Any) -> None:
    site = write()
    found = pages(site, read)
    assert site.pages == len(found)
    linked = set()
    for path, page in found.items():
        for tag, given in page.tags:
            for address in filter(None, (given.get("href"), given.get("src"), given.get("action"))):
                if not address.startswith(("data:", "#")):
                    target = (path.parent / unquote(address)).resolve()
                    assert target.is_file(), (path, tag, address)
                    linked.add(target)
    assert set(found) <= {*linked, site.folder / "index.html"}


def test_it_has_every_night_every_verdict_and_the_rows_of_today_s_versions(
    write: Callable[..., Site], read: Any
) -> None:
    site = write()
    assert {path.name for path in (site.folder / "nights").iterdir()} == {"2024-01-01.html", "2024-01-02.html"}
    assert {path.name for path in (site.folder / "why").iterdir()} == {"1.html", "2.html"}
    text = " ".join(page.text for page in pages(site, read).values())
    assert "The rows behind version 1" in text
    assert "Version 2: channel Phone 30 complaints, page 1 of 2." in text
    assert "The others are not in this copy." in text


def test_there_is_nothing_to_decide_and_nothing_that_needs_a_server(write: Callable[..., Site], read: Any) -> None:
    for page in pages(write(), read).values():
        assert not [given for tag, given in page.tags if tag == "form" and given.get("method") == "post"]
        assert not [link for link in page.links if "//" in link]


def test_texts_are_in_it_only_if_the_settings_show_them(
    write: Callable[..., Site], harmed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(site: Site) -> bool:
        return any("SECRET" in path.read_text() for path in site.folder.rglob("*.html"))

    shown = FRONT.model_copy(update={"texts": True})
    assert not told(write(settings=shown)), "a field is sensitive"
    monkeypatch.setattr(Home, "domain", load_domain().model_copy(update={"sensitive": ()}))
    for manifest in harmed.home.lake.root.glob("training_set/*/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('["narrative", "zip_code"]', "[]"))
    assert not told(write())
    assert told(write(settings=shown))


def test_the_last_night_has_its_drift_page_and_reports_and_pictures_unless_not_wanted(
    write: Callable[..., Site], harmed: Any, read: Any
) -> None:
    reports = harmed.home.reports
    for nth in (0, 1):
        about = {"detected": None, "share": None, "reason": "none was measured", "columns": ()}
        report = DriftReport(harmed.night(nth).day, "1", reference_rows=0, current_rows=0, **about)
        harmed.publish("drift", "drift.json", asdict(report))
    evidently = ("evidently/2024-01-02.html", "evidently/2024-01-01.html")
    for name in (*evidently, "data-docs/index.html", "data-docs/v/a.html"):
        (reports / name).parent.mkdir(parents=True, exist_ok=True)
        (reports / name).write_text("a report")
    (reports / "demonstration.png").write_bytes(b"\x89PNG")
    site = write()
    assert (site.folder / "data-docs" / "v" / "a.html").is_file()
    assert (site.folder / "demonstration.png").is_file()
    assert {path.name for path in (site.folder / "drift").iterdir()} == {"2024-01-02.html"}
    assert "../drift/2024-01-02.html" in read((site.folder / "nights" / "2024-01-02.html").read_text()).links
    page = read((site.folder / "drift" / "2024-01-02.html").read_text())
    assert "None was measured." in page.text
    assert "../evidently/2024-01-02.html" in page.links
    assert {path.name for path in (site.folder / "evidently").iterdir()} == {"2024-01-02.html"}
    less = write(reports=False).folder
    assert not (less / "evidently").exists()
    assert not [link for link in read((less / "drift" / "2024-01-02.html").read_text()).links if "evidently" in link]


def test_an_earlier_export_is_replaced_and_nothing_else_is(write: Callable[..., Site], tmp_path: Path) -> None:
    site = write()
    (site.folder / "nights" / "1999-01-01.html").touch()
    assert not (write().folder / "nights" / "1999-01-01.html").exists()
    (tmp_path / "mine").mkdir()
    assert write(tmp_path / "mine").pages == site.pages
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    for folder in (tmp_path / "other", tmp_path / "other" / "thesis.txt"):
        with pytest.raises(SettingsError, match="neither an empty folder nor an earlier export"):
            write(folder)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_home_without_a_night_has_nothing_to_export(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NotPublished, match="no night has run"):
        export(home, tmp_path / "site", lambda _: pytest.fail("no night"), FRONT, DRIFT)
    assert not (tmp_path / "site").exists()
