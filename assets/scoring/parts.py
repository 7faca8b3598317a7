"""A long scoring in parts, so that one that was killed goes on where it stopped."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Parts", "resumable"]


@dataclass(frozen=True)
class Parts:
    """Tables by their number, each of them whole or not there."""

    folder: Path

    def __contains__(self, number: int) -> bool:
        return self._path(number).exists()

    def write(self, number: int, table: pa.Table) -> None:
        """Write a part beside, and move it into place."""
        beside = self.folder / ".part"
        with beside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path(number))

    def tables(self) -> Iterator[pa.Table]:
        """The parts in the order of their numbers."""
        for path in sorted(self.folder.glob("*.parquet")):
            yield pq.read_table(path)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:09}.parquet"


@contextmanager
def resumable(folder: Path, name: str, key: str) -> Iterator[Parts]:
    """The parts of the scoring called `name` in a folder, with those that an earlier one of the same key has written.

    One process at a time has them; another waits. They are removed at the end, and parts of other keys at the
    beginning; after an error those that are whole stay, for the next one.
    """
    own = folder / f".{name}-{key}.parts"
    for other in set(folder.glob(f".{name}-*.parts")) - {own}:
        _remove(other)
    handle = _lock(own)
    try:
        yield Parts(own)
        shutil.rmtree(own)
    finally:
        if own.exists() and not any(own.glob("*.parquet")):
            shutil.rmtree(own)
        os.close(handle)


def _lock(folder: Path) -> int:
    """A handle on the folder that no other process has; the folder is made when it is not there."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # otherwise whoever had it has removed it
            return handle
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove parts that no process is working on."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)
