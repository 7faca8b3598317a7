"""Does the champion keep its promise? Tests its errors on labels that have arrived against its calibrated confidence.

The promise of an answer is its chance of being wrong by its confidence, calibrated on the champion's evaluation
(`assets.monitoring.estimation`); for the records of one true label, it is the share that the champion got wrong in its
evaluation. The evaluation's own error is allowed for, and at least `min_loss`. So a harder window breaks no promise,
since the confidence shows it. The same text with another label does (concept drift), and so does overconfidence.

The test may be read every night. It bets against the promise: a capital of 1 is multiplied by 1 + bet * (error -
promise) with each answer. While the promise is kept that gains nothing on average, so the chance that the capital ever
reaches E is at most 1 / E (Ville's inequality). Several bets are held at once (Waudby-Smith and Ramdas, Estimating
means of bounded random variables by betting, 2024: diversified Kelly betting). Each night stakes another 365th of the
capital, so that a good year does not make the test slow (Shin, Ramdas and Rinaldo, E-detectors, 2023: the
Shiryaev-Roberts detector); the chance of a false alarm is per year of nights. Each label counts once, in the night of
its arrival, and records that start alike count as one answer per night: copies of a letter are right or wrong together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log, log10

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logsumexp  # type: ignore[import-untyped]
from scipy.stats import beta  # type: ignore[import-untyped]

from assets.monitoring.comparison import Column
from assets.monitoring.estimation import Answers, chances
from assets.settings import DriftSettings

__all__ = ["Promise", "measure_answers", "promises"]

Floats = npt.NDArray[np.float64]

_NIGHTS = 365
_BETS = 0.9 * 0.5 ** np.arange(7)
"""Shares of the capital to bet on each unexpected error: they suit an excess of errors from 5 points down to 0.1."""


@dataclass(frozen=True)
class Promise:
    """Answers that are judged together; `expected` is their chance of being wrong [rows], before allowances."""

    name: str
    alarms: float
    """The chance of a false alarm in a year of nights."""
    evaluated: pd.DataFrame
    arrived: pd.DataFrame
    """Columns: error (0 or 1), expected; here also night, and copies: the number of a letter in a night."""
    min_loss: float

    @property
    def threshold(self) -> float:
        """The evidence that is enough; half of the false alarms are reserved for the evaluation's own error."""
        return log10(2 / self.alarms)

    def promised(self) -> Floats:
        """The largest chance of being wrong that the promise allows for each arrived answer, [rows].

        The true share of errors in the evaluation may exceed the observed one (the bound of Clopper and Pearson, 1934).
        """
        rows, wrong = len(self.evaluated), int(self.evaluated["error"].sum())
        bound = float(beta.ppf(1 - self.alarms / 2, wrong + 1, rows - wrong)) if wrong < rows else 1.0
        allowed = max(bound, wrong / rows + self.min_loss) - float(self.evaluated["expected"].mean())
        return np.asarray(np.clip(self.arrived["expected"] + allowed, 0.0, 1.0), dtype=np.float64)

    def evidence(self) -> Floats:
        """The decimal logarithm of what betting has made of a capital of 1, by night with answers."""
        _, first, copies = np.unique(self.arrived["copies"].to_numpy(), return_index=True, return_inverse=True)
        excess = np.bincount(copies, self.arrived["error"].to_numpy() - self.promised()) / np.bincount(copies)
        nights, places = np.unique(self.arrived["night"].to_numpy()[first], return_inverse=True)
        gains = np.zeros((len(nights), len(_BETS)))
        np.add.at(gains, places, np.log1p(excess[:, None] * _BETS))
        return np.asarray(logsumexp(_capital(gains), axis=1) - log(len(_BETS))) / log(10)

    def column(self) -> Column:
        evidence, wrong, promised = float(self.evidence()[-1]), self.arrived["error"].mean(), self.promised().mean()
        note = f"{wrong:.1%} of {len(self.arrived):,} wrong, {promised:.1%} promised at most"
        return Column(self.name, "answers", "evidence", evidence, 0.0, self.threshold, evidence >= self.threshold, note)


def measure_answers(evaluated: pd.DataFrame, arrived: pd.DataFrame, settings: DriftSettings) -> tuple[Column, ...]:
    """The evidence against the promise: for all answers, the sure ones, and by predicted and by true label.

    It is that of `promises` in the newest night; empty with fewer than `min_rows` arrived answers, or without an
    evaluation.
    """
    if len(arrived) < settings.min_rows or evaluated.empty:
        return ()
    return tuple(promise.column() for promise in promises(evaluated, arrived, settings))


def promises(evaluated: pd.DataFrame, arrived: pd.DataFrame, settings: DriftSettings) -> Iterator[Promise]:
    """The champion's promises about arrived answers: all of them, the sure ones, and by label.

    `evaluated`: the champion's evaluation, with label (the truth), predicted and confidence. `arrived`: the same for
    blind answers whose label is known, with night (the first on which it counts) and letter (equal where texts start
    alike). Sure answers are as confident as the surer half of the evaluation: few of those are wrong, so the same text
    with another label stands out. Of a year's `false_alarms`, a third is for all answers, a third for the sure ones,
    and the rest is shared equally by the labels.
    """
    arrived = arrived.assign(copies=arrived.groupby(["night", "letter"]).ngroup())
    sides, part = (_judged(evaluated, evaluated), _judged(arrived, evaluated)), settings.false_alarms / 3
    yield Promise("answers", part, *sides, settings.min_loss)
    least = evaluated["confidence"].median()
    tested, known = (rows[rows["confidence"] >= least] for rows in sides)
    if len(known):
        yield Promise("sure_answers", part, tested, known, settings.min_loss)
    streams = [("predicted", label) for label in sorted(evaluated["predicted"].unique())]
    streams += [("label", label) for label in sorted(evaluated["label"].unique())]
    for side, label in streams:
        tested, known = (rows[rows[side] == label] for rows in sides)
        if side == "label":
            # Confidence says nothing about the records of one true label, since it does not know which they are.
            tested, known = tested.assign(expected=0.0), known.assign(expected=0.0)
        name = f"answered_{label}" if side == "predicted" else f"true_{label}"
        if len(known):
            yield Promise(name, part / len(streams), tested, known, settings.min_loss)


def _judged(rows: pd.DataFrame, evaluated: pd.DataFrame) -> pd.DataFrame:
    truth = evaluated["label"].to_numpy()
    sides = (Answers(side["predicted"].to_numpy(), side["confidence"].to_numpy(float)) for side in (evaluated, rows))
    error = (rows["label"] != rows["predicted"]).astype(float)
    return rows.assign(error=error, expected=1 - chances(truth, *sides))


def _capital(gains: Floats) -> Floats:
    """The logarithm of the capital of each bet at the end of each night, [nights, bets], with a new stake per night."""
    capital, nights = np.full(gains.shape[1], -np.inf), []
    for night in gains:
        capital = np.logaddexp(capital, -log(_NIGHTS)) + night
        nights.append(capital)
    return np.array(nights)
