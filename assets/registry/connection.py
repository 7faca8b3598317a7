"""Connections to MLflow, whose faults become one line that names the server and what to do.

Its own means name the user of a server: `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or the file
`~/.mlflow/credentials`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from assets.exceptions import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["answered", "connect", "unless_made"]

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""A server that is restarted is waited for, about a minute; MLflow's own seven retries take four."""
_MADE = "RESOURCE_ALREADY_EXISTS"
_REMEDIES = {
    "UNAUTHENTICATED": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or write ~/.mlflow/credentials",
    "PERMISSION_DENIED": "its user may only read: use the one that writes",
    "INTERNAL_ERROR": "start it, or set EVERGREEN_MLFLOW to where it is",
}


def connect(uri: str) -> "MlflowClient":
    """A client of an MLflow database, or of a server. Imports MLflow, which takes three seconds."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    for name, value in {"MLFLOW_LOGGING_LEVEL": "WARNING", **_PATIENCE}.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    return cast("MlflowClient", _Client(client, uri)) if _is_server(uri) else client


class _Client:
    """MLflow's client of a server, all of whose calls are `answered`."""

    def __init__(self, client: "MlflowClient", uri: str) -> None:
        self._client, self._uri = client, uri

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with answered(self._uri):
                return method(*arguments, **named)

        return call


@contextmanager
def answered(uri: str) -> Iterator[None]:
    """Raises RegistryError when a server does not answer, or refuses; what exists already stays MLflow's to say."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == _MADE or not _is_server(uri):
            raise
        remedy = _REMEDIES.get(error.error_code)
        raise RegistryError(f"MLflow at {uri}: {_first_line(error)}{f'; {remedy}' if remedy else ''}") from None


@contextmanager
def unless_made() -> Iterator[None]:
    """For what another process may have created in the meantime."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != _MADE:
            raise


def _is_server(uri: str) -> bool:
    return uri.startswith("http")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
