"""The server's interface: predictions, feedback, its health and its metrics."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from math import ceil
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from assets.serving.batches import Asked, Busy, Failed
from assets.serving.contract import Unfit
from assets.serving.description import ANSWERS, TAKEN, answered, body
from assets.serving.door import Door, TooLarge, refusal
from assets.serving.server import Server

__all__ = ["application"]

_RETRY = {"Retry-After": "1"}


class _TooMany(Exception):  # noqa: N818 - reads as what it says
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__()


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
    _answers(app, server)
    _health(app, server)
    _refusals(app, server)
    app.add_middleware(Door, settings=server.settings, keys=server.keys, metrics=server.metrics)
    return app


def _answers(app: FastAPI, server: Server) -> None:
    contract = server.contract

    @app.post("/v1/predict", openapi_extra=body(contract.predict), responses=answered(ANSWERS))
    async def predict(request: Request) -> Response:
        """The label of each record, with its confidence (0 to 1) and the version that gave it."""
        records = contract.records(await request.body())
        _take(request, len(records))
        who = (request.state.id, request.state.key)
        answers = await _wait(server, lambda done: server.ask(Asked(records, *who, done)))
        said = {"request_id": request.state.id, "answers": answers}
        return Response(orjson.dumps(said), media_type="application/json")

    @app.post("/v1/feedback", openapi_extra=body(contract.feedback), responses=answered(TAKEN))
    async def feedback(request: Request) -> Response:
        """The true label of a record that was asked about; with its outcomes it also becomes a training row."""
        said = contract.said(await request.body())
        _take(request, 1)
        who = (request.state.id, request.state.key)
        reaches = await _wait(server, lambda done: server.take(said, *who, done))
        return JSONResponse({"request_id": request.state.id, "record_id": said.record_id, "reaches": reaches})


def _health(app: FastAPI, server: Server) -> None:
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


def _refusals(app: FastAPI, server: Server) -> None:
    @app.exception_handler(ValidationError)
    async def invalid(_: Request, error: ValidationError) -> Response:
        """Without the values, which may be texts."""
        return _faulty(
            {"field": ".".join(map(str, one["loc"])) or "body", "fault": one["msg"].removeprefix("Value error, ")}
            for one in error.errors()
        )

    @app.exception_handler(Unfit)
    async def unfit(_: Request, error: Unfit) -> Response:
        return _faulty([{"field": error.field, "fault": error.fault}])

    @app.exception_handler(_TooMany)
    async def too_many(_: Request, error: _TooMany) -> Response:
        return refusal(429, "this key has sent too many records", {"Retry-After": str(ceil(error.seconds))})

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Response:
        return refusal(503, str(error), _RETRY)

    @app.exception_handler(Failed)
    async def failed(request: Request, _: Failed) -> Response:
        return refusal(500, f"request {request.state.id} failed; the log says more")

    @app.exception_handler(TooLarge)
    async def large(_: Request, __: TooLarge) -> Response:
        return refusal(413, f"the body has more than {server.settings.max_body_bytes} bytes")


def _take(request: Request, records: int) -> None:
    """Raises _TooMany when the key has sent too many records."""
    if (seconds := request.state.bucket.take(records)) > 0:
        raise _TooMany(seconds)


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


def _faulty(faults: Iterable[dict[str, str]]) -> Response:
    problem = "the request is not as /openapi.json describes it"
    return JSONResponse({"problem": problem, "faults": list(faults)}, 422)
