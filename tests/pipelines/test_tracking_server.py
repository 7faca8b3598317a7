"""The parts of MLflow's server for a team that need no servers: its users, and who may change something."""

import base64
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from assets.exceptions import SettingsError
from pipelines.tracking_server import OnlyWriters, users_in

LONG = "a long enough password"


def test_a_file_is_a_user(tmp_path: Path) -> None:
    for name in ("admin", "evergreen", "ada-l"):
        (tmp_path / name).write_text(f"{LONG} of {name}\n")
    (tmp_path / ".hidden").write_text("no user")
    assert users_in(tmp_path) == {name: f"{LONG} of {name}" for name in ("ada-l", "admin", "evergreen")}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"admin": LONG}, "no file evergreen; write that user's password into it"),
        ({"admin": LONG, "evergreen": "short"}, "evergreen: fewer than 12 characters"),
        ({"admin": LONG, "evergreen": LONG, "a:b": LONG}, "'a:b' is no user's name"),
    ],
)
def test_what_is_wrong_with_a_user_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, password in files.items():
        (tmp_path / name).write_text(password)
    with pytest.raises(SettingsError, match=message) as raised:
        users_in(tmp_path)
    assert LONG not in str(raised.value)


def login(user: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:any'.encode()).decode()}"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/api/2.0/mlflow/runs/get", {}, 200),
        ("POST", "/api/2.0/mlflow/runs/search", login("reader"), 200),
        ("POST", "/api/2.0/mlflow/runs/create", login("evergreen"), 200),
        ("POST", "/api/2.0/mlflow/runs/create", login("admin"), 200),
        ("POST", "/api/2.0/mlflow/runs/create", login("reader"), 403),
        ("POST", "/api/2.0/mlflow/runs/create", login("evergreen2"), 403),
        ("PATCH", "/api/2.0/mlflow/users/update-admin", login("reader"), 403),
        ("DELETE", "/ajax-api/2.0/mlflow/experiments/search", login(""), 401),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/search", login("reader"), 403),
        ("POST", "/api/2.0/mlflow/runs/create", {}, 401),
        ("POST", "/api/2.0/mlflow/runs/create", {"Authorization": "Bearer x"}, 401),
        ("POST", "/api/2.0/mlflow/runs/create", login("evergreen") | {"Origin": "http://other"}, 403),
        ("POST", "/api/2.0/mlflow/runs/create", login("evergreen") | {"Origin": "http://testserver"}, 200),
    ],
)
def test_who_may_change_something(method: str, path: str, headers: dict[str, str], status: int) -> None:
    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse("done"), methods=every)])
    assert TestClient(OnlyWriters(app)).request(method, path, headers=headers).status_code == status
