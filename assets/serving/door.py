"""What every request passes: its id, its key, the size of its body, what is counted and what is logged."""

import logging
import re
from collections.abc import Awaitable, Callable
from secrets import token_hex
from time import monotonic

from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assets.serving.keys import Bucket, Keys
from assets.serving.metrics import Metrics
from assets.settings import ServingSettings

__all__ = ["Door", "TooLarge", "refusal"]

_log = logging.getLogger("evergreen.serving")
_SANE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LENGTH = re.compile(r"[0-9]{1,18}")
_PATHS = ("/v1/predict", "/v1/feedback", "/healthz", "/readyz", "/metrics", "/openapi.json")
"""Other paths are counted as one: whoever asks chooses them."""


class TooLarge(Exception):  # noqa: N818 - reads as what it says
    """A body that goes on for longer than it may."""


def refusal(status: int, problem: str, headers: dict[str, str] | None = None) -> Response:
    """An answer that says in one sentence why there is none."""
    return JSONResponse({"problem": problem}, status, headers)


class Door:
    """Around every request: its id, its key, the size of its body, what is counted and what is logged."""

    def __init__(self, app: ASGIApp, settings: ServingSettings, keys: Callable[[], Keys], metrics: Metrics) -> None:
        self._app, self._settings, self._keys, self._metrics = app, settings, keys, metrics
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, headers, status = monotonic(), Headers(scope=scope), 500
        given = headers.get("x-request-id", "")
        request = given if _SANE.fullmatch(given) else token_hex(8)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request
            await send(message)

        name = self._name(scope["path"], headers)
        refused = self._refused(scope["path"], headers, name)
        try:
            if refused is not None:
                await refused(scope, receive, answer)
            else:
                scope["state"] = {**scope.get("state", {}), "id": request, "key": name, "bucket": self._bucket(name)}
                await self._app(scope, _bounded(receive, self._settings.max_body_bytes), answer)
        finally:
            self._note(scope["path"], status, monotonic() - started, request, name)

    def _name(self, path: str, headers: Headers) -> str | None:
        kind, _, key = headers.get("authorization", "").partition(" ")
        return self._keys().name(key.strip()) if path.startswith("/v1/") and kind.lower() == "bearer" else None

    def _refused(self, path: str, headers: Headers, name: str | None) -> Response | None:
        if not path.startswith("/v1/"):
            return None
        if name is None:
            return refusal(401, "send a known key as `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"})
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return refusal(415, "send application/json")
        length = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length) or int(length) > self._settings.max_body_bytes:
            return refusal(413, f"the body has more than {self._settings.max_body_bytes} bytes")
        return None

    def _bucket(self, name: str | None) -> Bucket | None:
        if name is None:
            return None
        if name not in self._buckets:
            self._buckets[name] = Bucket(self._settings.records_per_second, self._settings.burst_records)
        return self._buckets[name]

    def _note(self, path: str, status: int, seconds: float, request: str, name: str | None) -> None:
        known = path if path in _PATHS else "other"
        self._metrics.requests.labels(known, str(status)).inc()
        self._metrics.seconds.labels(known).observe(seconds)
        if path.startswith("/v1/"):
            _log.info("%s %s %d %.1f ms, key %s", request, known, status, seconds * 1000, name)


def _bounded(receive: Receive, most: int) -> Callable[[], Awaitable[Message]]:
    read = 0

    async def receiving() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise TooLarge
        return message

    return receiving
