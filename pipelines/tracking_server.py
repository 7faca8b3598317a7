"""MLflow's server for a team: `python -m pipelines.tracking_server --help`.

PostgreSQL holds its metadata and, in a database of their own, its users; files go through it to S3 or a folder. Each
file of the folder of passwords is a user: its name, and in it the password. `admin` administers, `evergreen` writes,
and all others read. `PGPASSFILE` has the databases' passwords, the standard AWS variables those of S3.
"""

import base64
import binascii
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
import uvicorn
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from assets.exceptions import SettingsError
from assets.registry.tracking import ADDRESSES

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["WRITERS", "OnlyWriters", "application", "create_database", "users_in"]

_ADMIN, _WRITER = "admin", "evergreen"
WRITERS = (_ADMIN, _WRITER)
"""The users whose requests may change something; MLflow's own permissions then say what."""
_PASSWORD_CHARACTERS = 12
"""The fewest that MLflow accepts."""
_REMEMBERED_SECONDS = 60
"""How long a password that was right is not hashed again: without, each request costs a third of a second of CPU."""
_READING = {"search", "search-datasets", "get-latest-versions", "graphql"}
"""The last parts of addresses that are read by POST."""
_REALM = {"WWW-Authenticate": 'Basic realm="mlflow"'}


class OnlyWriters:
    """Passes on requests that change something from `WRITERS` alone, and from no page of another origin.

    MLflow lets every user create experiments and models. It authenticates the user afterwards, so that a wrong name
    here gains nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _refusal(HTTPConnection(scope), scope["method"]) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)


def _refusal(connection: HTTPConnection, method: str) -> Response | None:
    if method in ("GET", "HEAD", "OPTIONS"):
        return None
    host = connection.headers.get("host", "")
    if any(origin.partition("://")[2] != host for origin in connection.headers.getlist("origin")):
        return PlainTextResponse("Pages of other origins are refused.", 403)
    if method == "POST" and connection.url.path.rpartition("/")[2] in _READING:
        return None
    user = _user_of(connection.headers.get("authorization", ""))
    if user is None:
        return PlainTextResponse("Log in.", 401, _REALM)
    return None if user in WRITERS else PlainTextResponse(f"{user} may only read.", 403)


def _user_of(authorization: str) -> str | None:
    try:
        given = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return given.partition(":")[0] or None


def users_in(folder: Path) -> dict[str, str]:
    """The password of each user: a file per user. Raises SettingsError for one that is missing, or too short."""
    files = {path.name: path for path in sorted(folder.glob("*")) if path.is_file() and not path.name.startswith(".")}
    for name in WRITERS:
        if name not in files:
            raise SettingsError(f"--passwords {folder}: no file {name}; write that user's password into it")
    users = {name: path.read_text().strip() for name, path in files.items()}
    for name, password in users.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise SettingsError(f"--passwords {folder}: {name!r} is no user's name: use a-z, 0-9 and -")
        if len(password) < _PASSWORD_CHARACTERS:
            raise SettingsError(f"--passwords {folder / name}: fewer than {_PASSWORD_CHARACTERS} characters")
    return users


def application(
    database: str, users_database: str, files: str, users: Mapping[str, str], names: tuple[str, ...]
) -> ASGIApp:
    """The server, its databases migrated and its users as given; once per process, since MLflow reads the environment.

    `files` is an s3:// address or a folder; `names` are the hosts, with port, that it answers to.
    """
    for url in (database, users_database):
        create_database(url)
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACT_ROOT_ENV_VAR: ADDRESSES,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: files,
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(names),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    app = _with_users(users_database, users)
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(database, database, ADDRESSES)
    from pipelines.servers import without_assistant

    return OnlyWriters(without_assistant(app))


def _with_users(database: str, users: Mapping[str, str]) -> "FastAPI":
    """MLflow's application behind its login, with the users as given."""
    with tempfile.NamedTemporaryFile("w", prefix="evergreen-mlflow-", suffix=".ini") as file:
        file.write(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database.replace('%', '%%')}\n"
            f"admin_username = {_ADMIN}\nauth_cache_ttl_seconds = {_REMEMBERED_SECONDS}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        file.flush()
        os.environ |= {"MLFLOW_AUTH_CONFIG_PATH": file.name, "MLFLOW_AUTH_ADMIN_PASSWORD": users[_ADMIN]}
        from mlflow.server.auth import create_app, store
    app: FastAPI = create_app()
    del os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    for name, password in users.items():
        if not store.has_user(name):
            store.create_user(name, password, is_admin=name == _ADMIN)
        elif not store.authenticate_user(name, password):
            store.update_user(name, password=password)
    for user in store.list_users():
        if user.username not in users:
            store.delete_user(user.username)
    return app


def create_database(url: str) -> None:
    """Create a PostgreSQL database that does not exist. Raises SettingsError when the server refuses."""
    import psycopg2
    from psycopg2 import errors, sql

    name = urlsplit(url).path.lstrip("/")
    try:
        psycopg2.connect(url, connect_timeout=10).close()
    except psycopg2.OperationalError as error:
        if f'database "{name}" does not exist' not in str(error):
            raise SettingsError(f"{url}: {' '.join(str(error).split())}") from None
        connection = psycopg2.connect(urlsplit(url)._replace(path="/postgres").geturl(), connect_timeout=10)
        try:
            connection.autocommit = True
            connection.cursor().execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        except errors.DuplicateDatabase:
            pass  # another server was faster
        except psycopg2.Error as refused:
            raise SettingsError(f"{url}: {' '.join(str(refused).split())}") from None
        finally:
            connection.close()


def serve(
    database: Annotated[str, typer.Option(help="postgresql://user@host:port/database for runs and models.")],
    users: Annotated[str, typer.Option(help="The same for its users; another database.")],
    files: Annotated[str, typer.Option(help="s3://bucket/prefix, or a folder, for the files of runs and models.")],
    passwords: Annotated[Path, typer.Option(help="A folder with a file per user: admin, evergreen, and any readers.")],
    host: Annotated[str, typer.Option(help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen on this port.")] = 5001,
    name: Annotated[list[str] | None, typer.Option(help="Answer to this host:port, too; may be repeated.")] = None,
) -> None:
    """Serve MLflow to a team."""
    os.umask(0o077)
    names = (f"127.0.0.1:{port}", f"localhost:{port}", *(name or ()))
    app = application(database, users, files, users_in(passwords), names)
    uvicorn.run(app, host=host, port=port, log_level="warning", proxy_headers=False, server_header=False)


if __name__ == "__main__":
    typer.run(serve)
