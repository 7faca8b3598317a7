"""How far the training is that is going on: what its first rank has reported last, read while it goes on."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from assets.lake import Lake
from assets.watching.figures import Figure, gauge

__all__ = ["progress"]

_LINE = re.compile(r"step (\d+)/(\d+)  loss (\S+)  ([\d,]+) tokens/s  (\d+) s left")
"""As `assets.training.program.progress` writes it."""
_END = 65_536
"""Bytes at the end of the reports that are looked at: a line has about two hundred."""
_NAMES = {
    "step": "Steps that are done.",
    "steps": "Steps that there are.",
    "loss": "The mean loss of the last steps.",
    "tokens_per_second": "Useful tokens, without padding, in a second.",
    "left_seconds": "Seconds that it still takes, by its speed so far.",
}


def progress(lake: Lake, since: float | None) -> Iterator[Figure]:
    """The figures of a training that has reported since an instant, in seconds since 1970; None: no run goes on."""
    found = sorted((lake.root / "training").glob(".staging-*/messages")) if since is not None else []
    reported = [(path.stat().st_mtime, path) for path in found]
    told, path = max(reported, default=(0.0, None))
    running = path is not None and told >= (since or 0)
    yield from gauge("evergreen_training_running", "1 while a training reports to a run.", running)
    if running and path is not None:
        yield from gauge("evergreen_training_progress_timestamp_seconds", "When it last reported.", told)
        for (name, help_), value in zip(_NAMES.items(), _last(path), strict=False):
            yield from gauge(f"evergreen_training_now_{name}", f"The running training: {help_}", value)


def _last(messages: Path) -> tuple[float, ...]:
    """The numbers of the last report of a step; none before the first."""
    with messages.open("rb") as file:
        file.seek(max(0, messages.stat().st_size - _END))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if found := _LINE.search(_message(line)):
            return tuple(float(number.replace(",", "")) for number in found.groups())
    return ()


def _message(line: str) -> str:
    """What a message of Dagster Pipes says; nothing for half a one, or one of another kind."""
    try:
        return str(json.loads(line)["params"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
