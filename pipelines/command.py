"""The process of the `evergreen` command: whenever it is stopped, it ends with one line."""

import sys
from typing import NoReturn

from assets.lean import look_for_garbage_rarely
from assets.training.program.process import leave
from pipelines.stopping import Stopped, listen

__all__ = ["program"]


def program() -> NoReturn:
    """Run the command and exit with its exit code, or 130 or 143 when stopped."""
    listen()
    look_for_garbage_rarely()
    try:
        from pipelines.cli import main  # takes half a second, in which a signal may arrive

        leave(main())
    except Stopped as stopped:
        sys.stderr.write(f"evergreen: {stopped}; the last publication is intact\n")
        leave(128 + stopped.number)
