"""The servers of `evergreen ui` in a real browser that is logged in, and a page of another origin that attacks them."""

import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import dagster as dg
import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from assets.addresses import PORTS, address, ports
from assets.lake import Home
from assets.registry.ledger import Ledger
from assets.registry.tracking import ADDRESSES, MODEL, Tracking
from assets.resources import picture
from pipelines import ui
from pipelines.guard import token_of
from pipelines.instance import open_instance

pytestmark = pytest.mark.slow

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
START = """mutation { startSensor(sensorSelector: {repositoryLocationName: "evergreen",
    repositoryName: "__repository__", sensorName: "new_data"}) { __typename } }"""
LAUNCH = """mutation { launchRun(executionParams: {selector: {repositoryLocationName: "evergreen",
    repositoryName: "__repository__", pipelineName: "settle"}, runConfigData: {ops: {settle_version: {config:
    {version: "1", decision: "approve", by: "Ada", reason: "why"}}}}}) { __typename } }"""

ATTACK = """
async (dagster, mlflow, front, changes) => {
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


class Browser:
    """A page of headless Chromium, driven by its DevTools protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._ids = connection, count(1)
        self._call("Page.enable")

    def open(self, address: str) -> None:
        """Go there from the address bar, and wait until the page is loaded."""
        self._call("Page.navigate", url=address)
        self._await("Page.loadEventFired")

    def follow(self, address: str) -> None:
        """Click on a link of the page that is open."""
        self.run(f"Object.assign(document.createElement('a'), {{href: {json.dumps(address)}}}).click()", user=True)
        self._await("Page.loadEventFired")

    def run(self, script: str, user: bool = False) -> Any:
        """What the script, or the promise that it is, comes to."""
        done = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=user
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key of the keyboard."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._connection.recv())).get("id") != number:
            pass
        return dict(message["result"])

    def _await(self, event: str) -> None:
        while json.loads(self._connection.recv()).get("method") != event:
            pass


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Tests ask for it first: where there is none, no server is started."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on the PATH")
    command = [program, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'browser'}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        listening = next(line for line in process.stderr if "DevTools listening on" in line)
        port = listening.split("127.0.0.1:")[1].split("/")[0]
        (page,) = [t for t in json.load(urlopen(f"http://127.0.0.1:{port}/json")) if t["type"] == "page"]
        with connect(page["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Browser(connection)
        process.terminate()


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


@contextmanager
def served(home: Home, *names: str) -> Iterator[dict[str, str]]:
    """The addresses of some servers, up, each on a port of its own."""
    with ui.serving(home, *names, wanted=dict.fromkeys(PORTS, 0)) as processes:
        ui.await_servers(home, processes)
        yield {name: address(home, name).rstrip("/") for name in names if name in PORTS}


@pytest.fixture
def addresses(home: Home) -> Iterator[dict[str, str]]:
    """The servers, up, and the definitions loaded."""
    with served(home, "code", *PORTS) as found:
        yield found


def changes(home: Home) -> tuple[int, int]:
    """Runs launched, and sensors whose switch was touched."""
    with open_instance(home) as instance:
        return len(instance.get_run_ids()), len(instance.all_instigator_state())


def posted(browser: Browser, change: str) -> str:
    """What a page of Dagster itself gets."""
    options = {"method": "POST", "body": json.dumps({"query": change}), "headers": {"Content-Type": "application/json"}}
    return str(browser.run(f"fetch('/graphql', {json.dumps(options)}).then((answer) => answer.text())"))


def test_a_page_of_another_origin_changes_and_reads_nothing(
    browser: Browser, addresses: dict[str, str], evil: int, home: Home
) -> None:
    browser.open(f"{addresses['dagster']}/?token={token_of(home)}")
    for origin in (f"http://localhost:{evil}", f"http://127.0.0.1:{evil}"):
        browser.open(origin)
        arguments = [*(addresses[name] for name in ("dagster", "mlflow", "front")), [START, LAUNCH]]
        found = browser.run(f"({ATTACK})({', '.join(map(json.dumps, arguments))})")
        assert len(found) == 6
        assert set(found.values()) == {"refused"}, found
        assert changes(home) == (0, 0)
    browser.open(addresses["dagster"])
    while "Sensor" not in (answer := posted(browser, START)) or "NotFound" in answer:
        pass  # until the definitions are loaded
    assert "LaunchRunSuccess" in posted(browser, LAUNCH)
    assert changes(home) == (1, 1)


def test_one_visit_opens_all_three_and_the_links_between_them(
    browser: Browser, addresses: dict[str, str], home: Home
) -> None:
    report = home.reports / "drift" / "2024-07-01.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("<title>still</title><script>document.title = 'alive'</script><img src='http://127.0.0.1:1/x'>")
    browser.open(f"{addresses['dagster']}/?token={token_of(home)}")
    assert browser.run("location.href") == f"{addresses['dagster']}/"
    assert browser.run("document.cookie") == ""
    browser.follow(f"{addresses['front']}/drift/2024-07-01.html")
    assert browser.run("document.title") == "alive"
    browser.open(addresses["mlflow"])
    found = browser.run(
        "fetch('/ajax-api/2.0/mlflow/experiments/search?max_results=1').then((answer) => answer.status)"
    )
    assert found == 200


def test_a_picture_stands_in_the_page_of_its_asset_and_nowhere_else(
    browser: Browser, addresses: dict[str, str], evil: int, home: Home
) -> None:
    png = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    shown = {"rarest labels": picture(home, "challenger_evaluation", "2024-07-01", "a [x](y) <b>", png)}
    with open_instance(home) as instance:
        materialized = dg.AssetMaterialization("challenger_evaluation", metadata=shown, partition="2024-07-01")
        instance.report_runless_asset_event(materialized)
    browser.open(f"{addresses['dagster']}/?token={token_of(home)}")
    browser.open(f"{addresses['dagster']}/assets/challenger_evaluation?view=events&partition=2024-07-01")
    while not browser.run("document.querySelector('img[src^=\"/pictures/\"]')?.naturalWidth"):
        pass  # until the page is loaded
    assert browser.run("document.querySelector('img[src^=\"/pictures/\"]').alt") == "a [x](y) <b>"
    browser.open(f"http://127.0.0.1:{evil}")
    (file,) = home.pictures.rglob("*.png")
    address = f"{addresses['dagster']}/pictures/{file.relative_to(home.pictures)}"
    loads = f"new Promise((done) => {{ const image = new Image(); image.onload = () => done('loaded'), \
        image.onerror = () => done('refused'); image.src = {json.dumps(address)} }})"
    assert browser.run(loads) == "refused"


def test_mlflow_opens_on_models_and_their_files_without_an_assistant(browser: Browser, home: Home) -> None:
    client = Tracking(home.mlflow, home.domain).client
    run = client.create_run(client.create_experiment(MODEL, artifact_location=ADDRESSES)).info.run_id
    sent = home.mlflow / "served" / run / "artifacts" / "card.txt"  # where an earlier Evergreen kept it
    sent.parent.mkdir(parents=True)
    sent.write_text("card")
    with served(home, "mlflow") as found:
        browser.open(f"{found['mlflow']}/?token={token_of(home)}")
        browser.run("location.hash = '#/experiments'")
        while "Model training" not in browser.run("document.body.innerText"):
            pass  # until the page is loaded
        chosen = "JSON.parse(localStorage['mlflow.workflowType_v1'])"
        assert browser.run(chosen) == "machine_learning"
        assistant = "[...document.querySelectorAll('[data-assistant-ui]')].filter((part) => part.offsetParent).length"
        assert browser.run(assistant) == 0
        assert "Assistant" not in browser.run("document.body.innerText")
        listed = f"fetch('/ajax-api/2.0/mlflow/artifacts/list?run_id={run}').then((answer) => answer.json())"
        assert [file["path"] for file in browser.run(listed)["files"]] == ["card.txt"]
        asked = "fetch('/ajax-api/3.0/mlflow/assistant/config').then((answer) => answer.status)"
        assert browser.run(asked) == 404
        browser.run(f"{chosen.replace('JSON.parse(', '').rstrip(')')} = '\"genai\"'")
        browser.open("about:blank")
        browser.open(found["mlflow"])
        assert browser.run(chosen) == "genai"


def test_the_code_is_served_to_its_owner_alone(addresses: dict[str, str], home: Home) -> None:
    ours = psutil.Process().children(recursive=True)
    listening = {c.laddr.port for p in ours for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {ports(home)[name] for name in PORTS}
    sockets = [Path(c.laddr) for p in ours for c in p.net_connections("unix") if c.laddr]
    assert sockets
    assert not [path for path in sockets if path.is_socket() and path.stat().st_mode & 0o077 and path.stat().st_uid]


DAYS = ("2024-07-01", "2024-07-02", "2024-07-03")


@pytest.fixture
def front(home: Home) -> Iterator[str]:
    """The address of a front door with three nights behind it."""
    home.claim()
    ledger, numbers = Ledger.of(home), {"evaluated_accuracy": 0.9, "evaluated_rows": 300, "mature_rows": 200}
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


def test_the_chart_is_drawn_and_the_slider_looks_back_by_the_keyboard(browser: Browser, front: str, home: Home) -> None:
    browser.open(f"{front}/?token={token_of(home)}")
    assert browser.run("document.querySelector('#chart canvas').width") > 300
    panel = "document.getElementById('day').textContent"
    assert "calm on 2024-07-03" in browser.run(panel)
    browser.run("document.querySelector('#slide input').focus()")
    browser.press("ArrowLeft", 37)
    assert "calm on 2024-07-02" in browser.run(panel)
    assert "Realised 80.0%" in browser.run(panel)
    assert browser.run("document.querySelector('select[name=as_of]').value") == "2024-07-02"
    assert "80.0%" in browser.run("document.activeElement.getAttribute('aria-valuetext')")
    browser.press("Home", 36)
    assert "<b>good</b>" in browser.run(panel)
    assert browser.run("document.querySelectorAll('b').length") == 0


def test_a_report_reaches_nothing_on_which_a_person_decides(browser: Browser, front: str, home: Home) -> None:
    """Names from data stand in the scripts that a report has in itself."""
    opened = "(() => { try { return window.open('/').document.title } catch (error) { return error.name } })()"
    asked = "fetch('/api/now').then(() => 'answered', () => 'refused')"
    (home.reports / "drift").mkdir(parents=True)
    (home.reports / "drift" / "x.html").write_text("<title>still</title><script>document.title = 'alive'</script>")
    browser.open(f"{front}/drift/x.html?token={token_of(home)}")
    assert browser.run("document.title") == "alive"
    assert browser.run("window.origin") == "null"
    assert browser.run(opened, user=True) == "TypeError"
    assert browser.run(asked) == "refused"
    browser.open(front)
    assert browser.run(opened, user=True) == ""
    assert browser.run(asked) == "answered"


def test_the_file_that_is_opened_leads_in(
    browser: Browser, front: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: browser.open(url))
    ui._open(home)
    while "As of 2024-07-03" not in browser.run("document.documentElement?.textContent ?? ''"):
        pass  # a page that goes on by itself is loaded before
    assert browser.run("location.href") == f"{front}/"


def test_two_homes_are_open_at_once(browser: Browser, front: str, home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    other.claim()
    with served(other, "front") as found:
        browser.open(f"{front}/?token={token_of(home)}")
        browser.open(f"{found['front']}/?token={token_of(other)}")
        assert "Nothing yet" in browser.run("document.body.textContent")
        browser.open(front)
        assert "As of 2024-07-03" in browser.run("document.body.textContent")
