"""Logs as JSON, one object a line, when `EVERGREEN_LOGS` is `json`; otherwise everything logs as it does by itself.

time        when, in UTC, by RFC 3339, to the millisecond
level       as Python calls it
logger      who says it; stdout or stderr for what a library has printed
message     what is said
run_id, as_of, step   of the run that it belongs to, where there is one
exception   the classes and the places of an error and of what caused it

An error of a library may quote what it failed on. So only the messages of Evergreen's own errors are in the logs; the
others are where the run is: in Dagster, in the home.
"""

import io
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from assets import exceptions
from assets.exceptions import EvergreenError, SettingsError

__all__ = ["are_json", "begin", "line_of", "of_run", "stdout_logged"]

_SWITCH = "EVERGREEN_LOGS"
_ABOUT = "EVERGREEN_LOG_RUN"
"""The run of this process and its children, as JSON."""
_LONGEST = 10_000
"""Characters of a message, and of an exception."""
_STEPS = ("STEP_START", "STEP_SUCCESS", "STEP_FAILURE")
_FIRST = '{"time": '
_begun = False


def are_json() -> bool:
    """Whether logs are JSON. Raises SettingsError for an unknown format."""
    wanted = os.environ.get(_SWITCH) or "text"
    if wanted not in ("text", "json"):
        raise SettingsError(f"{_SWITCH}: {wanted!r} is no format of logs; write text or json")
    return wanted == "json"


def begin(printed: str | None = None) -> None:
    """Set up this process, if logs are JSON. Once is enough.

    `printed`: the logger of what is printed to stderr, where results are printed to stdout; without it, what is printed
    to either is logged.
    """
    global _begun
    if _begun or not are_json():
        return
    _begun = True
    # Every library sets up handlers and formats of its own, at some time or other: Dagster, uvicorn, MLflow, DeepSpeed.
    setattr(logging.StreamHandler, "format", lambda _, record: _format(record))  # noqa: B010 - not for mypy
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").addHandler(logging.StreamHandler())
    sys.excepthook = lambda _, error, __: _tell_uncaught(error)
    threading.excepthook = lambda given: _tell_uncaught(given.exc_value)
    sys.stderr = _Printed(sys.stderr, printed or "stderr")
    if printed is None:
        sys.stdout = _Printed(sys.stdout, "stdout")


@contextmanager
def of_run(run_id: str, as_of: str | None) -> Iterator[None]:
    """Inside, the lines of this process and its children say that they are of a run."""
    _tell_about(run_id=run_id, as_of=as_of)
    try:
        yield
    finally:
        _tell_about(run_id=None, as_of=None, step=None)


def line_of(logger: str, message: str) -> str:
    """A line of the log that says something."""
    return _format(logging.LogRecord(logger, logging.INFO, "", 0, message, None, None))


@contextmanager
def stdout_logged() -> Iterator[None]:
    """Inside, what is printed to stdout is logged, if logs are JSON: it is no result."""
    before = sys.stdout
    if _begun and not isinstance(before, _Printed):
        sys.stdout = _Printed(before, "stdout")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before


class _Printed(io.TextIOBase):
    """A stream that makes an object of each line that is not one yet."""

    def __init__(self, stream: TextIO, logger: str) -> None:
        self._stream, self._logger, self._begun = stream, logger, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text.replace("\r", "\n")).split("\n")
        for line in filter(str.strip, lines):
            self._stream.write(f"{line if line.startswith(_FIRST) else line_of(self._logger, line)}\n")
        return len(text)

    def flush(self) -> None:
        if self._begun:
            self.write("\n")
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


def _format(record: logging.LogRecord) -> str:
    # What Dagster adds to the lines of a run; its message begins with all of it.
    meta = getattr(record, "dagster_meta", None) or {}
    event, error = meta.get("dagster_event"), record.exc_info and record.exc_info[1]
    if event is not None and event.event_type_value in _STEPS:
        _tell_about(step=event.step_key if event.event_type_value == "STEP_START" else None)
    known = _about()
    content = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
        "message": (meta.get("orig_message") or record.getMessage())[:_LONGEST],
        "run_id": meta.get("run_id") or known.get("run_id"),
        "as_of": meta.get("job_tags", {}).get("dagster/partition") or known.get("as_of"),
        "step": meta.get("step_key") or (None if event is not None else known.get("step")),
        "exception": (_exception(error) if error else _exception_of(event))[-_LONGEST:] or None,
    }
    return json.dumps({name: value for name, value in content.items() if value is not None})


def _tell_about(**known: str | None) -> None:
    if are_json():
        os.environ[_ABOUT] = json.dumps(_about() | known)


def _about() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(os.environ.get(_ABOUT) or "{}")
    return known


def _exception(error: BaseException) -> str:
    """The causes first, each with its place."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    places = "".join(traceback.format_tb(error.__traceback__))
    return "\n".join(filter(None, [_exception(cause) if cause else "", f"{places}{_words(error)}"]))


def _words(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, EvergreenError):
        return f"{name}: {error}"
    return f"{name}: {os.strerror(error.errno)}" if isinstance(error, OSError) and error.errno else name


def _exception_of(event: Any) -> str:
    """The same of the error in an event of Dagster, which has texts in the place of errors."""
    error, told = getattr(getattr(event, "event_specific_data", None), "error", None), []
    while error is not None:
        message = error.message.strip() if error.cls_name in exceptions.__all__ else error.cls_name or ""
        told.append("".join([*error.stack, message]))
        error = error.cause
    return "\n".join(reversed(told))


def _tell_uncaught(error: BaseException | None) -> None:
    if error is not None:
        logging.getLogger("evergreen").critical("ended by an error", exc_info=error)
