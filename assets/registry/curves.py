"""The curves of a training in MLflow while it goes on; what does not arrive is logged when it is registered."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from assets.exceptions import describe
from assets.home import Home
from assets.registry.registry import tracking_of

__all__ = ["Message", "live_curves"]

Message = Mapping[str, Any]
"""Of the training's first rank (assets/training/program/progress.py): what is trained, then point after point."""

_EVERY_SECONDS = 5.0
"""Between two requests to MLflow, each with all points since the one before."""
_PATIENCE = 5.0
"""Seconds that the last request may take before the training's end goes on without it."""

_log = logging.getLogger("evergreen")


@contextmanager
def live_curves(home: Home, dagster_run: str) -> Iterator[Callable[[Message], None]]:
    """Takes the messages of a training, without waiting, and has a thread log its points to MLflow.

    An MLflow that does not answer is warned of once, and changes nothing else. A training that ends with an exception
    is marked as failed; launched again, it goes on in the same run of MLflow.
    """
    messages: SimpleQueue[Message | None] = SimpleQueue()
    failed = Event()
    sender = Thread(target=_send, args=(home, dagster_run, messages, failed), daemon=True)
    sender.start()
    try:
        yield messages.put
    except BaseException:
        failed.set()
        raise
    finally:
        messages.put(None)
        sender.join(_PATIENCE)


def _send(home: Home, dagster_run: str, messages: SimpleQueue[Message | None], failed: Event) -> None:
    if (first := messages.get()) is None:
        return
    try:
        tracking = tracking_of(home)
        course = tracking.follow(first["training_id"], first["as_of"], dagster_run)
        for points in _batches(messages):
            course.add(points)
        if failed.is_set():
            course.fail()
    except Exception as error:  # whatever it is, the training goes on
        _log.warning("the curves of the training will be in MLflow once it is registered: %s", describe(error))


def _batches(messages: SimpleQueue[Message | None]) -> Iterator[list[Message]]:
    """The points that come within some seconds, again and again until the end."""
    goes_on = True
    while goes_on:
        points, until = [], time.monotonic() + _EVERY_SECONDS
        while goes_on and (left := until - time.monotonic()) > 0:
            with suppress(Empty):
                message = messages.get(timeout=left)
                goes_on = message is not None
                points += [message] if message else []
        if points:
            yield points
