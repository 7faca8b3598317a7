"""What a person decides at the front door: forms and JSON end in the ledger as the commands do."""

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from assets.home import Home
from assets.registry.registry import Registry
from assets.registry.succession import Succession
from assets.settings import GatePolicy
from pipelines.front import application

HERE = "http://127.0.0.1:3001"


@pytest.fixture
def client(home: Home) -> Iterator[TestClient]:
    home.claim()
    with application(home) as app:
        yield TestClient(app, HERE, follow_redirects=False)


@pytest.fixture
def waiting(
    home: Home, promoted: Callable[..., object], policy: GatePolicy, bundle_of: Callable, evaluation_of: Callable
) -> None:
    """Version 1 is champion, and version 2 awaits approval."""
    promoted("a" * 16)
    registry = Registry(home)
    evaluation = evaluation_of("b" * 16, registry.champion())
    version = registry.register(bundle_of("b" * 16), evaluation)
    required = policy.model_copy(update={"approval": "required"})
    Succession(registry).judge(version.version, evaluation, required)


def test_a_version_is_approved_and_rolled_back_by_forms(client: TestClient, waiting: None, home: Home) -> None:
    assert "Version 2 awaits approval" in client.get("/").text
    form = {"action": "approve", "version": "2", "by": "Ada", "reason": "looks right"}
    done = client.post("/decide", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert "Version 2 became champion by approval" in client.get("/").text
    assert Registry(home).champion().version == "2"
    back = client.post("/decide", data={"action": "rollback", "version": "1", "reason": "2 misroutes"})
    assert back.status_code == 303
    assert Registry(home).champion().version == "1"
    last = Registry(home).ledger.entries("alias")[-1]
    assert (last.body["action"], last.body["reason"]) == ("rollback", "2 misroutes")


def test_a_version_is_rejected_by_json(client: TestClient, waiting: None, home: Home) -> None:
    answer = client.post("/api/versions/2/reject", json={"by": "Ada", "reason": "looks wrong"})
    assert answer.status_code == 200
    assert (answer.json()["now"]["champion"]["version"], answer.json()["now"]["waiting"]) == ("1", [])
    (approval,) = Registry(home).ledger.entries("approval")
    assert (approval.body["decision"], approval.body["by"], approval.body["reason"]) == ("reject", "Ada", "looks wrong")
    again = client.post("/api/versions/2/approve", json={"by": "Bob", "reason": "it is fine"})
    assert (again.status_code, "settled" in again.json()["error"]) == (409, True), again.text
