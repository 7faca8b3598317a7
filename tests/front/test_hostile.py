"""Every page, JSON answer, letter and exported file of a home in which each name from data is markup."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from starlette.testclient import TestClient

from assets.home import Home
from assets.settings import FrontSettings
from pipelines import front, letters
from pipelines.guard import Guard

HERE = "http://127.0.0.1:3001"
SHOWN = FrontSettings(texts=True, text_characters=600, page_rows=50)
SECRETS = ("SECRET", "94110")
"""Of every record: its text, and a value that is sensitive."""


@pytest.fixture
def story(story: Any, hostile: str, gate: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A champion, and a version that awaits approval, of a domain whose words and values are hostile."""
    words = {"one": hostile, "many": hostile}
    label = story.domain.label.model_copy(update=words)
    labels = {name: f"{shown} {hostile}" for name, shown in story.domain.labels.items()}
    update = {"labels": labels, "label": label, "title": hostile}
    story.domain = story.domain.model_copy(update=update)
    monkeypatch.setattr(Home, "domain", story.domain)
    story.channels = (f"by web {hostile}", f"by phone {hostile}")
    story.gate("1", story.evaluate("training-1", wrong=(3, 5)))
    story.crown("1", reason=hostile)
    story.night(1).tell("withdrawal", "o", key=hostile, reason=hostile)
    story.land(
        [{"object_id": "a", "key": hostile, "landed": 9, "rejects": 1, "seq": 0, "landed_on": story.day}],
        [{"object_key": hostile, "reason": hostile, "raw_text": "SECRET"}],
    )
    story.publish("mart_audit", "audit.json", {"failures": [_failure(hostile)]})
    story.publish("drift", "drift.json", _drift(story, hostile))
    story.measure()
    elsewhere = [place for place in range(240) if place % 4 == 1]
    story.gate("2", story.evaluate("training-2", wrong=range(0, 96, 8), champion_wrong=elsewhere))
    story.tell("failure", "f", job=hostile, run_id=hostile, error=hostile)
    story.decide("alert-a-human", reason=hostile)
    return story


def _failure(name: str) -> dict[str, str]:
    return {"severity": "warning", "expectation": name, "suite": name}


def _drift(story: Any, name: str) -> dict[str, Any]:
    numbers = {"statistic": "psi", "value": 0.5, "calm": 0.1, "threshold": 0.1, "drifted": True, "note": name}
    about = {"as_of": story.day, "model_version": "1", "training_id": "training-1", "reason": name}
    measured = {"detected": True, "share": 1.0, "reference_rows": 9, "current_rows": 9}
    return {**about, **measured, "columns": [{"name": name, "group": "features", **numbers}]}


@pytest.fixture
def client(story: Any) -> Iterator[TestClient]:
    with front.application(story.home) as app:
        yield TestClient(Guard(app, 3001, "token", "evergreen"), HERE, headers={"Cookie": "evergreen=token"})


def pages(client: TestClient, read: Any, hostile: str) -> dict[str, Any]:
    """Every page that a link of another leads to, and some that there are not; by path."""
    asked = {"as_of": hostile, "version": hostile}
    waiting = [
        "/",
        "/reports",
        f"/why/{hostile}",
        *(str(client.build_request("GET", p, params=asked).url.raw_path, "ascii") for p in ("/nights", "/rows")),
    ]
    found: dict[str, Any] = {}
    while waiting:
        path = waiting.pop()
        found[path] = read(client.get(path).text)
        links = {link for link in found[path].links if link.startswith("/") and not link.startswith("/api/")}
        waiting += sorted(links - {*found, *waiting})
    return found


def as_json(path: str) -> tuple[str, ...]:
    """The same as JSON."""
    if path.startswith("/drift"):
        return (f"/api{path.removesuffix('.html')}",)
    if path.startswith("/nights"):
        return (path.replace("/nights?as_of=", "/api/nights/"),)
    return {"/": ("/api/now", "/api/timeline"), "/reports": ()}.get(path, (f"/api{path}",))


def assert_is_text(page: Any) -> None:
    for tag, given in page.tags:
        assert tag != "img"
        assert tag != "script" or given.get("type") == "application/json" or str(given["src"]).endswith(".js")
        assert not [name for name in given if name.startswith("on")], given
        assert not [value for value in given.values() if str(value).startswith("javascript:")], given


def test_every_name_is_text_in_every_page_and_answer_and_no_record_is_told(
    client: TestClient, read: Any, hostile: str
) -> None:
    found = pages(client, read, hostile)
    kinds = {path.partition("?")[0].split("/")[1] for path in found}
    assert kinds == {"", "nights", "why", "rows", "reports", "drift"}
    assert len(found) > 20
    for path, page in found.items():
        assert_is_text(page)
        assert hostile in page.text or path == "/reports", path
        for address in as_json(path):
            answer = client.get(address)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert not [secret for secret in SECRETS if secret in answer.text], address
        assert not [secret for secret in SECRETS if secret in page.text], path


def test_texts_are_told_by_the_pages_of_rows_alone_and_only_if_a_setting_says_so(
    story: Any, client: TestClient, read: Any, hostile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "load_front_settings", lambda: SHOWN)
    monkeypatch.setattr(Home, "domain", story.domain.model_copy(update={"sensitive": ("zip_code",)}))
    for manifest in story.home.lake.root.glob("training_set/*/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('["narrative", "zip_code"]', '["zip_code"]'))
    found = pages(client, read, hostile)
    telling = [path for path, page in found.items() if "SECRET" in page.text]
    assert len(telling) > 10
    assert {path.partition("?")[0] for path in telling} == {"/rows"}
    assert all("SECRET" in client.get(f"/api{path}").text for path in telling)
    assert not [path for path, page in found.items() if "94110" in page.text]


def test_every_name_is_text_in_what_is_taken_along(story: Any, read: Any, hostile: str, tmp_path: Path) -> None:
    written = letters.write(story.home)
    site = letters.copy_site(story.home, tmp_path / "site", texts=True, reports=True)
    files = [written.page, *site.folder.rglob("*.html")]
    assert len(files) > 20
    for path in files:
        page = read(path.read_text())
        assert_is_text(page)
        assert hostile in page.text, path
        assert not [secret for secret in SECRETS if secret in page.text], path
    rendered = read(MarkdownIt().enable("table").render(written.markdown.read_text()))
    assert_is_text(rendered)
    assert "$x$" not in written.markdown.read_text()
    assert len(rendered.links) == 1
