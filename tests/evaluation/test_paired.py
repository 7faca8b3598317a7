"""The paired tests, against brute force and textbook numbers."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from assets.evaluation.criteria import criteria
from assets.evaluation.paired import compare, compare_labels, mcnemar, pair_up
from assets.settings import load_domain

LABELS = tuple(load_domain().labels)
METRICS = criteria(("accuracy", "macro_f1"), LABELS, {}).values()

ROWS = 400


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, a better model and a worse one."""
    dice = np.random.default_rng(0)
    truth = dice.integers(4, size=ROWS)
    ours, theirs = (np.where(dice.random(ROWS) < share, truth, dice.integers(4, size=ROWS)) for share in (0.8, 0.6))
    return truth, ours, theirs


def test_gains_are_those_of_the_rows(answers: tuple[np.ndarray, ...]) -> None:
    truth, ours, theirs = answers
    pairs = pair_up(truth, ours, theirs)
    assert sum(count for *_, count in pairs) == ROWS
    found = compare(pairs, METRICS)
    assert found["accuracy"].gain == pytest.approx((ours == truth).mean() - (theirs == truth).mean())
    f1 = [f1_score(truth, predicted, average="macro") for predicted in (ours, theirs)]
    assert found["macro_f1"].gain == pytest.approx(f1[0] - f1[1])


def test_the_bootstrap_is_that_of_rows_drawn_one_by_one(answers: tuple[np.ndarray, ...]) -> None:
    dice, drawn = np.random.default_rng(1), []
    for _ in range(1000):
        truth, ours, theirs = (one[dice_rows] for dice_rows in [dice.integers(ROWS, size=ROWS)] for one in answers)
        f1 = [f1_score(truth, predicted, average="macro") for predicted in (ours, theirs)]
        drawn.append(f1[0] - f1[1])
    found = compare(pair_up(*answers), METRICS)["macro_f1"]
    assert found.at_least(0.95) == pytest.approx(np.quantile(drawn, 0.05), abs=0.01)
    assert found.error == pytest.approx(np.std(drawn), rel=0.1)


def test_one_evaluation_always_gets_one_answer(answers: tuple[np.ndarray, ...]) -> None:
    first, second = (compare(pair_up(*answers), METRICS)["macro_f1"].at_least(0.95) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (1, 0), (10, 3), (3, 10), (40, 20)])
def test_mcnemar_is_the_exact_binomial_test(ours: int, theirs: int) -> None:
    expected = binomtest(ours, ours + theirs, alternative="greater").pvalue if ours + theirs else 1.0
    assert mcnemar(ours, theirs) == pytest.approx(expected)


def test_gains_by_label_are_those_of_f1(answers: tuple[np.ndarray, ...]) -> None:
    truth, ours, theirs = answers
    found = compare_labels(pair_up(truth, ours, theirs), LABELS, {})
    f1 = [f1_score(truth, predicted, average=None) for predicted in (ours, theirs)]
    assert [gain.gain for gain in found.values()] == pytest.approx(list(f1[0] - f1[1]))
    assert list(found) == list(LABELS[:4])


def test_a_mistake_weighs_what_it_costs() -> None:
    pairs = ((0, 1, 0, 10), (0, 0, 0, 10), (1, 1, 1, 10))
    plain, dear = (compare_labels(pairs, LABELS, {LABELS[0]: {LABELS[1]: cost}}) for cost in (1.0, 3.0))
    assert plain[LABELS[0]].gain == pytest.approx(20 / 30 - 1)
    assert dear[LABELS[0]].gain == pytest.approx(20 / 50 - 1)
    assert compare_labels(pairs, LABELS, {LABELS[1]: {LABELS[0]: 3.0}})[LABELS[0]].gain == plain[LABELS[0]].gain
