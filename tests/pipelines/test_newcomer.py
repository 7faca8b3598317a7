"""The first hour in a browser: run, front page, why, rows, a rollback by the keyboard, a retraining in Dagster."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Page, expect

from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from pipelines.guard import token_of
from pipelines.instance import open_instance

EVERGREEN = Path(sys.executable).with_name("evergreen")
SIMULATION = ("--from", "2024-01-01", "--to", "2024-06-01", "--rate", "80", "--seed", "11")
AS_OFS = ("2024-04-19", "2024-06-01")
"""Between them people begin to write in new words, so that the second version replaces the first."""
LONG = 900_000.0
"""Milliseconds for a run of the graph on a busy machine."""


@pytest.fixture
def lived(page: Page, home: Home) -> Home:
    """A home with two champions, made by the commands that README names."""
    evergreen("simulate", "--output", str(home.source), *SIMULATION, "--scenario", "new-vocabulary")
    for as_of in AS_OFS:
        evergreen("run", "--source", str(home.source), "--as-of", as_of)
    return home


def evergreen(*arguments: str) -> None:
    done = subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def titled(page: Page, words: str) -> None:
    expect(page.locator("h1")).to_have_text(words)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_newcomer_finds_what_was_decided_and_decides(
    page: Page, lived: Home, served: Callable[..., AbstractContextManager[dict[str, str]]]
) -> None:
    with served(lived, "code", "daemon", "front", "dagster", "mlflow") as addresses:
        page.goto(f"{addresses['front']}/?token={token_of(lived)}")
        titled(page, f"As of {AS_OFS[1]}")
        look_behind(page)
        roll_back(page, "version 2 misroutes mortgages")
        assert ledger_of(lived).entries("alias")[-1].body["reason"] == "version 2 misroutes mortgages"
        page.get_by_role("link", name="Dagster").click()
        retrain(page)
        page.goto(addresses["front"])
        expect(page.get_by_role("listitem").filter(has=page.get_by_role("link", name="retrain"))).to_contain_text(
            "success"
        )
    with open_instance(lived) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="retrain"))
    assert run.status is dg.DagsterRunStatus.SUCCESS


def look_behind(page: Page) -> None:
    """From the champion to the rules of its verdict, and to the rows behind a cell of its confusion matrix."""
    expect(page.locator(".tile .figure").first).to_have_text("Version 2")
    page.get_by_role("link", name="Its verdict, rule by rule").click()
    titled(page, "Version 2 passed the gate")
    expect(page.locator(".rules > li.holds").first).to_be_visible()
    page.get_by_role("link", name="The rows behind its numbers").click()
    cell = page.locator(".matrix td.right a").first
    count = int(cell.inner_text())
    cell.click()
    expect(page.locator(".records tbody tr")).to_have_count(min(count, 50))


def roll_back(page: Page, reason: str) -> None:
    """To version 1, by the keyboard alone."""
    page.get_by_role("link", name="Complaint routing").press("Enter")
    page.get_by_text("Go back to an earlier champion").press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="Version")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type(reason)
    page.keyboard.press("Enter")
    expect(page.locator(".tile .figure").first).to_have_text("Version 1")
    expect(page.locator(".tile").first).to_contain_text("became champion again, by a rollback")


def retrain(page: Page) -> None:
    """Launch it from the job's page as of the newest night, and see it end on the runs page and on the timeline."""
    page.get_by_role("link", name="Jobs").click()
    page.locator("a[href='/locations/evergreen/jobs/retrain']").first.click()
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Select a partition or create one").click()
    page.get_by_text(AS_OFS[1], exact=True).first.click()
    page.keyboard.press("Escape")
    dialog.get_by_role("button", name="Launch 1 run").click()
    page.locator("a[href$='/jobs/retrain/runs']").first.click()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=LONG)
    page.get_by_role("link", name="Overview").first.click()
    expect(page.get_by_role("link", name="retrain").first).to_be_visible()
