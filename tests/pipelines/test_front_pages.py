"""Why, rows, the letter and the export, as a person reaches them: over HTTP and by commands."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from assets.home import Home
from assets.monitoring.report import DriftReport
from assets.registry.shared_ledger import ledger_of
from pipelines.cli import app
from pipelines.front import application

DAY = "2024-07-01"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One for all: Dagster's tables take long to make."""
    with pytest.MonkeyPatch.context() as patch:
        home = Home(tmp_path_factory.mktemp("pages") / "home")
        patch.setenv("EVERGREEN_HOME", str(home.root))
        home.claim()
        about = {"version": "1", "training_id": "t1", "champion": None, "numbers": {}, "reasons": ["good"]}
        body: dict[str, Any] = about | {"decision": "awaiting-approval", "evaluation": "e1"}
        ledger_of(home).append("verdict", "t1-1", DAY, body)
        yield home


@pytest.fixture(scope="module")
def client(home: Home) -> Iterator[TestClient]:
    with application(home) as served:
        yield TestClient(served, "http://127.0.0.1:3001", follow_redirects=False)


def test_a_verdict_is_a_page_and_json(client: TestClient) -> None:
    page = client.get("/why/1")
    assert (page.status_code, "Version 1 awaits approval" in page.text) == (200, True)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/api/why/1").json()["reasons"] == ["good"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/why/7", "No version of this number was judged."),
        ("/why/%3Cscript%3E", "No version of this number was judged."),
        ("/rows", "There is no evaluation of such a version."),
        ("/rows?version=1", "There is no evaluation of such a version."),
        ("/rows?version=1&by=state&value=CA", "There are no such rows."),
        ("/rows?as_of=../../secrets&column=state", "There are no such rows."),
        (f"/rows?as_of={DAY}&column=state", "There are no such rows."),
        ("/rows?version=1&label=cards&page=two", "There are no such rows."),
        ("/rows?password=1", "There are no such rows."),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(client: TestClient, path: str, words: str) -> None:
    for answer in (client.get(path), client.get(f"/api{path}")):
        assert (answer.status_code, words in answer.text) == (404, True), answer.text
        assert "<script>" not in answer.text


def test_drift_is_a_page_and_json(client: TestClient, home: Home) -> None:
    unmeasured = {"detected": None, "share": None, "reason": "there is <b>no champion", "columns": ()}
    report = DriftReport(DAY, None, reference_rows=0, current_rows=0, **unmeasured)  # type: ignore[arg-type]
    with home.lake.staging(f"drift/{DAY}") as staged:
        (staged / "drift.json").write_text(json.dumps(asdict(report)))
        home.lake.publish(f"drift/{DAY}", "v", staged)
    page = client.get(f"/drift/{DAY}.html")
    assert (page.status_code, "There is &lt;b&gt;no champion." in page.text) == (200, True)
    assert "unsafe" not in page.headers["content-security-policy"]
    assert f'<a href="/drift/{DAY}.html">' in client.get("/").text
    assert client.get(f"/api/drift/{DAY}").json()["sentence"] == "There is <b>no champion."


@pytest.mark.parametrize("day", ["2024-07-02", "..", "%00", "<script>", "x" * 300])
def test_a_day_whose_drift_was_not_measured_has_no_page(client: TestClient, day: str) -> None:
    for answer in (client.get(f"/drift/{day}.html"), client.get(f"/api/drift/{day}")):
        assert answer.status_code == 404
        assert "<script>" not in answer.text


def test_the_letter_is_written_and_shown(home: Home) -> None:
    shown = CliRunner().invoke(app, ["letter"])
    assert shown.exit_code == 0, shown.output
    folder = home.reports / "letters"
    assert shown.stdout == (folder / f"{DAY}.md").read_text()
    assert "Version 1 awaits approval" in (folder / f"{DAY}.html").read_text()


def test_the_letter_is_written_where_it_is_wanted(home: Home, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["letter", "--output", str(tmp_path / "mail")]).exit_code == 0
    assert {path.name for path in (tmp_path / "mail").iterdir()} == {f"{DAY}.html", f"{DAY}.md"}


def test_the_front_door_is_exported(home: Home, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export-site", str(tmp_path / "site"), "--no-reports"])
    assert done.exit_code == 0, done.output
    assert "Version 1 awaits approval" in (tmp_path / "site" / "index.html").read_text()
    (tmp_path / "thesis.txt").touch()
    assert CliRunner().invoke(app, ["export-site", str(tmp_path)]).exit_code != 0


@pytest.mark.parametrize("command", [["letter"], ["export-site", "site"]])
def test_a_home_without_a_night_has_none(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert "no night has run" in str(done.exception)
    assert not (tmp_path / "site").exists()
