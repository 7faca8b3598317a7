"""Restricts a home's servers to the person at this machine, in a browser that has the token.

A server on 127.0.0.1 is not private. Any page in the browser can send it requests, a name that resolves to 127.0.0.1
makes such a page same-origin (DNS rebinding), and every user of the machine can connect.
"""

import os
import secrets
from contextlib import suppress
from html import escape
from pathlib import Path
from tempfile import NamedTemporaryFile

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assets.hashing import hash_json
from assets.home import Home

__all__ = ["Guard", "JsonOnly", "cookie_of", "forget_token", "secret_of", "token_of"]

_HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN"}
_FOREIGN = "Pages of other origins are refused. Open this address from the address bar."
_LOGIN = "Open the address that `evergreen ui` printed when it started: it carries this start's token."


class Guard:
    """Passes on requests, including WebSockets, from the person at this machine, and refuses all others.

    A request passes if it names this server as 127.0.0.1 or localhost, comes from a page of this server or from no page
    (a link from another port of this machine may open a page), and has the token: in a cookie, set by the address that
    is printed at the start, or as `Authorization: Bearer`. Cookies are shared by ports, so one visit opens the front
    door, Dagster and MLflow; each home has a cookie of its own.
    """

    def __init__(self, app: ASGIApp, port: int, token: str, cookie: str) -> None:
        self._app, self._cookie = app, cookie
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None if scope["type"] == "lifespan" else self._answer(HTTPConnection(scope))
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _answer(self, connection: HTTPConnection) -> Response | None:
        """The answer to a request that is not passed on; None when it is."""
        if not self._is_ours(connection):
            return PlainTextResponse("This server answers only to 127.0.0.1 and localhost.", 403)
        if self._is_token(connection.query_params.get("token", "")):
            return self._entrance(connection)
        if self._is_foreign(connection):
            return PlainTextResponse(_FOREIGN, 403)
        bearer = connection.headers.get("authorization", "").removeprefix("Bearer ")
        known = self._is_token(connection.cookies.get(self._cookie, "")) or self._is_token(bearer)
        return None if known else PlainTextResponse(_LOGIN, 401)

    def _is_ours(self, connection: HTTPConnection) -> bool:
        hosts = connection.headers.getlist("host")
        return len(hosts) == 1 and hosts[0] in self._hosts

    def _is_foreign(self, connection: HTTPConnection) -> bool:
        site = connection.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not (site == "same-site" and _opens_a_page(connection)):
            return True
        own = f"http://{connection.headers['host']}"
        return any(origin != own for origin in connection.headers.getlist("origin"))

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _entrance(self, connection: HTTPConnection) -> Response:
        """A redirect to the address without the token, which would otherwise stay in the history.

        Browsers send no cookie with a redirect that began on another page, such as the file of `evergreen ui --open`:
        there, a page of this server leads on.
        """
        url = str(connection.url.remove_query_params("token"))
        going_on = f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={escape(url)}"><title>Evergreen</title>'
        answer = HTMLResponse(going_on) if self._is_foreign(connection) else RedirectResponse(url, 303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return answer


class JsonOnly:
    """Accepts changes only as application/json, which no form can send, and no GraphQL by GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _wrong_kind(HTTPConnection(scope), scope["method"]) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)


def token_of(home: Home) -> str:
    """The token of this home's servers, created by whichever starts first, and readable only by the owner."""
    return secret_of(_token_path(home)).read_text()


def secret_of(path: Path) -> Path:
    """A file with a token, created unless it is there, and readable only by the owner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", prefix=f".{path.name}-", dir=path.parent) as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)
    return path


def cookie_of(home: Home) -> str:
    """The name of this home's cookie, which all of its servers know."""
    return f"evergreen-{hash_json(str(home.root))[:8]}"


def forget_token(home: Home) -> None:
    """End every login: servers started later create a new token."""
    _token_path(home).unlink(missing_ok=True)


def _token_path(home: Home) -> Path:
    return home.root / "ui-token"


def _opens_a_page(connection: HTTPConnection) -> bool:
    """Whether a link was followed: the browser shows the answer, and the page with the link cannot read it."""
    wanted = connection.headers.get("sec-fetch-mode"), connection.headers.get("sec-fetch-dest")
    return connection.scope.get("method") == "GET" and wanted == ("navigate", "document")


def _wrong_kind(connection: HTTPConnection, method: str) -> Response | None:
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if method in ("GET", "HEAD"):
        return PlainTextResponse("Send GraphQL by POST.", 405) if connection.url.path == "/graphql" else None
    return None if kind == "application/json" else PlainTextResponse("Send application/json.", 415)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sending
