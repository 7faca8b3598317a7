"""What a retraining is expected to bring, by what twins have answered, the champion's age and the gate's power.

What a new champion would gain is a random walk with the drift of past verdicts: before anything is asked, normal around
`gain_per_day` times the age, with a variance that grows with the age. The twins' difference on blind rows, with its
error, makes that a posterior. At each gain the gate promotes with the power of its own test, on as many test rows and
at the significance of the next challenger of the reign.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from assets.evaluation.harm import paired_gain
from assets.evaluation.paired import power
from assets.monitoring.twins import Twins
from assets.settings import GatePolicy, RetrainingPolicy

__all__ = ["Probe", "weigh"]

_GAINS = 400
"""Points of equal probability that stand for the posterior."""


@dataclass(frozen=True)
class Probe:
    """What twins measured, and what follows from it; gains are in accuracy."""

    rows: int
    """Blind rows that both twins have answered."""
    difference: float
    """The challenger's twin minus the champion's."""
    error: float
    """The standard error of that."""
    gain: float
    """The posterior's mean."""
    spread: float
    """Its standard deviation."""
    chance: float
    """That the gate promotes a challenger."""
    promoted_gain: float
    """What the posterior says of those that it would promote."""


def weigh(
    twins: Twins | None, age_days: int, gain_per_day: float, nth: int, gate: GatePolicy, policy: RetrainingPolicy
) -> Probe | None:
    """The probe of a champion of an age, whose next challenger is the nth of its reign; None without blind rows."""
    if twins is None or not twins.rows:
        return None
    difference, error = paired_gain(twins.only_challenger, twins.only_champion, twins.rows)
    before = policy.gain_spread * sqrt(max(age_days, 1))
    trust = before**2 / (before**2 + error**2)
    gain, spread = gain_per_day * age_days * (1 - trust) + difference * trust, before * sqrt(1 - trust)
    gains = gain + spread * ndtri((np.arange(_GAINS) + 0.5) / _GAINS)
    discordant = (twins.only_challenger + twins.only_champion + 1) / (twins.rows + 2)
    chances = power(gains, discordant, twins.test_rows, gate.level(nth), gate.min_gain)
    chance = float(chances.mean())
    promoted = float((gains * chances).mean() / chance) if chance else gain
    return Probe(twins.rows, difference, error, gain, spread, chance, promoted)
