"""Shows how far a run of the graph is: live on a terminal, otherwise a line for each step."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from assets.logs import are_json, line_of

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Lines", "progress_on_stderr"]


class Lines:
    """A plain line when a step starts, one when it ends, and those in between."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def __call__(self, line: str) -> None:
        self._say(line)

    def started(self, step: str, place: int, total: int) -> None:
        """`place` counts the run's `total` steps from 1."""
        self(f"{f'{place} of {total}':>12}  {step}")

    def ended(self, step: str, seconds: float) -> None:
        self(f"  {seconds:8.1f} s  {step}")


class _Live(Lines):
    """The same, with the running step and its time on a last line that is redrawn."""

    def __init__(self, shown: "Progress") -> None:
        self._shown = shown
        super().__init__(lambda line: shown.console.print(line, markup=False, highlight=False, soft_wrap=True))

    def started(self, step: str, place: int, total: int) -> None:
        for task in self._shown.task_ids:
            self._shown.remove_task(task)
        self._shown.add_task(f"{step} ({place} of {total})", total=total, completed=place - 1)


@contextmanager
def progress_on_stderr() -> Iterator[Lines]:
    """Progress on what is stderr now: while the graph runs, file descriptor 2 belongs to the libraries' log."""
    with os.fdopen(os.dup(2), "w", buffering=1) as stderr:
        if are_json():
            yield Lines(lambda line: print(line_of("evergreen", line.strip()), file=stderr))
        elif stderr.isatty() and os.environ.get("TERM") != "dumb":
            with _live(stderr) as shown:
                yield _Live(shown)
        else:
            yield Lines(lambda line: print(line, file=stderr))


def _live(terminal: TextIO) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TimeElapsedColumn(), BarColumn(20), TextColumn("{task.description}", markup=False))
    return Progress(
        *columns,
        console=Console(file=terminal),
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,  # what libraries print is for their log
        redirect_stderr=False,
    )
