"""How a command stops on a signal: with one line, and the signal's exit code."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["Stopped", "listen", "noted"]


class Stopped(BaseException):
    """Stopped by SIGINT or SIGTERM. Not an Exception: no error handling may continue after it."""

    def __init__(self, number: int, step: str = "") -> None:
        """`number` is the signal's; the message names the `step` where another run goes on."""
        self.number = number
        super().__init__(f"stopped; run again to go on from {step}" if step else "stopped")


def listen() -> None:
    """Raise Stopped on SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


@contextmanager
def noted() -> Iterator[Callable[[], int | None]]:
    """Yields a function that returns the signal that arrived, even while others handle signals, as Dagster does."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield lambda: _told(ours)
        finally:
            signal.set_wakeup_fd(before)


def _told(signals: socket.socket) -> int | None:
    try:
        return next((number for number in signals.recv(64) if number in (signal.SIGINT, signal.SIGTERM)), None)
    except BlockingIOError:
        return None


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise Stopped(number)
