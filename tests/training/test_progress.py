"""The progress of a run: what a bundle says of its course."""

from datetime import UTC, datetime
from typing import Any

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
    assert summary["step_tokens"] == [[1, 12], [2, 15], [3, 18]]
    assert summary["seconds"] == 10.0
    assert abs((datetime.now(UTC) - datetime.fromisoformat(summary["ended"])).total_seconds()) < 60


def test_the_points_that_are_reported_are_those_of_the_bundle(clock: list[float]) -> None:
    told: list[dict[str, Any]] = []
    progress = Progress(450, lambda _: None, report=told.append, started=clock[0], began=5000.0)
    for step in range(450):
        clock[0] += 2
        progress.step(np.array([10]))
        progress.tell([float(step)])
        if step == 99:
            progress.evaluated(100, 0.7)
    summary = progress.summary()
    losses = [[point["step"], point["values"]["loss"]] for point in told if "loss" in point["values"]]
    assert losses == summary["loss_curve"]
    assert {point["values"].get("tokens_per_second", 5.0) for point in told} == {5.0}
    (evaluated,) = [point for point in told if "validation_loss" in point["values"]]
    assert evaluated == {"step": 100, "at": 5200.0, "values": {"validation_loss": 0.7}}
    assert [[point["step"], point["at"] - 5000.0] for point in told if point is not evaluated] == [
        pair for pair in summary["step_seconds"] if pair[0] in dict(losses)
    ]
