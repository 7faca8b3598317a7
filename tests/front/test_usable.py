"""The pages in a browser: axe-core finds no serious fault, they fit a phone, and the keyboard reaches everything."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from assets.home import Home
from assets.monitoring.comparison import Column
from assets.monitoring.distributions import Distribution
from assets.monitoring.report import DriftReport
from pipelines import letters
from pipelines.guard import token_of

pytestmark = pytest.mark.slow

Served = Callable[..., AbstractContextManager[dict[str, str]]]
PATHS = {
    "the first page": "/",
    "a past night": "/nights?as_of=2024-01-13",
    "why, rule by rule": "/why/6",
    "why, by reasons": "/why/2",
    "numbers with rows": "/rows?version=6",
    "rows of a slice": "/rows?version=6&by=channel&value=Phone",
    "rows of a cell": "/rows?version=6&label=cards&predicted=consumer_loan",
    "drift": "/drift/2024-01-18.html",
    "reports": "/reports",
    "an error": "/why/none",
}
DRIFTED = (
    Column("channel", "features", "psi", 2.2, 0.1, 0.2, drifted=True),
    Column("domain_classifier", "wording", "auc", 0.52, 0.53, 0.55, drifted=False, note="90 texts"),
)
WIDTHS = (1440, 390)
SERIOUS = ("serious", "critical")
REACHABLE = "a[href], button, input:not([type=hidden]), select, summary, [tabindex]"
NAMED = f"""() => {{
    const found = [...document.querySelectorAll('{REACHABLE}')].filter((one) => one.checkVisibility())
    window.named = window.named ?? 0
    for (const one of found) one.dataset.name ??= `${{window.named++}} ${{one.outerHTML.slice(0, 120)}}`
    return found.map((one) => one.dataset.name)
}}"""
FOCUSED = """() => {
    const one = document.activeElement, closed = one.matches('details:not([open]) > summary')
    return {name: one.dataset.name, closed, outline: getComputedStyle(one).outlineStyle}
}"""


@pytest.fixture
def front(told: Any, gate: Any, served: Served) -> Iterator[str]:
    """The front door of a home with weeks behind it, of whose last night everything is known."""
    told.night(16).gate("5", told.evaluate("training-5", wrong=(3, 5)))
    told.crown("5")
    told.night(17)
    elsewhere = [place for place in range(240) if place % 4 == 1]
    told.gate("6", told.evaluate("training-6", wrong=range(0, 96, 8), champion_wrong=elsewhere))
    told.land(
        [{"object_id": "a", "key": "a.csv", "landed": 9, "rejects": 1, "seq": 0, "landed_on": told.day}],
        [{"object_key": "a.csv", "reason": "broken-quote", "raw_text": "x"}],
    )
    told.measure()
    about = {"reference_rows": 100, "current_rows": 100, "columns": DRIFTED, "training_id": "training-6"}
    drift = DriftReport(told.day, "6", True, 1.0, "2 of 2 columns drifted", share_threshold=0.3, **about)
    kinds = {"channel": asdict(Distribution(("Web", "Phone"), (80, 20), (30, 70)))}
    told.publish("drift", "drift.json", asdict(drift), distributions=kinds)
    told.decide(drifted=True)
    letters.write(told.home)
    with served(told.home, "front") as found:
        yield found["front"]


@pytest.fixture
def entered(page: Page, front: str, home: Home) -> Page:
    page.goto(f"{front}/?token={token_of(home)}")
    return page


def looks(page: Page) -> Iterator[str]:
    """Each width of a screen, light and dark."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            yield f"{width} {scheme}"


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical, and a page that is wider than its screen."""
    found = Axe().run(page).response["violations"]
    told = [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"] if one["impact"] in SERIOUS]
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return told + ([f"{wide} pixels too wide"] if wide > 0 else [])


def test_no_page_has_a_serious_fault_in_any_look(entered: Page, front: str, told: Any, tmp_path: Path) -> None:
    site = letters.copy_site(told.home, tmp_path / "site", texts=False, reports=True).folder
    kinds = {path.parent: path for path in sorted(site.rglob("*.html"))}
    addresses = {name: front + path for name, path in PATHS.items()}
    addresses |= {f"exported: {path.relative_to(site)}": path.as_uri() for path in kinds.values()}
    addresses |= {"the letter": f"{front}/letters/{told.day}.html"}
    found = {}
    for name, address in addresses.items():
        entered.goto(address)
        entered.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        found |= {f"{name}, {look}": faults(entered) for look in looks(entered)}
    assert {name: told for name, told in found.items() if told} == {}
    assert len(found) > 50


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(entered: Page, front: str, path: str) -> None:
    entered.goto(front + path)
    reached: set[str] = set()
    while True:
        entered.keyboard.press("Tab")
        names = entered.evaluate(NAMED)
        focused = entered.evaluate(FOCUSED)
        if focused["name"] is None or focused["name"] in reached:
            break
        assert focused["outline"] not in ("none", "hidden"), focused
        reached.add(focused["name"])
        if focused["closed"]:
            entered.keyboard.press("Enter")
    assert set(names) == reached
