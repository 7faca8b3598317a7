"""Whether what watches a champion sees a rare label: estimates before labels arrive, and promises after."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from assets.monitoring.answers import measure_answers
from assets.monitoring.comparison import Column, Side, measure_columns
from assets.monitoring.estimation import Answers, LabelEstimate, estimate_quality
from assets.settings import Settings

NAMES = np.array(["fine", "abuse"])


def draw(dice: np.random.Generator, rows: int, overstated: float = 0.0, lost: float = 0.0) -> pd.DataFrame:
    """Answers on records of which 3 in 100 are abuse; `overstated` raises its log-odds, and a share `lost` of what is
    abuse looks like what is fine."""
    abuse = dice.random(rows) < 0.03
    seen = 2.5 * (abuse & (dice.random(rows) >= lost)) + dice.normal(size=rows)
    chance = expit(logit(0.03) + 2.5 * seen - 2.5**2 / 2 + overstated)
    answered = chance > 0.5
    confidence = np.where(answered, chance, 1 - chance)
    return pd.DataFrame({"label": NAMES[abuse * 1], "predicted": NAMES[answered * 1], "confidence": confidence})


def answers(rows: pd.DataFrame) -> Answers:
    return Answers(rows["predicted"].to_numpy(), rows["confidence"].to_numpy())


def estimated(evaluated: pd.DataFrame, window: pd.DataFrame) -> LabelEstimate:
    found = estimate_quality(evaluated["label"].to_numpy(), answers(evaluated), answers(window))
    return next(label for label in found.labels if label.label == "abuse")


@pytest.mark.parametrize("overstated", [0.0, 2.0])
def test_the_quality_of_the_rare_label_is_estimated(overstated: float) -> None:
    """Of windows of 3,000 rows, by evaluations of 1,500: also of a model that names it too readily."""
    errors = []
    for seed in range(10):
        dice = np.random.default_rng(seed)
        evaluated, window = draw(dice, 1500, overstated), draw(dice, 3000, overstated)
        found, abuse, named = estimated(evaluated, window), window["label"] == "abuse", window["predicted"] == "abuse"
        right = (abuse & named).sum()
        realised = np.array([right / named.sum(), right / abuse.sum(), abuse.sum() / 100])
        errors.append(np.array([found.precision, found.recall, found.rows / 100]) - realised)
    assert np.abs(np.mean(errors, axis=0)).max() < 0.2
    assert abs(np.mean(errors, axis=0)[0]) < 0.1


def found(evaluated: pd.DataFrame, arrived: pd.DataFrame, settings: Settings) -> dict[str, Column]:
    nights = arrived.assign(night=np.arange(len(arrived)) // 100, letter=np.arange(len(arrived)))
    return {column.name: column for column in measure_answers(evaluated, nights, settings.drift)}


def test_a_promise_that_is_kept_is_seldom_found_broken(settings: Settings) -> None:
    """Of twelve champions that are looked at after 30 and 90 nights of 100 records."""
    alarms = 0
    for seed in range(12):
        dice = np.random.default_rng(seed)
        evaluated, arrived = draw(dice, 1500), draw(dice, 9000)
        looks = (found(evaluated, arrived[:rows], settings) for rows in (3000, 9000))
        alarms += any(column.drifted for look in looks for column in look.values())
    assert alarms <= 1


def test_abuse_that_looks_like_what_is_fine_is_found_though_most_answers_are_right(settings: Settings) -> None:
    seen = []
    for seed in range(6):
        dice = np.random.default_rng(seed)
        evaluated, arrived = draw(dice, 1500), draw(dice, 9000, lost=0.8)
        assert (arrived["label"] == arrived["predicted"]).mean() > 0.95
        columns = found(evaluated, arrived, settings)
        seen.append(any(column.drifted for column in columns.values()))
        assert columns["true_abuse"].value > columns["answered_abuse"].value
    assert sum(seen) >= 5


def measured(reference: pd.DataFrame, current: pd.DataFrame, settings: Settings) -> dict[str, Column]:
    sides = [Side({"labels": rows[["label"]], "predictions": rows[["predicted"]]}) for rows in (reference, current)]
    return {column.group: column for column in measure_columns(*sides, settings.drift)}


def test_three_times_as_much_abuse_is_drift_and_chance_is_not(settings: Settings) -> None:
    seen = []
    for seed in range(20):
        dice = np.random.default_rng(seed)
        reference, calm, moved = draw(dice, 1500), draw(dice, 1500), draw(dice, 6000)
        fine = moved["label"] == "fine"
        moved = moved[~fine | (dice.random(len(moved)) < 0.32)]
        both = [measured(reference, rows, settings) for rows in (calm, moved)]
        seen.append([columns[group].drifted for columns in both for group in ("labels", "predictions")])
    labels, predictions, more_labels, more_predictions = np.sum(seen, axis=0)
    assert labels + predictions <= 1
    assert more_labels == 20
    assert more_predictions >= 8  # few rows are answered with it: labels see it sooner
