"""Micro-batches: records of several requests are answered together, by one thread.

The first record waits a few milliseconds for others. While a batch is answered, those that come in become the next one,
so under load nothing waits longer than the model takes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic
from typing import Any

from assets.exceptions import EvergreenError
from assets.ingestion.records import Record

__all__ = ["Asked", "Batches", "Busy", "Failed"]


class Busy(EvergreenError):  # noqa: N818 - reads as what it says
    """The server cannot answer now; the same request may succeed later."""


class Failed(EvergreenError):  # noqa: N818 - reads as what it says
    """A request failed by a fault of ours."""


@dataclass
class Asked:
    """A request: its records, and where the answers go."""

    records: Sequence[Record]
    request: str
    key: str
    done: Callable[[Any], None]
    """Called once, in any thread, with the answers or an exception."""
    arrived: float = field(default_factory=monotonic)


class Batches:
    """Collects requests and hands them to `answer`, some at a time."""

    def __init__(
        self, answer: Callable[[list[Asked]], None], prepare: Callable[[], None], most: int, wait: float, queued: int
    ) -> None:
        """At most `most` records in a batch, `wait` seconds, `queued` records; the thread calls `prepare` first."""
        self._prepare = prepare
        self._answer, self._most, self._wait, self._queued = answer, most, wait, queued
        self._waiting = deque[Asked]()
        self._records = 0
        self._changed, self._closed = Condition(), False
        self._thread = Thread(target=self._run, name="batches", daemon=True)

    @property
    def waiting(self) -> int:
        """Records that wait for the model."""
        return self._records

    def start(self) -> None:
        self._thread.start()

    def add(self, asked: Asked) -> None:
        """Queue a request. Raises Busy when too many records wait, or the server is stopping."""
        with self._changed:
            if self._closed:
                raise Busy("the server is stopping")
            if self._records and self._records + len(asked.records) > self._queued:
                raise Busy(f"{self._records} records are waiting already")
            self._waiting.append(asked)
            self._records += len(asked.records)
            self._changed.notify()

    def close(self) -> None:
        """Answer what is queued, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        self._prepare()
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[Asked]:
        """The next batch; empty at the end. A request is never split, so one may be larger than a batch."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
            until = self._waiting[0].arrived + self._wait
            while self._records < self._most and not self._closed and (left := until - monotonic()) > 0:
                self._changed.wait(left)
            batch, count = [self._waiting.popleft()], 0
            count = len(batch[0].records)
            while self._waiting and count + len(self._waiting[0].records) <= self._most:
                batch.append(self._waiting.popleft())
                count += len(batch[-1].records)
            self._records -= count
            return batch
