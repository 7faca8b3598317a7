"""The servers for browsers, each behind the guard: `python -m pipelines.servers NAME PORT`."""

import html
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from assets.lake import Home
from assets.registry.tracking import database
from pipelines.guard import Guard, JsonOnly, token_of

__all__ = ["WORKSPACE", "serve"]

WORKSPACE = "workspace.yaml"
"""The file in the Dagster instance's folder that says where the definitions are served."""

_SHOWN = ("demonstration.png", "data-docs/index.html", "drift/*.html", "replay/*.png")
"""The pages that the reports' first page links to."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; font-src data:; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Reports contain their scripts and styles. They load nothing from elsewhere and send nothing anywhere."""


@contextmanager
def dagster(home: Home) -> Iterator[ASGIApp]:
    """Dagster's pages and its GraphQL, on the home's instance and the definitions that its workspace names."""
    from dagster import DagsterInstance, __version__
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context

    workspace = WorkspaceFileTarget([str(home.dagster / WORKSPACE)])
    with DagsterInstance.from_config(str(home.dagster)) as instance:
        # The default of `dagster-webserver`.
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
        with WorkspaceProcessContext(instance, workspace, __version__) as context:
            yield JsonOnly(create_app_from_workspace_process_context(context, live_data_poll_rate=2000))


@contextmanager
def mlflow(home: Home) -> Iterator[ASGIApp]:
    """MLflow's pages and its API, on the home's registry."""
    from mlflow.server import constants

    store, artifacts = database(home.mlflow), "mlflow-artifacts:/"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(home.mlflow / "served"),
    }
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, artifacts)
    yield app


class Reports(StaticFiles):
    """Serves files by name: it lists no folder, and follows no symbolic link out."""

    def file_response(self, *arguments: Any) -> Response:
        response = super().file_response(*arguments)
        response.headers["Content-Security-Policy"] = _POLICY
        return response


@contextmanager
def reports(home: Home) -> Iterator[ASGIApp]:
    """The pages and charts under `home.reports`, and a first page that links to them."""

    def index(_: Request) -> Response:
        paths = [path for pattern in _SHOWN for path in sorted(home.reports.glob(pattern))]
        names = [html.escape(path.relative_to(home.reports).as_posix()) for path in paths]
        items = "".join(f'<li><a href="/{name}">{name}</a></li>' for name in names)
        title = f"{html.escape(home.domain.title)}: reports"
        return HTMLResponse(f"<!DOCTYPE html><title>{title}</title><h1>{title}</h1><ul>{items or 'None yet.'}</ul>")

    home.reports.mkdir(parents=True, exist_ok=True)
    yield Starlette(routes=[Route("/", index), Mount("/", Reports(directory=home.reports))])


def serve(name: Literal["dagster", "mlflow", "reports"], port: int, host: str = "127.0.0.1") -> None:
    """Serve one of them for the home in EVERGREEN_HOME, as http://127.0.0.1:PORT, and print the address to open."""
    os.umask(0o077)
    home = Home.from_environment()
    token = token_of(home)
    with {"dagster": dagster, "mlflow": mlflow, "reports": reports}[name](home) as app:
        print(f"{name}: http://127.0.0.1:{port}/?token={token}", flush=True)  # noqa: T201
        uvicorn.run(Guard(app, port, token), host=host, port=port, log_level="warning", proxy_headers=False)


if __name__ == "__main__":
    typer.run(serve)
