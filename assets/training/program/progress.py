"""The progress of a training run: log lines, and curves, point by point while it runs and as a whole for the bundle."""

import copy
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Phases", "Progress", "Report", "reports"]

Report = Callable[[dict[str, Any]], None]
"""Sends a message of plain values to whoever started the run."""

_EVERY_SECONDS = 2.0
_CURVE_POINTS = 200


@dataclass
class Phases:
    """Seconds that each phase of the start took."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def end(self, name: str) -> None:
        """End the phase that started at the end of the previous one."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._since, 2)
        self._since = now

    def __str__(self) -> str:
        return "started in " + ", ".join(f"{seconds:.1f} s {name}" for name, seconds in self.seconds.items())


@dataclass
class Progress:
    """Counts steps, says where it is every two seconds, and reports each point of the curves."""

    steps: int
    say: Callable[[str], None]
    report: Report = lambda _: None
    started: float = field(default_factory=time.perf_counter)
    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    """Step and loss of each evaluation."""
    best: dict[str, Any] | None = None
    """The trained weights at the lowest validation loss, when training stops early."""
    findings: dict[str, float] = field(default_factory=dict)
    """The task's results on the validation rows with those weights, or with the last ones."""
    times: list[float] = field(default_factory=list)
    """Seconds of each step since this process started."""
    elapsed: list[float] = field(default_factory=list)
    """Seconds of training at the end of each step."""
    counted: list[int] = field(default_factory=list)
    """Tokens at the end of each step."""
    began: float = field(default_factory=time.time)
    """Seconds since 1970; for a resumed training, as if it had gone on all the time."""
    tokens: int = 0
    rows: int = 0
    squares: int = 0
    """The sum of the squared token counts of the rows: the cost of attention."""
    _said: float = 0.0
    _last: float = field(default_factory=time.perf_counter)

    def step(self, lengths: "NDArray[np.int64]") -> None:
        """Record one optimizer step: the useful tokens (no padding) of its rows over all ranks."""
        self.tokens += int(lengths.sum())
        self.rows += len(lengths)
        self.squares += int((lengths**2).sum())
        now = time.perf_counter()
        self.times.append(now - self._last)
        self.elapsed.append(now - self.started)
        self.counted.append(self.tokens)
        self._last = now

    def tell(self, losses: Iterable[float]) -> None:
        """Record the mean loss of each further step, which is known some time after the step."""
        for loss in losses:
            self.losses.append(loss)
            self._say_where()
            step, part = len(self.losses), self._part
            if step % part == 0 or step == self.steps:
                mean = self.losses[(step - 1) // part * part :]
                speed = self.counted[step - 1] / self.elapsed[step - 1]
                self._report_point(step, loss=sum(mean) / len(mean), tokens_per_second=speed)

    def evaluated(self, step: int, loss: float) -> None:
        """Record the loss on the validation rows after a step."""
        self.validation.append((step, loss))
        self.say(f"validation loss {loss:.3f}")
        self._report_point(step, validation_loss=loss)

    def _report_point(self, step: int, **values: float) -> None:
        self.report({"step": step, "at": self.began + self.elapsed[step - 1], "values": values})

    @property
    def _part(self) -> int:
        """The steps that a point of the loss curve is the mean of."""
        return -(-max(self.steps, len(self.losses), 1) // _CURVE_POINTS)

    def _say_where(self) -> None:
        now = time.perf_counter()
        if now - self._said >= _EVERY_SECONDS or len(self.losses) == self.steps:
            self._said = now
            self.say(self._line(now - self.started))

    def state(self) -> dict[str, Any]:
        """Its state for a checkpoint."""
        seconds = time.perf_counter() - self.started
        names = ("losses", "validation", "best", "findings", "elapsed", "counted", "tokens", "rows", "squares")
        return {name: copy.copy(getattr(self, name)) for name in names} | {"seconds": seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        seconds = state.pop("seconds")
        self.started, self.began = time.perf_counter() - seconds, time.time() - seconds
        for name, value in state.items():
            setattr(self, name, value)

    def summary(self) -> dict[str, Any]:
        """Steps, seconds, useful tokens/s and the loss curve: at most 200 points (last step, mean loss up to it).

        `ended` is the instant of this call, in UTC; `step_seconds` and `step_tokens` are the seconds and the tokens of
        training at the curves' steps.
        """
        seconds, size = time.perf_counter() - self.started, self._part
        parts = [self.losses[start : start + size] for start in range(0, len(self.losses), size)]
        curve = [[min((i + 1) * size, len(self.losses)), sum(part) / len(part)] for i, part in enumerate(parts)]
        shown = sorted({int(step) for step, _ in [*curve, *self.validation]})
        return {
            "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "steps": len(self.losses),
            "rows": self.rows,
            "tokens": self.tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(self.tokens / seconds, 1),
            "validation_loss": self.validation,
            "loss_curve": curve,
            "step_seconds": [[step, round(self.elapsed[step - 1], 3)] for step in shown],
            "step_tokens": [[step, self.counted[step - 1]] for step in shown],
            **self.findings,
        }

    def _line(self, seconds: float) -> str:
        done, recent = len(self.losses), self.losses[-20:]
        return (
            f"step {done}/{self.steps}  loss {sum(recent) / len(recent):.3f}  "
            f"{self.tokens / seconds:,.0f} tokens/s  {seconds / done * (self.steps - done):.0f} s left"
        )


@contextmanager
def reports(rank: int) -> Iterator[tuple[Callable[[str], None], Report]]:
    """Where rank 0's lines and its messages go: the Dagster run that started it, or stderr and nowhere.

    The other ranks report nothing.
    """
    from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

    if rank > 0:
        yield _nothing, _nothing
    elif DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ:
        with open_dagster_pipes() as pipes:
            yield pipes.log.info, pipes.report_custom_message
    else:
        yield lambda line: print(line, file=sys.stderr, flush=True), _nothing  # noqa: T201 - its output when run alone


def _nothing(_: Any) -> None:
    """What is said to nobody."""
