"""The guard before the servers: what another page, host or user asks for changes nothing and shows nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from assets.home import Home
from pipelines import servers
from pipelines.guard import Guard, cookie_of, forget_token, token_of
from pipelines.instance import open_instance

TOKEN = "let-me-in"
HERE = "http://127.0.0.1:3000"
KNOWN = {"Cookie": f"evergreen={TOKEN}"}


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("inside")


async def listen(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


@pytest.fixture(scope="module")
def client() -> TestClient:
    routes = [WebSocketRoute("/socket", listen), Route("/{path:path}", answer, methods=["GET", "POST"])]
    return TestClient(Guard(Starlette(routes=routes), 3000, TOKEN, "evergreen"), HERE, follow_redirects=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:3000", "Origin": "http://localhost:3000"},
        {"Origin": HERE, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_the_person_at_the_machine_is_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/", headers=KNOWN | headers).text == "inside"
    assert client.get("/", headers={"Authorization": f"Bearer {TOKEN}"} | headers).text == "inside"


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        *({"Host": host} for host in ("evil.example:3000", "10.evil.example", "127.0.0.1", "127.0.0.1:5000", "")),
        *({"Host": host} for host in ("localhost.evil.example:3000", "127.0.0.1:3000.evil.example", "0.0.0.0:3000")),
        *({"Origin": origin} for origin in ("http://evil.example", "null", "http://127.0.0.1:5000", "")),
        *({"Origin": origin} for origin in ("https://127.0.0.1:3000", "http://localhost:3000", f"{HERE}/")),
        *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "anything")),
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_other_hosts_and_pages_are_refused(client: TestClient, headers: dict[str, str], method: str) -> None:
    refused = client.request(method, "/", headers=KNOWN | headers)
    assert refused.status_code == 403
    assert "inside" not in refused.text
    if "Host" not in headers:
        with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/socket", headers=KNOWN | headers):
            pass


def test_a_form_on_another_port_opens_nothing(client: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.post("/", headers=KNOWN | headers).status_code == 403


@pytest.mark.parametrize(
    "headers", [{}, {"Cookie": "evergreen="}, {"Cookie": "evergreen=wrong"}, {"Authorization": "Bearer "}]
)
def test_who_does_not_know_the_token_is_told_where_it_is(client: TestClient, headers: dict[str, str]) -> None:
    refused = client.get("/?token=", headers=headers)
    assert (refused.status_code, "`evergreen ui` printed" in refused.text) == (401, True)
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/socket", headers=headers):
        pass


@pytest.mark.parametrize("path", ["/runs?page=2", "//evil.example/x?page=2"])
def test_the_printed_address_leaves_a_cookie_and_keeps_no_token(client: TestClient, path: str) -> None:
    entered = client.get(f"{HERE}{path}&token={TOKEN}")
    assert entered.status_code == 303
    assert entered.headers["location"] == f"{HERE}{path}"
    assert entered.headers["set-cookie"] == f"evergreen={TOKEN}; HttpOnly; Path=/; SameSite=strict"


def test_a_page_elsewhere_that_knows_the_token_leads_in_by_a_page_of_this_server(client: TestClient) -> None:
    """The file that `evergreen ui --open` opens: the browser brings no cookie on a way that began elsewhere."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    entered = client.get(f"{HERE}/runs?page=2&as=<b>&token={TOKEN}", headers=headers)
    assert entered.status_code == 200
    assert f'content="0; url={HERE}/runs?page=2&amp;as=%3Cb%3E"' in entered.text
    assert entered.headers["set-cookie"] == f"evergreen={TOKEN}; HttpOnly; Path=/; SameSite=strict"
    assert client.get(f"/?token={TOKEN}", headers=headers | {"Host": "evil.example:3000"}).status_code == 403


def test_each_home_has_a_cookie_of_its_own(tmp_path: Path) -> None:
    """Two that are open in one browser would end each other's logins."""
    first, second = cookie_of(Home(tmp_path / "a")), cookie_of(Home(tmp_path / "b"))
    assert first != second
    assert first == cookie_of(Home(tmp_path / "a"))


def test_a_token_is_its_home_s_and_its_owner_s_until_it_is_forgotten(home: Home) -> None:
    token = token_of(home)
    assert len(token) > 40
    assert token_of(home) == token
    assert [path.stat().st_mode & 0o777 for path in home.root.iterdir()] == [0o600]
    forget_token(home)
    assert token_of(home) != token


@pytest.fixture
def dagster(home: Home) -> Iterator[TestClient]:
    with open_instance(home):
        (home.dagster / servers.WORKSPACE).write_text(yaml.safe_dump({"load_from": []}))
    with servers.dagster(home) as app:
        yield TestClient(Guard(app, 3000, TOKEN, "evergreen"), HERE, headers=KNOWN)


def test_dagster_takes_graphql_as_posted_json_alone(dagster: TestClient) -> None:
    query = {"query": "{ version }"}
    assert dagster.post("/graphql", json=query).json()["data"]["version"]
    for kind in ("text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", ""):
        refused = dagster.post("/graphql", content='{"query": "{ version }"}', headers={"Content-Type": kind})
        assert (refused.status_code, refused.text) == (415, "Send application/json.")
    assert dagster.post("/graphql", params=query).status_code == 415
    for path in ("/graphql", "/graphql/", "//graphql", "/%67raphql"):
        assert '"version"' not in dagster.get(path, params=query).text
    assert dagster.get("/graphql", params=query).status_code == 405
