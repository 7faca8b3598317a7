"""Turns a stream of bytes into windows of whole lines, whatever the size of its blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from assets.ingestion.records import TOO_LONG
from assets.ingestion.unpacking import DamagedError

__all__ = ["UNFINISHED", "Limits", "Window", "windows"]

UNFINISHED = "unfinished-last-line"
_LINE_END = b"\n"


@dataclass(frozen=True)
class Limits:
    """Limits on what is held in memory at a time, in bytes."""

    record: int
    """A record that is longer, or whose quotes stay open for longer, is broken."""
    chunk: int
    """The size of the stretch read at a time."""


class Window(NamedTuple):
    """Whole lines, except that the last may lack its end: the object's last line, or one cut short."""

    data: bytes
    final: bool
    cut: str | None
    """Why the last line cannot be trusted, if it has no end."""
    damage: str | None = None
    """Why the object cannot be read from here on."""


def windows(blocks: Iterable[bytes], limits: Limits, whole: bool) -> Iterator[Window]:
    """The bytes in windows of about a chunk; `whole`: the object is complete, so its last line needs no end.

    Where a line is longer than a record may be, a window ends inside it. The last window is final.
    """
    rest, damage = b"", None
    chunks = _chunks(blocks, limits.chunk)
    try:
        for chunk in chunks:
            lines, end, rest = (rest + chunk).rpartition(_LINE_END)
            if len(rest) > limits.record:
                yield Window(lines + end + rest, False, TOO_LONG)
                rest = b""
            elif end:
                yield Window(lines + end, False, None)
    except DamagedError as error:
        damage = str(error)
    yield Window(rest, True, damage or (UNFINISHED if rest and not whole else None), damage)


def _chunks(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of at least `size`, except the last; bytes before any damage are kept."""
    held, length = [], 0
    try:
        for block in filter(None, blocks):
            held.append(block)
            length += len(block)
            if length >= size:
                yield b"".join(held)
                held, length = [], 0
    except DamagedError:
        yield b"".join(held)
        raise
    yield b"".join(held)
