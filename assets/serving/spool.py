"""Writes what was asked and answered to disk before it is acknowledged (`assets.ingestion.served` says where)."""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from threading import Condition, Thread
from time import monotonic
from typing import Any

from assets.home import Home
from assets.ingestion.served import CLOSED, OPEN, spool
from assets.writing import sync

__all__ = ["Spool"]

_log = logging.getLogger("evergreen.serving")

Durable = Callable[[OSError | None], None]


class Spool:
    """Appends events to a segment, many with one flush to disk; one thread writes."""

    def __init__(self, home: Home, seconds: float, size: int, closed: Callable[[], None]) -> None:
        """`closed` is called, in the writer's thread, after each segment that is complete by age or size."""
        self._folder, self._seconds, self._size, self._closed = spool(home), seconds, size, closed
        self._pending: list[tuple[bytes, Durable | None]] = []
        self._changed, self._ends = Condition(), False
        self._segment: _Segment | None = None
        self._thread = Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def append(self, events: Iterable[dict[str, Any]], durable: Durable | None = None) -> None:
        """Write events; `durable` is called once they are on disk, with the error if they are not."""
        lines = b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)
        with self._changed:
            self._pending.append((lines, durable))
            self._changed.notify()

    def close(self) -> None:
        """Write what is pending, and close the segment."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (pending := self._take()) is not None:
            if pending:
                fault = self._write(b"".join(lines for lines, _ in pending))
                for _, durable in pending:
                    if durable:
                        durable(fault)
            if self._segment and self._segment.is_due(self._seconds, self._size):
                self._rotate()
                self._closed()
        self._rotate()

    def _take(self) -> list[tuple[bytes, Durable | None]] | None:
        """What is pending, once there is something or the segment is due; None at the end."""
        with self._changed:
            while not self._pending and not self._ends:
                left = self._segment.left(self._seconds) if self._segment else None
                if left is not None and left <= 0:
                    return []
                self._changed.wait(left)
            pending, self._pending = self._pending, []
            return pending or (None if self._ends else [])

    def _write(self, data: bytes) -> OSError | None:
        try:
            self._segment = self._segment or _Segment(self._folder)
            self._segment.write(data)
        except OSError as error:
            return error
        return None

    def _rotate(self) -> None:
        segment, self._segment = self._segment, None
        try:
            if segment:
                segment.close()
        except OSError as error:  # its events are on disk: it is taken for that of a server that died
            _log.warning("a segment could not be closed: %s", error)


class _Segment:
    """A file that this process alone writes: others see by its lock that it is alive."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S-%f}-{token_hex(4)}"
        self._open, self._done = folder / (name + OPEN), folder / (name + CLOSED)
        new = folder / f"{name}.new"
        self._file = new.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        new.rename(self._open)  # from here on others see it, and that it is locked
        self._began, self._bytes = monotonic(), 0

    def left(self, seconds: float) -> float:
        return self._began + seconds - monotonic()

    def is_due(self, seconds: float, size: int) -> bool:
        return self.left(seconds) <= 0 or self._bytes >= size

    def write(self, data: bytes) -> None:
        """All of it or, with OSError, none."""
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            os.fdatasync(self._file.fileno())
        except OSError:
            self._file.truncate(self._bytes)
            self._file.seek(self._bytes)
            raise
        self._bytes += len(data)

    def close(self) -> None:
        with self._file:
            self._open.rename(self._done)
        sync(self._done.parent)
