"""The test by which a canary is withdrawn."""

import numpy as np
import pytest

from assets.evaluation.live import chance_of_no_loss


def evidence(ours: int, theirs: int) -> float:
    return 1 / chance_of_no_loss(ours, theirs)


def test_no_rows_say_nothing_and_the_sign_counts() -> None:
    assert chance_of_no_loss(0, 0) == 1
    assert chance_of_no_loss(30, 0) == 1
    assert chance_of_no_loss(0, 10) == pytest.approx(11 / 2047)
    assert chance_of_no_loss(40_000, 50_000) < 1e-200


@pytest.mark.parametrize(("ours", "theirs"), [(0, 9), (2, 14), (20, 45)])
def test_what_is_gained_by_the_next_row_is_nothing_on_average(ours: int, theirs: int) -> None:
    """The evidence is a martingale if both are equally good (where it is above the bound of 1)."""
    after = (evidence(ours + 1, theirs) + evidence(ours, theirs + 1)) / 2
    assert after == pytest.approx(evidence(ours, theirs), rel=1e-9)


def test_looking_after_every_row_still_alarms_as_rarely_as_it_says() -> None:
    table = np.array([[chance_of_no_loss(a, b) for b in range(301)] for a in range(301)])
    losses = np.random.default_rng(0).random((4000, 300)) < 0.5
    theirs = losses.cumsum(axis=1)
    ours = np.arange(1, 301) - theirs
    alarmed = (table[ours, theirs] <= 0.05).any(axis=1).mean()
    assert 0.005 < alarmed < 0.05


def test_a_real_loss_is_found() -> None:
    theirs = (np.random.default_rng(1).random(150) < 0.75).sum()
    assert chance_of_no_loss(int(150 - theirs), int(theirs)) < 0.001
