"""Locks of files, by which the processes of a machine wait for each other; the kernel releases them."""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["alive", "claimed", "has_died", "is_alive", "locked", "remove_unshared", "share"]

_log = logging.getLogger("evergreen")


@contextmanager
def locked(path: Path, what: str | None = None, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, created if needed; waits while another process holds it.

    The kernel releases it when its holder ends, however it ends. `what`: what the lock protects, for the message that
    says what is waited for; None where the wait is brief. `shared`: any number of processes may hold it at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if what is not None:
                _log.warning("waiting for another run to finish with %s", what)
            fcntl.flock(file, kind)
        yield


@contextmanager
def claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process got the lock of a file, created if needed; without `wait` another may hold it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def share(folder: Path) -> int:
    """A handle that keeps others from removing a folder (`remove_unshared`); creates the folder if needed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:  # otherwise it was removed before the lock was acquired
            return handle
        os.close(handle)


def remove_unshared(handle: int, folder: Path) -> None:
    """Close a handle on a folder, and remove the folder if no other process shares it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            shutil.rmtree(folder)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


@contextmanager
def alive(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is removed at the end: a file without a holder is from a process that died."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_alive(path: Path) -> bool:
    """Whether a process is `alive` with this file."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def has_died(path: Path) -> bool:
    """Whether a process that was `alive` with this file was killed."""
    return not is_alive(path) and path.exists()
