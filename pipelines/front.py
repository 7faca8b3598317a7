"""The front door as an application: its pages, the same as JSON, what a person decides, and the reports' files."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import uuid4

import dagster as dg
from pydantic_core import to_jsonable_python
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from assets.exceptions import EvergreenError
from assets.front.drift import Drift, drift
from assets.front.history import Day, History
from assets.front.night import Measured, Night, measured, pictures
from assets.front.pages import (
    STATIC,
    Links,
    behind_page,
    drift_page,
    front_page,
    message_page,
    night_page,
    reports_page,
    rows_page,
    why_page,
)
from assets.front.reports import shelves
from assets.front.rows import Behind, Rows, Wanted, behind, find_rows
from assets.front.why import Why, why
from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from assets.settings import Domain, load_front_settings, load_settings
from pipelines.guard import JsonOnly
from pipelines.instance import open_instance
from pipelines.metrics import Metrics
from pipelines.nights import newest_night, night_of
from pipelines.page_files import PageFiles
from pipelines.resources import PROFILE

__all__ = ["application"]

_PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_DOCUMENTS = (
    "default-src 'none'; style-src 'unsafe-inline'; font-src data:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SCRIPTED = (
    f"{_DOCUMENTS.replace('data:;', 'data: blob:;')}; script-src 'unsafe-inline'; sandbox allow-scripts allow-downloads"
)
"""Reports that draw by scripts carry them in themselves, and names from data with them: in the sandbox they are of no
origin, so that what they do cannot reach the pages on which a person decides."""


_Found = TypeVar("_Found")
_ASKED = ("action", "version", "by", "reason")
_ACTIONS = ("approve", "reject", "rollback")


class Reports(PageFiles):
    """The reports; some of them bring scripts."""

    def file_response(self, *found: Any) -> Response:
        response = super().file_response(*found)
        scripted = "/evidently/" in str(found[0])
        response.headers["Content-Security-Policy"] = _SCRIPTED if scripted else _DOCUMENTS
        return response


class Front:
    """What the routes answer for a home."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self._known, self._instance = home, instance

    @property
    def _home(self) -> Home:
        """The home, for one page: without copies of what was forgotten since the last."""
        self._known.catch_up()
        return self._known

    def first(self, _: Request) -> Response:
        """The first page."""
        history = History.of(self._home)
        newest = max(history.timeline.newest, newest_night(self._instance) or "")
        last = self._night(history, newest) if newest else None
        return _page(front_page(*self._about, history, self._measured(history), last, pictures(self._home)))

    def night(self, request: Request) -> Response:
        """The page of the as-of that is asked for."""
        history, as_of = History.of(self._home), request.query_params.get("as_of", "")
        day = _known(history, as_of)
        return _page(night_page(*self._about, history.timeline, day, self._night(history, as_of)))

    def why(self, request: Request) -> Response:
        """The verdict on a version as a story."""
        return _page(why_page(*self._about, self._why(request)))

    def rows(self, request: Request) -> Response:
        """The rows that are asked for; of a version alone, or of nothing, the numbers that have rows behind them."""
        wanted = _wanted(request)
        found = self._rows(wanted)
        if isinstance(found, Behind):
            return _page(behind_page(*self._about, found))
        return _page(rows_page(*self._about, wanted, found))

    def drift(self, request: Request) -> Response:
        """Whether the window of an as-of drifted, and what moved."""
        return _page(drift_page(*self._about, self._drift(request)))

    def api_drift(self, request: Request) -> Response:
        """The same as JSON."""
        return _json(self._drift(request))

    def _drift(self, request: Request) -> Drift:
        found = drift(self._home, request.path_params["as_of"])
        return _there(found, "Drift was not measured as of such a day.")

    def reports(self, _: Request) -> Response:
        """Every report that there is."""
        return _page(reports_page(*self._about, shelves(self._home)))

    def api_why(self, request: Request) -> Response:
        """The same as JSON."""
        return _json(self._why(request))

    def api_rows(self, request: Request) -> Response:
        """The same as JSON."""
        return _json(self._rows(_wanted(request)))

    def _why(self, request: Request) -> Why:
        found = why(self._home, History.of(self._home), request.path_params["version"])
        return _there(found, "No version of this number was judged.")

    def _rows(self, wanted: Wanted) -> Behind | Rows:
        history = History.of(self._home)
        if set(wanted.parameters) <= {"version"}:
            champion = history.now.champion if history.now else None
            version = wanted.version or (champion.version if champion else "")
            return _there(behind(self._home, history, version), "There is no evaluation of such a version.")
        found = find_rows(self._home, history, wanted, load_front_settings(), load_settings(PROFILE).drift)
        return _there(found, "There are no such rows.")

    def api_now(self, _: Request) -> Response:
        """Champion, quality, and what waits for a person."""
        history = History.of(self._home)
        return _json({"problem": history.problem, "now": history.now, "measured": self._measured(history)})

    def api_timeline(self, _: Request) -> Response:
        """Every as-of, oldest first."""
        return _json(History.of(self._home).timeline)

    def api_night(self, request: Request) -> Response:
        """The night of an as-of."""
        history, as_of = History.of(self._home), request.path_params["as_of"]
        if as_of != newest_night(self._instance):
            _known(history, as_of)
        return _json(self._night(history, as_of))

    async def decide(self, request: Request) -> Response:
        """What a form asks for: to approve or reject a version, or to roll back to one."""
        await self._act(dict(parse_qsl((await request.body()).decode(errors="replace"))))
        return RedirectResponse("/", 303)

    async def api_decide(self, request: Request) -> Response:
        """The same by JSON; where things stand then."""
        given = None
        with suppress(ValueError):
            given = json.loads(await request.body())
        if not isinstance(given, dict):
            raise HTTPException(400, "Send a JSON object.")
        await self._act(given | {"action": request.url.path.rpartition("/")[2]} | request.path_params)
        return await run_in_threadpool(self.api_now, request)

    async def _act(self, given: Mapping[str, Any]) -> None:
        """Raises HTTPException for what is missing or unknown, and what the succession raises."""
        action, version, by, reason = (str(given.get(name, "")).strip() for name in _ASKED)
        if action not in _ACTIONS or version not in self._judged():
            raise HTTPException(404, "No version of this number was judged.")
        if not reason or not (by or action == "rollback"):
            raise HTTPException(400, "Say why." if action == "rollback" else "Say who you are, and why.")
        await run_in_threadpool(_succeed, self._home, action, version, by, reason)

    def _judged(self) -> set[str]:
        return {str(entry.body["version"]) for entry in ledger_of(self._home).entries("verdict")}

    def _measured(self, history: History) -> Measured | None:
        quality = history.now and history.now.quality
        return measured(self._home.lake, quality.as_of) if quality else None

    def _night(self, history: History, as_of: str) -> Night:
        return night_of(self._home, self._instance, history.timeline, as_of)

    @property
    def _about(self) -> tuple[Domain, Links]:
        return self._home.domain, Links.of(self._home)

    def failed(self, request: Request, error: Exception) -> Response:
        """What was asked for is not there or cannot be done, in words: a page, or JSON under /api."""
        status, words = (error.status_code, error.detail) if isinstance(error, HTTPException) else (409, str(error))
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": words}, status)
        title = "There is no such page" if status == 404 else "That was not done"
        return _page(message_page(*self._about, title, words), status)


@contextmanager
def application(home: Home) -> Iterator[ASGIApp]:
    """The front door of a home, with the reports under their own names."""
    home.reports.mkdir(parents=True, exist_ok=True)
    with open_instance(home) as instance:
        door = Front(home, instance)
        api = [
            Route("/now", door.api_now),
            Route("/timeline", door.api_timeline),
            Route("/nights/{as_of}", door.api_night),
            Route("/why/{version}", door.api_why),
            Route("/drift/{as_of}", door.api_drift),
            Route("/rows", door.api_rows),
            Route("/versions/{version}/approve", door.api_decide, methods=["POST"]),
            Route("/versions/{version}/reject", door.api_decide, methods=["POST"]),
            Route("/rollback", door.api_decide, methods=["POST"]),
        ]
        routes = [
            Route("/", door.first),
            Route("/nights", door.night),
            Route("/why/{version}", door.why),
            Route("/drift/{as_of}.html", door.drift),
            Route("/rows", door.rows),
            Route("/reports", door.reports),
            Route("/metrics", Metrics(home, instance).answer),
            Route("/decide", door.decide, methods=["POST"]),
            Mount("/api", routes=api, middleware=[Middleware(JsonOnly)]),
            Mount("/static", StaticFiles(directory=STATIC)),
            Mount("/", Reports(home.pages)),
        ]
        handlers = {HTTPException: door.failed, EvergreenError: door.failed}
        yield Starlette(routes=routes, exception_handlers=handlers)


def _succeed(home: Home, action: str, version: str, by: str, reason: str) -> None:
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    with home.in_use(f"evergreen-{action}-{uuid4().hex[:8]}"):
        succession = Succession(Registry(home))
        if action == "rollback":
            succession.rollback(version, reason)
        else:
            succession.settle(version, "approve" if action == "approve" else "reject", by, reason)


def _known(history: History, as_of: str) -> Day:
    if (day := history.timeline.day(as_of)) is None:
        raise HTTPException(404, "Nothing is known of such a day.")
    return day


def _wanted(request: Request) -> Wanted:
    """By the parameters; what is unknown among them is nowhere."""
    given = dict(request.query_params)
    try:
        return Wanted(**given | {"page": int(given.get("page", "1"))})  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise HTTPException(404, "There are no such rows.") from None


def _there(found: _Found | None, words: str) -> _Found:
    if found is None:
        raise HTTPException(404, words)
    return found


def _page(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, headers={"Content-Security-Policy": _PAGES, "Cache-Control": "no-store"})


def _json(content: Any) -> Response:
    return JSONResponse(to_jsonable_python(content), headers={"Cache-Control": "no-store"})
