"""The progress of a run: what a bundle says of its course."""

from datetime import UTC, datetime

import numpy as np
import pytest

from assets.training.program.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, by the clock of the program."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_every_point_of_the_curves_has_its_time_also_after_a_kill(clock: list[float]) -> None:
    before = Progress(3, lambda _: None, started=clock[0])
    clock[0] += 2
    before.step(np.array([5, 7]))
    before.tell([1.5])
    state = before.state()
    clock[0] = 1000.0  # another process
    progress = Progress(3, lambda _: None, started=clock[0])
    progress.restore(state)
    for loss in (1.0, 0.5):
        clock[0] += 4
        progress.step(np.array([3]))
        progress.tell([loss])
    progress.validation.append((3, 0.7))
    summary = progress.summary()
    assert summary["loss_curve"] == [[1, 1.5], [2, 1.0], [3, 0.5]]
    assert summary["step_seconds"] == [[1, 2.0], [2, 6.0], [3, 10.0]]
    assert summary["seconds"] == 10.0
    assert abs((datetime.now(UTC) - datetime.fromisoformat(summary["ended"])).total_seconds()) < 60
