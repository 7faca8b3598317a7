"""Explains on one line what the machine refuses, and what is damaged in a home."""

import errno
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from assets.exceptions import EvergreenError
from assets.lake import Home

__all__ = ["damaged_database", "explain", "full_disk"]

_LITTLE = 200_000_000
"""Bytes; a first run of the profile quick writes about this much into the home."""
_NEXT_TO_NOTHING = 10_000_000
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_DATABASES = {
    "ledger.db": "restore it from a copy",
    "mlflow/*.db": "move it away; `evergreen rebuild-registry` recreates it",
    "features/online.db": "delete it; the next run refills it",
    "dagster/**/*.db": "delete it; that loses the history of runs, and which schedules and sensors are on",
}
"""The SQLite databases of a home, and what to do when one is damaged."""


def explain(error: Exception) -> str | None:
    """An error's cause and remedy on one line; None for an unexpected error."""
    if isinstance(error, EvergreenError):
        return str(error)
    home = Home.from_environment()
    if full := full_disk(home):
        return full
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return f"{error.filename}: {error.strerror}; run as the owner of {home.root}, or set EVERGREEN_HOME"
    if isinstance(error, (sqlite3.Error, DBAPIError)):
        return damaged_database(home)
    return None


def full_disk(home: Home) -> str | None:
    """Which disk has so little left that a failed write is no wonder, and what to do; None for neither.

    Each library reports a full disk in its own way; this is asked after a failure.
    """
    temporary = Path(tempfile.gettempdir())
    for folder, little, remedy in ((home.root, _LITTLE, ""), (temporary, _NEXT_TO_NOTHING, " or set TMPDIR")):
        if folder.exists() and shutil.disk_usage(folder).free < little:
            return (
                f"the disk of {folder} is full; free some space{remedy} and run again (the last publication is intact)"
            )
    return None


def damaged_database(home: Home) -> str | None:
    """The first SQLite database of a home that cannot be used, and why; None when all can."""
    faults = (_fault(path, remedy) for where, remedy in _DATABASES.items() for path in sorted(home.root.glob(where)))
    return next(filter(None, faults), None)


def _fault(path: Path, remedy: str) -> str | None:
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path}: no permission to read and write it"
    try:
        with closing(sqlite3.connect(path)) as connection:
            (result,) = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        result = str(error)
    return None if result == "ok" else f"{path}: {result}; {remedy}"
