"""Runs a program that ends with its parent: `python -m pipelines.tether PROGRAM ARGUMENTS`.

Its standard input is a pipe that only the parent holds open: the kernel closes it however the parent ends. The program
is then killed with everything it has started, all in one process group.
"""

import os
import runpy
import signal
import sys
from threading import Thread

from assets import logs

__all__ = ["main"]


def main(program: str) -> None:
    """Run a Python program in this process, the leader of a group. The arguments are those of `sys.argv`."""
    # A script's background processes (&) ignore SIGINT, and Dagster treats SIGTERM like SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logs.begin()
    Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_path(program, run_name="__main__")


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    del sys.argv[0]
    main(sys.argv[0])
