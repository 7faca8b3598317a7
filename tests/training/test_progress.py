"""The progress of a training: what it hands on to a process that resumes it, and what it sums up to."""

from collections.abc import Iterable

import numpy as np

from assets.training.program.progress import Progress


def trained(progress: Progress, losses: Iterable[float]) -> Progress:
    for loss in losses:
        progress.step(np.array([3, 4]))
        progress.tell([loss])
    return progress


def test_a_resumed_training_has_the_curve_and_the_times_of_all_its_steps() -> None:
    state = trained(Progress(4, print), [2.0, 1.0]).state()
    resumed = Progress(4, print)
    resumed.restore(state)
    summary = trained(resumed, [0.5, 0.25]).summary()
    assert summary["loss_curve"] == [[1, 2.0], [2, 1.0], [3, 0.5], [4, 0.25]]
    steps, seconds = zip(*summary["step_seconds"], strict=True)
    assert steps == (1, 2, 3, 4)
    assert list(seconds) == sorted(seconds)
