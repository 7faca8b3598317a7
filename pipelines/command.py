"""The process of the `evergreen` command: whenever it is told to stop, it ends in one line."""

import sys
from typing import NoReturn

from assets.lean import look_for_garbage_rarely
from assets.training.program.process import leave
from pipelines.stopping import Stopped, listen

__all__ = ["program"]


def program() -> NoReturn:
    """Run the command and end with its exit code, or 130 and 143 when told to stop."""
    listen()
    look_for_garbage_rarely()
    try:
        from pipelines.cli import main  # takes half a second, which a signal may come in

        leave(main())
    except Stopped as told:
        sys.stderr.write(f"evergreen: {told}; what was published is intact\n")
        leave(128 + told.number)
