"""The servers for browsers, each behind the guard: `python -m pipelines.servers NAME PORT FD`."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files as files_of
from typing import TYPE_CHECKING, Literal

import typer
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import ASGIApp

from assets.addresses import PICTURES
from assets.home import Home
from assets.registry.tracking import ADDRESSES, artifacts, database
from pipelines.guard import Guard, JsonOnly, cookie_of, token_of
from pipelines.page_files import PageFiles

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["WORKSPACE", "serve", "without_assistant"]

WORKSPACE = "workspace.yaml"
"""The file in the Dagster instance's folder that says where the definitions are served."""

_MODELS_SHOWN = """
<script>
  for (const [name, value] of [
    ["mlflow.workflowType_v1", "machine_learning"], ["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", true]
  ]) localStorage[name] ??= JSON.stringify(value)
</script>
<style>
  [data-assistant-ui] { display: none !important }
  :is(h1, h2) ~ table { margin-bottom: 24px }
  :is(h1, h2) ~ table :is(th, td) { padding: 2px 24px 2px 0; text-align: left }
</style>
"""
"""In the head of MLflow's page, which has no settings for it: models before agents unless a person has chosen, no
assistant, and room between the columns of a description's tables."""


@contextmanager
def dagster(home: Home) -> Iterator[ASGIApp]:
    """Dagster's pages and its GraphQL, on the home's instance and the definitions that its workspace names.

    It also serves the pictures in its pages, which are of its own origin: they stay when ports change, and no page of
    another origin can load them.
    """
    from dagster import DagsterInstance, __version__
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context

    workspace = WorkspaceFileTarget([str(home.dagster / WORKSPACE)])
    with DagsterInstance.from_config(str(home.dagster)) as instance:
        # The default of `dagster-webserver`.
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
        with WorkspaceProcessContext(instance, workspace, __version__) as context:
            app = create_app_from_workspace_process_context(context, live_data_poll_rate=2000)
            app.router.routes.insert(0, Mount(PICTURES, PageFiles(home.pages.below(home.pictures.name))))
            yield JsonOnly(app)


@contextmanager
def mlflow(home: Home) -> Iterator[ASGIApp]:
    """MLflow's pages and its API, on the home's registry; without its assistant, which runs commands."""
    from mlflow.server import constants

    store, files = database(home.mlflow), artifacts(home.mlflow)
    files.mkdir(exist_ok=True)
    for logged in (home.mlflow / "served").glob("*"):  # where an earlier Evergreen kept what was sent to the server
        logged.rename(files / logged.name)
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACT_ROOT_ENV_VAR: ADDRESSES,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(files),
    }
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, ADDRESSES)
    yield without_assistant(app)


def without_assistant(app: "FastAPI") -> ASGIApp:
    """MLflow's application with a page of ours, which shows models first, and no assistant."""
    from mlflow.server import app as pages

    page = (files_of("mlflow.server") / "js" / "build" / "index.html").read_text()
    shown = page.replace("<head>", f"<head>{_MODELS_SHOWN}", 1)
    pages.view_functions["serve"] = lambda: shown  # behind the login, where there is one
    app.router.routes.insert(
        0, Mount("/ajax-api/3.0/mlflow/assistant", PlainTextResponse("There is no assistant.", 404))
    )
    return app


@contextmanager
def front(home: Home) -> Iterator[ASGIApp]:
    """The front door, and the reports."""
    from pipelines.front import application

    with application(home) as app:
        yield app


def serve(name: Literal["dagster", "mlflow", "front"], port: int, fd: int) -> None:
    """Serve one of them for the home in EVERGREEN_HOME, as http://127.0.0.1:PORT, on an inherited listening socket."""
    os.umask(0o077)
    home = Home.from_environment()
    with {"dagster": dagster, "mlflow": mlflow, "front": front}[name](home) as app:
        settings = uvicorn.Config(
            Guard(app, port, token_of(home), cookie_of(home)), log_level="warning", proxy_headers=False
        )
        uvicorn.Server(settings).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    typer.run(serve)
