from math import sqrt

import numpy as np
import pytest

from assets.evaluation.paired import mcnemar, power
from assets.monitoring.probe import Probe, weigh
from assets.monitoring.twins import Twins
from assets.settings import load_settings

SETTINGS = load_settings("quick")
GATE, POLICY = SETTINGS.gate, SETTINGS.retraining
EQUAL = Twins(rows=500, only_challenger=30, only_champion=30, test_rows=500)
BETTER = Twins(rows=500, only_challenger=55, only_champion=15, test_rows=500)


def weighed(twins: Twins, age: int = 60, nth: int = 1) -> Probe:
    found = weigh(twins, age, 0.0003, nth, GATE, POLICY)
    assert found is not None
    return found


@pytest.mark.parametrize(("gain", "discordant", "rows"), [(0.03, 0.12, 500), (0.0, 0.1, 1500), (0.02, 0.2, 1000)])
def test_power_is_how_often_the_gates_test_passes(gain: float, discordant: float, rows: int) -> None:
    """Counted over models that differ on as many rows."""
    level, decided = 0.025, round(discordant * rows)
    ours = np.random.default_rng(0).binomial(decided, (1 + gain / discordant) / 2, 20_000)
    found = [(mcnemar(b, decided - b), (2 * b - decided) / rows) for b in range(decided + 1)]
    passed = np.array([chance <= level and shown >= GATE.min_gain for chance, shown in found])
    (told,) = power(np.array([gain]), discordant, rows, level, GATE.min_gain)
    assert told == pytest.approx(passed[ours].mean(), abs=0.015)


def test_power_is_a_chance_at_any_gain() -> None:
    found = power(np.array([-1.0, 0.0, 0.2, 1.0]), 0.1, 500, 0.025, 0.0)
    assert found == pytest.approx([0, found[1], 1, 1])
    assert found[1] <= 0.025
    assert power(np.array([0.5]), 0.001, 100, 0.025, 0.0) == 0.0  # no row tells them apart


def test_twins_and_age_make_a_posterior() -> None:
    found = weighed(BETTER)
    assert found.difference == pytest.approx(0.08)
    before = 0.004 * sqrt(60)
    exact = 1 / (1 / before**2 + 1 / found.error**2)
    assert found.spread == pytest.approx(sqrt(exact))
    assert found.gain == pytest.approx(exact * (0.018 / before**2 + 0.08 / found.error**2))
    assert found.promoted_gain > found.gain


def test_the_older_the_champion_and_the_better_the_twin_the_likelier_is_a_promotion() -> None:
    assert weighed(BETTER).chance > 0.8 > weighed(EQUAL).chance
    assert weighed(EQUAL, age=200).chance > weighed(EQUAL, age=10).chance
    assert weighed(BETTER, age=10).gain < weighed(BETTER).gain  # a young champion's is taken for chance
    assert weighed(EQUAL).chance > weighed(EQUAL, nth=4).chance  # the gate asks more of the fourth of a reign


def test_without_blind_rows_nothing_is_known() -> None:
    assert weigh(Twins(0, 0, 0, 500), 10, 0.0003, 1, GATE, POLICY) is None
    assert weigh(None, 10, 0.0003, 1, GATE, POLICY) is None
    assert 0 <= weighed(Twins(1, 0, 0, 500)).chance <= 1
