"""The expected gain of a retraining, by the twins' answers, the champion's age and the gate's power.

The gain of a new champion is modelled as a random walk with the trend of past verdicts: its prior is normal around
`gain_per_day` times the age, with a variance that grows with the age. The twins' difference on blind rows, with its
error, gives the posterior. At each gain the gate promotes with the power of its own test, for its number of test rows
and the significance of the next challenger of the reign.
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
"""Points of equal probability that represent the posterior."""


@dataclass(frozen=True)
class Probe:
    """The twins' measurement, and what follows from it; gains are in accuracy."""

    rows: int
    """Blind rows that both twins answered."""
    difference: float
    """The challenger's twin minus the champion's."""
    error: float
    """The standard error of the difference."""
    gain: float
    """The posterior's mean."""
    spread: float
    """The posterior's standard deviation."""
    chance: float
    """The chance that the gate promotes a challenger."""
    promoted_gain: float
    """The posterior's mean over the gains that it would promote."""


def weigh(
    twins: Twins | None, age_days: int, gain_per_day: float, nth: int, gate: GatePolicy, policy: RetrainingPolicy
) -> Probe | None:
    """The probe for a champion of some age whose next challenger is the nth of its reign; None without blind rows."""
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
