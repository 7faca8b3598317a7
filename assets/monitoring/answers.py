"""Does the champion keep its promise? Its errors among the labels that have arrived, against its calibrated confidence.

The promise of an answer is its chance to be wrong by the confidence, calibrated on the champion's evaluation
(`assets.monitoring.estimation`); for the records of one true label, it is the share that the champion got wrong in
its evaluation. What the evaluation's own error leaves open is allowed for, and never less than `min_loss`. So a window
that is harder breaks no promise: the confidence has said so. The same text in another label does (concept drift), and
so does a model that is surer than it is right.

The test may be looked at every night. It bets against the promise: capital of 1 grows by 1 + bet * (error - promise)
with each answer, which gains nothing on average while the promise is kept, so that the chance that it is ever E is at
most 1 / E (Ville's inequality). Several bets are held at once (Waudby-Smith and Ramdas, Estimating means of bounded
random variables by betting, 2024: diversified Kelly betting). Each night stakes another 365th of the capital, so that a
good year does not make the test slow (Shin, Ramdas and Rinaldo, E-detectors, 2023: the Shiryaev-Roberts detector); what
is said of false alarms holds for a year of nights. Each label counts once, in the night of its arrival, and records
that begin alike count as one answer in a night: copies of a letter are right or wrong together.
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
"""Of the capital, for an error that was promised not to be: from 5 points too many errors, down to 0.1."""


@dataclass(frozen=True)
class Promise:
    """Answers that are judged together. expected: the chance to be wrong that their promise begins from, [rows]."""

    name: str
    alarms: float
    """The chance of a false alarm in a year of nights."""
    evaluated: pd.DataFrame
    arrived: pd.DataFrame
    """Columns of either: error (0 or 1), expected; here also night, and copies: the number of a letter in a night."""
    min_loss: float

    @property
    def threshold(self) -> float:
        """The evidence that is enough; half of the false alarms is for the evaluation's own error."""
        return log10(2 / self.alarms)

    def promised(self) -> Floats:
        """The chance to be wrong that each answer which has arrived may have, [rows].

        In the evaluation it may have been larger than what was seen (the bound of Clopper and Pearson, 1934).
        """
        rows, wrong = len(self.evaluated), int(self.evaluated["error"].sum())
        bound = float(beta.ppf(1 - self.alarms / 2, wrong + 1, rows - wrong)) if wrong < rows else 1.0
        allowed = max(bound, wrong / rows + self.min_loss) - float(self.evaluated["expected"].mean())
        return np.asarray(np.clip(self.arrived["expected"] + allowed, 0.0, 1.0), dtype=np.float64)

    def evidence(self) -> Floats:
        """The logarithm, to the base of ten, of what betting has made of a capital of 1, by night with answers."""
        _, first, copies = np.unique(self.arrived["copies"].to_numpy(), return_index=True, return_inverse=True)
        excess = np.bincount(copies, self.arrived["error"].to_numpy() - self.promised()) / np.bincount(copies)
        nights, places = np.unique(self.arrived["night"].to_numpy()[first], return_inverse=True)
        gains = np.zeros((len(nights), len(_BETS)))
        np.add.at(gains, places, np.log1p(excess[:, None] * _BETS))
        return np.asarray(logsumexp(_capital(gains), axis=1) - log(len(_BETS))) / log(10)

    def column(self) -> Column:
        found, wrong, promised = float(self.evidence()[-1]), self.arrived["error"].mean(), self.promised().mean()
        note = f"{wrong:.1%} of {len(self.arrived):,} wrong, {promised:.1%} promised at most"
        return Column(self.name, "answers", "evidence", found, 0.0, self.threshold, found >= self.threshold, note)


def measure_answers(evaluated: pd.DataFrame, arrived: pd.DataFrame, settings: DriftSettings) -> tuple[Column, ...]:
    """The evidence against the promise: of all answers, of those it is sure of, and by predicted and by true label.

    As `promises`, whose evidence of the newest night it is; nothing is measured of fewer than `min_rows` answers that
    have arrived, nor without an evaluation.
    """
    if len(arrived) < settings.min_rows or evaluated.empty:
        return ()
    return tuple(promise.column() for promise in promises(evaluated, arrived, settings))


def promises(evaluated: pd.DataFrame, arrived: pd.DataFrame, settings: DriftSettings) -> Iterator[Promise]:
    """What the champion promised where an answer has arrived: in all, where it is sure, and by label.

    evaluated: the champion's evaluation, with label (the truth), predicted and confidence. arrived: the same of blind
    answers whose label is known, with night (the first on which it counts) and letter (equal where texts begin alike).
    It is sure of what is as confident as the surer half of its evaluation: there the same text in another label stands
    out, as little else is wrong. A third of the `false_alarms` of a year is for all answers, a third for those, and the
    rest for the labels in equal parts.
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
            # Of the records of one true label the confidence says nothing: it does not know which they are.
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
    """Logarithms of what each bet has made by the end of each night, [nights, bets], with a new stake every night."""
    capital, found = np.full(gains.shape[1], -np.inf), []
    for night in gains:
        capital = np.logaddexp(capital, -log(_NIGHTS)) + night
        found.append(capital)
    return np.array(found)
