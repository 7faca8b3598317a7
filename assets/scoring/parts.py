"""A long scoring in parts: one that was killed continues where it stopped, and several processes share one."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from assets.lake import claimed, remove_unshared, replacing, share

__all__ = ["Parts", "resumable"]

Chunk = TypeVar("Chunk")


@dataclass(frozen=True)
class Parts:
    """Tables by their number, each of them whole or not there."""

    folder: Path

    def fill(self, chunks: Callable[[], Iterable[Chunk]], answer: Callable[[Chunk], pa.Table]) -> None:
        """Write the answer to every chunk, but for those that another process writes; return when all are there.

        The first pass takes what is free. Where others had taken any, a second one waits for them, and answers what
        they left when they were killed.
        """
        if not self._pass(chunks(), answer, wait=False):
            self._pass(chunks(), answer, wait=True)

    def tables(self) -> Iterator[pa.Table]:
        """The parts in the order of their numbers."""
        for path in sorted(self.folder.glob("*.parquet")):
            yield pq.read_table(path)

    def _pass(self, chunks: Iterable[Chunk], answer: Callable[[Chunk], pa.Table], wait: bool) -> bool:
        """Answer what has no part yet, waiting for other processes or not; whether every chunk has one then."""
        count = 0
        for count, chunk in enumerate(chunks, start=1):
            with self._claim(count - 1, wait) as ours:
                if ours:
                    self._write(count - 1, answer(chunk))
        return all(self._path(number).exists() for number in range(count))

    @contextmanager
    def _claim(self, number: int, wait: bool) -> Iterator[bool]:
        """Whether a part is to be written by this process, and by no other meanwhile; the claim ends with either."""
        with claimed(self._path(number).with_suffix(".claim"), wait=wait) as ours:
            yield ours and not self._path(number).exists()

    def _write(self, number: int, table: pa.Table) -> None:
        with replacing(self._path(number)) as file:
            pq.write_table(table, file, compression="zstd")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:09}.parquet"


@contextmanager
def resumable(folder: Path, name: str, key: str) -> Iterator[Parts]:
    """The parts of the scoring called `name` in a folder, with those that others of the same key write or have written.

    The last process to end removes them, and the first to begin those of other keys; after an error, and after a kill,
    those that are whole stay for the next one.
    """
    own = folder / f".{name}-{key}.parts"
    for other in set(folder.glob(f".{name}-*.parts")) - {own}:
        with suppress(FileNotFoundError):  # another process was faster
            remove_unshared(os.open(other, os.O_RDONLY), other)
    handle, done = share(own), False
    try:
        yield Parts(own)
        done = True
    finally:
        if done or not any(own.glob("*.parquet")):
            remove_unshared(handle, own)
        else:
            os.close(handle)
