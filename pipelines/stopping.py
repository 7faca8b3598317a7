"""What a command does when it is told to stop: one line, and the exit code of the signal."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["Stopped", "listen", "noted"]


class Stopped(BaseException):
    """SIGINT or SIGTERM told this process to stop. Not an Exception: nothing that mends errors may go on from it."""

    def __init__(self, number: int, where: str = "") -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}{where}")


def listen() -> None:
    """Raise Stopped when this process is told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


@contextmanager
def noted() -> Iterator[Callable[[], int | None]]:
    """Gives a function that says which signal has come, whoever handles signals meanwhile: Dagster does in a run."""
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
