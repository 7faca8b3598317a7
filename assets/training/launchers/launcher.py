"""Runs several ranks, one worker each: `python -m assets.training.launchers.launcher {torch|deepspeed} ARGUMENTS`.

Both launchers end all ranks when one fails or when they are asked to stop. This one also stops when its parent is
killed, and its workers are killed with it however it ends (assets/training/program/process.py).
"""

import signal
import sys
from pathlib import Path
from types import FrameType

from assets import logs
from assets.training.program.process import die_with_parent, hand_over_environment, lean_imports, silence_stdout

__all__ = ["main"]


def main(launcher: str, arguments: list[str]) -> None:
    """Run a launcher, whose last argument is the plan's file. Raises SystemExit with its status.

    It is 143, as for a process that SIGTERM ends, when it or a rank was told to stop (torch's launcher only).
    """
    die_with_parent(signal.SIGTERM)
    silence_stdout()
    logs.begin()
    lean_imports()
    if launcher == "torch":
        _run_torch(arguments)
    else:
        assert launcher == "deepspeed", launcher
        hand_over_environment(Path(arguments[-1]).parent)
        from deepspeed.launcher import runner

        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, _stop)
        runner.main(arguments)


def _run_torch(arguments: list[str]) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    stopped = 128 + signal.SIGTERM
    try:
        run.main(arguments)
    except SignalException as told:
        sys.exit(128 + told.sigval)
    except ChildFailedError as error:
        if stopped in {failure.exitcode for failure in error.failures.values()}:
            sys.exit(stopped)
        raise


def _stop(number: int, _frame: FrameType | None) -> None:
    """End the launcher's processes, as DeepSpeed's launcher does with several hosts but not with one."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.terminate()
    sys.exit(128 + number)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
