"""The server's interface: predictions, feedback, its health and its metrics."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import ceil
from secrets import token_hex
from time import monotonic
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assets.serving.batches import Asked, Busy, Failed
from assets.serving.contract import Unfit
from assets.serving.keys import Bucket, Keys
from assets.serving.metrics import Metrics
from assets.serving.server import Server
from assets.settings import ServingSettings

__all__ = ["application"]

_log = logging.getLogger("evergreen.serving")
_SANE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_PATHS = ("/v1/predict", "/v1/feedback", "/healthz", "/readyz", "/metrics", "/openapi.json")
_RETRY = {"Retry-After": "1"}


class _TooLarge(Exception):  # noqa: N818 - reads as what it says
    pass


def application(server: Server) -> FastAPI:
    """The ASGI application of a server, which it starts and stops with itself."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.start()
        try:
            yield
        finally:
            await asyncio.get_running_loop().run_in_executor(None, server.stop)

    domain = server.home.domain
    app = FastAPI(
        title=domain.title,
        description=domain.purpose,
        version="1",
        lifespan=lifespan,
        docs_url=None,  # its pages load from elsewhere
        redoc_url=None,
    )
    _routes(app, server)
    app.add_middleware(_Door, settings=server.settings, keys=server.keys, metrics=server.metrics)
    return app


def _routes(app: FastAPI, server: Server) -> None:
    contract = server.contract

    @app.post("/v1/predict", openapi_extra=_body(contract.predict), responses=_answered(_ANSWERS))
    async def predict(request: Request) -> Response:
        """The label of each record, with its confidence (0 to 1) and the version that gave it."""
        records = contract.records(await request.body())
        if (wait := request.state.bucket.take(len(records))) > 0:
            return _refusal(429, "this key has sent too many records", {"Retry-After": str(ceil(wait))})
        who = (request.state.id, request.state.key)
        answers = await _wait(server, lambda done: server.ask(Asked(records, *who, done)))
        return Response(
            orjson.dumps({"request_id": request.state.id, "answers": answers}), media_type="application/json"
        )

    @app.post("/v1/feedback", openapi_extra=_body(contract.feedback), responses=_answered(_TAKEN))
    async def feedback(request: Request) -> Response:
        """The true label of a record that was asked about; with its outcomes it also becomes a training row."""
        said = contract.said(await request.body())
        if (wait := request.state.bucket.take(1)) > 0:
            return _refusal(429, "this key has sent too many records", {"Retry-After": str(ceil(wait))})
        who = (request.state.id, request.state.key)
        reaches = await _wait(server, lambda done: server.take(said, *who, done))
        return JSONResponse({"request_id": request.state.id, "record_id": said.record_id, "reaches": reaches})

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "Not ready; `problem` says why."}})
    async def readyz() -> Response:
        """Whether it can answer now: a champion of an intact ledger, and the features that it needs."""
        state = await asyncio.get_running_loop().run_in_executor(None, server.state)
        return JSONResponse(state, 503 if state["problem"] else 200, _RETRY if state["problem"] else None)

    @app.get("/metrics")
    async def metrics() -> Response:
        """In Prometheus' format."""
        text = await asyncio.get_running_loop().run_in_executor(None, server.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.exception_handler(ValidationError)
    async def invalid(_: Request, error: ValidationError) -> Response:
        faults = [{"field": ".".join(map(str, one["loc"])) or "body", "fault": _fault(one)} for one in error.errors()]
        return _faulty(faults)

    @app.exception_handler(Unfit)
    async def unfit(_: Request, error: Unfit) -> Response:
        return _faulty([{"field": error.field, "fault": error.fault}])

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Response:
        return _refusal(503, str(error), _RETRY)

    @app.exception_handler(Failed)
    async def failed(request: Request, _: Failed) -> Response:
        return _refusal(500, f"request {request.state.id} failed; the log says more")

    @app.exception_handler(_TooLarge)
    async def large(_: Request, error: _TooLarge) -> Response:  # noqa: ARG001 - says nothing more
        return _refusal(413, f"the body has more than {server.settings.max_body_bytes} bytes")


async def _wait(server: Server, ask: Callable[[Callable[[Any], None]], None]) -> Any:
    """What is said to a question. Raises Busy when that takes too long."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any) -> None:
        if not future.done():
            future.set_exception(result) if isinstance(result, Exception) else future.set_result(result)

    def done(result: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, result)

    ask(done)
    try:
        return await asyncio.wait_for(future, server.settings.timeout_seconds)
    except TimeoutError:
        raise Busy(f"there was no answer within {server.settings.timeout_seconds:g} seconds") from None
    except Exception as error:
        raise error if isinstance(error, Busy) else Failed(type(error).__name__) from None


def _fault(error: Any) -> str:
    """What is wrong, without the value, which may be a text."""
    return str(error["msg"]).removeprefix("Value error, ")


def _faulty(faults: list[dict[str, str]]) -> Response:
    return JSONResponse({"problem": "the request is not as /openapi.json describes it", "faults": faults}, 422)


def _refusal(status: int, problem: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"problem": problem}, status, headers)


def _body(model: Any) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    # Inline: FastAPI collects the schemas of the parameters that it parses, and this body it does not parse.
    schema = orjson.loads(_inlined(schema, definitions))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> bytes:
    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return fill(definitions[value["$ref"].rpartition("/")[2]])
            return {name: fill(item) for name, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    return orjson.dumps(fill(schema))


_TEXT, _MAYBE = {"type": "string"}, {"type": ["string", "null"]}
_ANSWERS = {
    "request_id": _TEXT,
    "answers": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "record_id": _TEXT,
                "predicted": _MAYBE | {"description": "The label; null for a record without text."},
                "confidence": {"type": ["number", "null"], "description": "The probability of the label, 0 to 1."},
                "reason": _MAYBE | {"description": "Why there is no label."},
                "role": {"enum": ["champion", "canary"]},
                "features": {"enum": ["online", "stale", "absent"]},
                "features_as_of": _MAYBE,
                "version": _TEXT,
                "training_id": _TEXT,
                "ledger_entry": {"type": "integer", "description": "The entry by which the version answers."},
            },
        },
    },
}
_TAKEN = {
    "request_id": _TEXT,
    "record_id": _TEXT,
    "reaches": {"type": "array", "items": {"enum": ["evidence", "records"]}},
}


def _answered(properties: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "object", "properties": properties}
    return {
        200: {"content": {"application/json": {"schema": schema}}},
        401: {"description": "No key, or an unknown one."},
        413: {"description": "The body is too large."},
        422: {"description": "The request is not as described; `faults` names each field."},
        429: {"description": "The key has sent too many records; see Retry-After."},
        503: {"description": "It cannot be answered now; see Retry-After."},
    }


class _Door:
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
        refusal = self._refused(scope["path"], headers, name)
        try:
            if refusal is not None:
                await refusal(scope, receive, answer)
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
            return _refusal(401, "send a known key as `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"})
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refusal(415, "send application/json")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._settings.max_body_bytes:
            return _refusal(413, f"the body has more than {self._settings.max_body_bytes} bytes")
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
            raise _TooLarge
        return message

    return receiving
