"""The servers of `evergreen ui` in a real browser that is logged in, and a page of another origin that attacks them."""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import psutil
import pytest
from playwright.sync_api import Page, expect

from assets.addresses import PORTS, ports
from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from assets.registry.tracking import ADDRESSES, MODEL, Tracking
from assets.resources import picture
from pipelines import ui
from pipelines.guard import token_of
from pipelines.instance import open_instance

pytestmark = pytest.mark.slow

Served = Callable[..., AbstractContextManager[dict[str, str]]]

START = """mutation { startSensor(sensorSelector: {repositoryLocationName: "evergreen",
    repositoryName: "__repository__", sensorName: "new_data"}) { __typename } }"""
LAUNCH = """mutation { launchRun(executionParams: {selector: {repositoryLocationName: "evergreen",
    repositoryName: "__repository__", pipelineName: "settle"}, runConfigData: {ops: {settle_version: {config:
    {version: "1", decision: "approve", by: "Ada", reason: "why"}}}}}) { __typename } }"""

ATTACK = """
async ([dagster, mlflow, front, changes]) => {
    const found = {}
    const tried = (name, work) => work.then(() => { found[name] = "done" }, () => { found[name] = "refused" })
    const loads = (element) => new Promise((done, fail) => {
        element.onload = done, element.onerror = fail, document.body.append(element)
    })
    const frame = Object.assign(document.createElement("iframe"), {name: "frame"})
    document.body.append(frame)
    for (const change of changes) {
        const address = `${dagster}/graphql?query=${encodeURIComponent(change)}`, body = JSON.stringify({query: change})
        for (const method of ["post", "get"]) {
            const form = Object.assign(document.createElement("form"), {method, action: address, target: "frame",
                enctype: "text/plain"})
            form.append(Object.assign(document.createElement("input"), {name: "query", value: change}))
            document.body.append(form)
            const answered = new Promise((done) => { frame.onload = done })
            form.submit()
            await answered
        }
        await tried("image", loads(Object.assign(new Image(), {src: address})))
        for (const type of ["text/plain", "text/plain; application/json"]) {
            await fetch(address, {method: "POST", mode: "no-cors", credentials: "include", body,
                headers: {"Content-Type": type}})
        }
        await tried("json", fetch(`${dagster}/graphql`, {method: "POST", credentials: "include", body,
            headers: {"Content-Type": "application/json"}}))
    }
    for (const [name, address] of Object.entries({dagster, mlflow, front})) {
        await tried(`${name} read`, fetch(address, {credentials: "include"}))
    }
    await tried("socket", new Promise((done, fail) => {
        const socket = new WebSocket(`${dagster.replace("http", "ws")}/graphql`, "graphql-ws")
        socket.onopen = done, socket.onerror = fail
    }))
    return found
}
"""


FOLLOW = "(href) => Object.assign(document.createElement('a'), {href}).click()"


class Evil(BaseHTTPRequestHandler):
    """A page with nothing on it: the attack is run in it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>evil</title><body>")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def evil() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def addresses(home: Home, served: Served) -> Iterator[dict[str, str]]:
    """The servers, up, and the definitions loaded."""
    with served(home, "code", *PORTS) as found:
        yield found


def changes(home: Home) -> tuple[int, int]:
    """Runs launched, and sensors whose switch was touched."""
    with open_instance(home) as instance:
        return len(instance.get_run_ids()), len(instance.all_instigator_state())


def posted(page: Page, change: str) -> str:
    """What a page of Dagster itself gets."""
    options = {"method": "POST", "body": json.dumps({"query": change}), "headers": {"Content-Type": "application/json"}}
    return str(page.evaluate("(options) => fetch('/graphql', options).then((answer) => answer.text())", options))


def test_a_page_of_another_origin_changes_and_reads_nothing(
    page: Page, addresses: dict[str, str], evil: int, home: Home
) -> None:
    page.goto(f"{addresses['dagster']}/?token={token_of(home)}")
    for origin in (f"http://localhost:{evil}", f"http://127.0.0.1:{evil}"):
        page.goto(origin)
        found = page.evaluate(ATTACK, [*(addresses[name] for name in ("dagster", "mlflow", "front")), [START, LAUNCH]])
        assert len(found) == 6
        assert set(found.values()) == {"refused"}, found
        assert changes(home) == (0, 0)
    page.goto(addresses["dagster"])
    while "Sensor" not in (answer := posted(page, START)) or "NotFound" in answer:
        pass  # until the definitions are loaded
    assert "LaunchRunSuccess" in posted(page, LAUNCH)
    assert changes(home) == (1, 1)


def test_one_visit_opens_all_three_and_the_links_between_them(
    page: Page, addresses: dict[str, str], home: Home
) -> None:
    report = home.reports / "evidently" / "2024-07-01.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("<title>still</title><script>document.title = 'alive'</script><img src='http://127.0.0.1:1/x'>")
    page.goto(f"{addresses['dagster']}/?token={token_of(home)}")
    assert page.url.startswith(addresses["dagster"])
    assert "token" not in page.url
    assert page.evaluate("document.cookie") == ""
    with page.expect_navigation():
        page.evaluate(FOLLOW, f"{addresses['front']}/evidently/2024-07-01.html")
    expect(page).to_have_title("alive")
    page.goto(addresses["mlflow"])
    found = page.evaluate(
        "fetch('/ajax-api/2.0/mlflow/experiments/search?max_results=1').then((answer) => answer.status)"
    )
    assert found == 200


LOADS = """(address) => new Promise((done) => {
    const image = new Image()
    image.onload = () => done("loaded"), image.onerror = () => done("refused"), image.src = address
})"""
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def test_a_picture_stands_in_the_page_of_its_asset_and_nowhere_else(
    page: Page, addresses: dict[str, str], evil: int, home: Home
) -> None:
    shown = {"rarest labels": picture(home, "challenger_evaluation", "2024-07-01", "a [x](y) <b>", PNG)}
    with open_instance(home) as instance:
        materialized = dg.AssetMaterialization("challenger_evaluation", metadata=shown, partition="2024-07-01")
        instance.report_runless_asset_event(materialized)
    page.goto(f"{addresses['dagster']}/?token={token_of(home)}")
    page.goto(f"{addresses['dagster']}/assets/challenger_evaluation?view=events&partition=2024-07-01")
    drawn = page.locator("img[src^='/pictures/']")
    expect(drawn).to_have_js_property("naturalWidth", 1)
    expect(drawn).to_have_attribute("alt", "a [x](y) <b>")
    page.goto(f"http://127.0.0.1:{evil}")
    (file,) = home.pictures.rglob("*.png")
    assert page.evaluate(LOADS, f"{addresses['dagster']}/pictures/{file.relative_to(home.pictures)}") == "refused"


def test_mlflow_opens_on_models_and_their_files_without_an_assistant(page: Page, home: Home, served: Served) -> None:
    client = Tracking(home.mlflow, home.domain).client
    run = client.create_run(client.create_experiment(MODEL, artifact_location=ADDRESSES)).info.run_id
    sent = home.mlflow / "served" / run / "artifacts" / "card.txt"  # where an earlier Evergreen kept it
    sent.parent.mkdir(parents=True)
    sent.write_text("card")
    with served(home, "mlflow") as found:
        page.goto(f"{found['mlflow']}/?token={token_of(home)}")
        page.goto(f"{found['mlflow']}/#/experiments")
        expect(page.get_by_text("Model training").first).to_be_visible()
        chosen = "localStorage['mlflow.workflowType_v1']"
        assert page.evaluate(chosen) == '"machine_learning"'
        expect(page.locator("[data-assistant-ui]").filter(visible=True)).to_have_count(0)
        expect(page.get_by_text("Assistant").filter(visible=True)).to_have_count(0)
        listed = f"fetch('/ajax-api/2.0/mlflow/artifacts/list?run_id={run}').then((answer) => answer.json())"
        assert [file["path"] for file in page.evaluate(listed)["files"]] == ["card.txt"]
        asked = "fetch('/ajax-api/3.0/mlflow/assistant/config').then((answer) => answer.status)"
        assert page.evaluate(asked) == 404
        page.evaluate(f"{chosen} = '\"genai\"'")
        page.goto(found["mlflow"])
        assert page.evaluate(chosen) == '"genai"'


def test_the_code_is_served_to_its_owner_alone(addresses: dict[str, str], home: Home) -> None:
    ours = psutil.Process().children(recursive=True)
    listening = {c.laddr.port for p in ours for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {ports(home)[name] for name in PORTS}
    sockets = [Path(c.laddr) for p in ours for c in p.net_connections("unix") if c.laddr]
    assert sockets
    assert not [path for path in sockets if path.is_socket() and path.stat().st_mode & 0o077 and path.stat().st_uid]


DAYS = ("2024-07-01", "2024-07-02", "2024-07-03")


@pytest.fixture
def front(home: Home, served: Served) -> Iterator[str]:
    """The address of a front door with three nights behind it."""
    home.claim()
    ledger, numbers = ledger_of(home), {"evaluated_accuracy": 0.9, "evaluated_rows": 300, "mature_rows": 200}
    verdict = {"version": "1", "training_id": "t", "champion": None, "decision": "promote", "numbers": {}}
    ledger.append("verdict", "t-1", DAYS[0], verdict | {"reasons": ["<b>good</b>"]})
    move = {"version": "1", "training_id": "t", "action": "promote", "reason": "good", "previous": None}
    ledger.append("alias", "t-1", DAYS[0], move)
    for day, accuracy in zip(DAYS, (0.9, 0.8, 0.85), strict=True):
        found = numbers | {"champion": "t", "accuracy": accuracy, "estimated_accuracy": 0.9, "drifted": [False]}
        body = {"decision": "skip", "reason": f"calm on {day}", "numbers": found, "policy": {"min_mature_rows": 100}}
        ledger.append("retraining", day, day, body)
    with served(home, "front") as found:
        yield found["front"]


def test_the_chart_is_drawn_and_the_slider_looks_back_by_the_keyboard(page: Page, front: str, home: Home) -> None:
    page.goto(f"{front}/?token={token_of(home)}")
    box = page.locator("#chart canvas").bounding_box()
    assert box is not None
    assert box["width"] > 300
    panel, slider = page.locator("#day"), page.locator("#slide input")
    expect(panel).to_contain_text("Calm on 2024-07-03")
    slider.press("ArrowLeft")
    expect(panel).to_contain_text("Calm on 2024-07-02")
    expect(panel).to_contain_text("Realised 80.0%")
    expect(page.locator("select[name=as_of]")).to_have_value("2024-07-02")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("80.0%"))
    slider.press("Home")
    expect(panel).to_contain_text("<b>good</b>")
    expect(page.locator("b")).to_have_count(0)


def test_a_report_reaches_nothing_on_which_a_person_decides(page: Page, front: str, home: Home) -> None:
    """Names from data stand in the scripts that a report has in itself."""
    opened = "(() => { try { return window.open('/').document.title } catch (error) { return error.name } })()"
    asked = "fetch('/api/now').then(() => 'answered', () => 'refused')"
    (home.reports / "evidently").mkdir(parents=True)
    (home.reports / "evidently" / "x.html").write_text("<title>still</title><script>document.title = 'alive'</script>")
    page.goto(f"{front}/evidently/x.html?token={token_of(home)}")
    expect(page).to_have_title("alive")
    assert page.evaluate("window.origin") == "null"
    assert page.evaluate(opened) == "TypeError"
    assert page.evaluate(asked) == "refused"
    page.goto(front)
    assert page.evaluate(opened) == ""
    assert page.evaluate(asked) == "answered"


def test_the_file_that_is_opened_leads_in(page: Page, front: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: bool(page.goto(url)))
    ui._open(home)
    expect(page.get_by_role("heading", name="As of 2024-07-03", exact=True)).to_be_visible()
    assert page.url == f"{front}/"


def test_two_homes_are_open_at_once(page: Page, front: str, home: Home, served: Served, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    other.claim()
    with served(other, "front") as found:
        page.goto(f"{front}/?token={token_of(home)}")
        page.goto(f"{found['front']}/?token={token_of(other)}")
        expect(page.locator("h1")).to_have_text("Nothing yet")
        page.goto(front)
        expect(page.locator("h1")).to_have_text("As of 2024-07-03")
