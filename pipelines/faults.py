"""Explains on one line what the machine refuses, and what is damaged in a home."""

import errno
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from assets.exceptions import BundleError, EvergreenError, TrainingError
from assets.home import Home

__all__ = ["damaged_database", "explain", "explain_run", "full_disk"]

_LITTLE = 200_000_000
"""Bytes; a first run of the profile quick writes about this much into the home."""
_NEXT_TO_NOTHING = 10_000_000
_DOCTOR = "; `evergreen doctor` looks for more"
_EXAMINED = (BundleError, TrainingError)
_EXAMINED_STEPS = ("raw_records", "challenger")
"""Steps that need the sources, and memory or a GPU."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_DATABASES = {
    "ledger.db": "restore it from a copy",
    "mlflow/*.db": "move it away; `evergreen rebuild-registry` recreates it",
    "features/online.db": "delete it; the next run refills it",
    "dagster/**/*.db": "delete it; that loses the history of runs, and which schedules and sensors are on",
}
"""The SQLite databases of a home, and what to do when one is damaged."""


def explain(error: Exception) -> str | None:
    """An error's cause and remedy on one line; None for an unexpected error.

    What `evergreen doctor` looks at names it.
    """
    if isinstance(error, EvergreenError):
        return f"{error}{_DOCTOR if isinstance(error, _EXAMINED) else ''}"
    home = Home.from_environment()
    fault = full_disk(home) or _refusal(error, home)
    if fault is None and isinstance(error, (sqlite3.Error, DBAPIError)):
        fault = damaged_database(home)
    return fault and f"{fault}{_DOCTOR}"


def explain_run(failure: str, home: Home) -> str:
    """The failure of a run with a damaged database of its home, and who could explain it."""
    damaged = damaged_database(home)
    examined = damaged or full_disk(home) or any(failure.startswith(f"stopped at {step}:") for step in _EXAMINED_STEPS)
    return f"{'; '.join(filter(None, [failure, damaged]))}{_DOCTOR if examined else ''}"


def _refusal(error: Exception, home: Home) -> str | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in _REFUSED:
        return f"{error.filename}: {error.strerror}; run as the owner of {home.root}, or set EVERGREEN_HOME"
    if error.filename and not home.root.exists() and home.root.is_relative_to(error.filename):
        return f"EVERGREEN_HOME: {home.root} cannot be made: {error.strerror}; choose another folder"
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
