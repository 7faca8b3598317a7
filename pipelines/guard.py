"""Restricts a home's servers to the person at this machine, in a browser that has the token.

A server on 127.0.0.1 is not private. Any page in the browser can send it requests, a name that resolves to 127.0.0.1
makes such a page same-origin (DNS rebinding), and every user of the machine can connect.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assets.lake import Home

__all__ = ["Guard", "JsonOnly", "forget_token", "token_of"]

_COOKIE = "evergreen"
_HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN"}
_LOGIN = "Open the address that `evergreen ui` printed when it started: it carries this start's token."


class Guard:
    """Passes on requests, including WebSockets, from the person at this machine, and refuses all others.

    A request passes if it names this server as 127.0.0.1 or localhost, comes from a page of this server or from no page
    (a link from another port of this machine may open a page), and has the token: in a cookie, set by the address that
    is printed at the start, or as `Authorization: Bearer`. Cookies are shared by ports, so one visit opens Dagster,
    MLflow and the reports.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None if scope["type"] == "lifespan" else self._answer(HTTPConnection(scope))
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _answer(self, connection: HTTPConnection) -> Response | None:
        """The answer to a request that is not passed on; None when it is."""
        if refusal := self._refusal(connection):
            return PlainTextResponse(refusal, 403)
        if self._is_token(connection.query_params.get("token", "")):
            return self._entrance(connection)
        bearer = connection.headers.get("authorization", "").removeprefix("Bearer ")
        known = self._is_token(connection.cookies.get(_COOKIE, "")) or self._is_token(bearer)
        return None if known else PlainTextResponse(_LOGIN, 401)

    def _refusal(self, connection: HTTPConnection) -> str | None:
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return "This server answers only to 127.0.0.1 and localhost."
        origins = connection.headers.getlist("origin")
        site = connection.headers.get("sec-fetch-site", "none")
        foreign = site not in ("none", "same-origin") and not (site == "same-site" and _opens_a_page(connection))
        if foreign or any(origin != f"http://{hosts[0]}" for origin in origins):
            return "Pages of other origins are refused. Open this address from the address bar."
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _entrance(self, connection: HTTPConnection) -> Response:
        """A redirect to the address without the token, which would otherwise stay in the history."""
        answer = RedirectResponse(str(connection.url.remove_query_params("token")), 303)
        answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
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
    home.root.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", prefix=".ui-token-", dir=home.root) as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, _token_path(home))
    return _token_path(home).read_text()


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
