"""The servers for browsers, each behind the guard: `python -m pipelines.servers NAME PORT FD`."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import typer
import uvicorn
from starlette.types import ASGIApp

from assets.lake import Home
from assets.registry.tracking import database
from pipelines.guard import Guard, JsonOnly, cookie_of, token_of

__all__ = ["WORKSPACE", "serve"]

WORKSPACE = "workspace.yaml"
"""The file in the Dagster instance's folder that says where the definitions are served."""


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
