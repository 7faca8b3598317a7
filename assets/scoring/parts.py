"""A long scoring in parts: after a kill it continues where it stopped, and several processes can share it."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from assets.locks import claimed, remove_unshared, share
from assets.writing import replacing

__all__ = ["Parts", "resumable"]

Chunk = TypeVar("Chunk")


@dataclass(frozen=True)
class Parts:
    """Numbered tables, each complete or absent."""

    folder: Path

    def fill(self, chunks: Callable[[], Iterable[Chunk]], answer: Callable[[Chunk], pa.Table]) -> None:
        """Write the answer to every chunk, except those that another process writes; returns when all exist.

        The first pass takes the free chunks. If others had claimed any, a second pass waits for them, and answers the
        chunks of processes that were killed.
        """
        if not self._pass(chunks(), answer, wait=False):
            self._pass(chunks(), answer, wait=True)

    def tables(self) -> Iterator[pa.Table]:
        """The parts in numeric order."""
        for path in sorted(self.folder.glob("*.parquet")):
            yield pq.read_table(path)

    def _pass(self, chunks: Iterable[Chunk], answer: Callable[[Chunk], pa.Table], wait: bool) -> bool:
        """Answer the chunks without a part, waiting for other processes or not; whether every chunk then has one."""
        count = 0
        for count, chunk in enumerate(chunks, start=1):
            with self._claim(count - 1, wait) as ours:
                if ours:
                    self._write(count - 1, answer(chunk))
        return all(self._path(number).exists() for number in range(count))

    @contextmanager
    def _claim(self, number: int, wait: bool) -> Iterator[bool]:
        """Whether this process, and no other, is to write a part; the claim ends with the context or the process."""
        with claimed(self._path(number).with_suffix(".claim"), wait=wait) as ours:
            yield ours and not self._path(number).exists()

    def _write(self, number: int, table: pa.Table) -> None:
        with replacing(self._path(number)) as file:
            pq.write_table(table, file, compression="zstd")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:09}.parquet"


@contextmanager
def resumable(folder: Path, name: str, key: str) -> Iterator[Parts]:
    """The parts of the scoring called `name` in a folder, shared with other processes that use the same key.

    The last process to finish removes them, and the first to start removes those of other keys; after an error or a
    kill, complete parts stay for the next call.
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
