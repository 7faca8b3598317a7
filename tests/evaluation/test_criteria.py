"""The metrics that may decide, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, log_loss

from assets.evaluation.criteria import criteria, title
from assets.evaluation.metrics import counted, label_scores, macro_f1_of
from assets.evaluation.paired import compare, compare_probabilities, pair_up
from assets.settings import load_domain
from assets.settings.judging import LABEL_METRICS, METRICS

LABELS = ("fine", "abuse", "spam")
COSTS = {"abuse": {"fine": 20.0}}
NAMES = (*METRICS, *(f"{metric}:abuse" for metric in LABEL_METRICS))
ROWS = 600


def answers(seed: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """True labels, of which 5% are abuse and none is spam, and probabilities, rounded so that some are equal."""
    dice = np.random.default_rng(0)
    truth = (dice.random(ROWS) < 0.05).astype(np.int64)
    signal = skill * truth + np.random.default_rng(seed).normal(size=ROWS)
    abuse = np.round(1 / (1 + np.exp(2.5 - 2 * signal)), 2)
    return truth, np.column_stack([0.9 * (1 - abuse), abuse, 0.1 * (1 - abuse)])


def values(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    return {name: one.value(truth, probabilities) for name, one in criteria(NAMES, LABELS, COSTS).items()}


def test_every_metric_is_that_of_scikit_learn() -> None:
    truth, probabilities = answers(1, 1.5)
    predicted, found = probabilities.argmax(axis=1), values(truth, probabilities)
    assert set(found) == set(NAMES)
    assert found["accuracy"] == pytest.approx((predicted == truth).mean())
    assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, labels=[0, 1], average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found["log_loss"] == pytest.approx(log_loss(truth, np.clip(probabilities, 2.3e-16, 1), labels=[0, 1, 2]))
    assert found["f1:abuse"] == pytest.approx(f1_score(truth == 1, predicted == 1))
    assert found["average_precision:abuse"] == pytest.approx(average_precision_score(truth == 1, probabilities[:, 1]))


def test_the_cost_is_the_mean_of_what_mistakes_cost() -> None:
    truth, answered = np.array([1, 1, 0, 0, 1]), np.array([0, 1, 1, 0, 2])
    assert values(truth, np.eye(3)[answered])["cost"] == pytest.approx((20 + 1 + 1) / 5)


def test_a_gain_of_what_should_be_small_is_a_fall() -> None:
    truth, better = answers(1, 3.0)
    worse = answers(1, 0.5)[1]
    metrics = criteria(NAMES, LABELS, COSTS)
    pairs = pair_up(truth, better.argmax(axis=1), worse.argmax(axis=1))
    gains = compare(pairs, metrics.values()) | compare_probabilities(truth, better, worse, metrics.values())
    first, second = values(truth, better), values(truth, worse)
    assert set(gains) == set(NAMES)
    for name, gain in gains.items():
        assert gain.gain == pytest.approx(metrics[name].sign * (first[name] - second[name])), name
        assert gain.gain > 0, name
    assert first["cost"] < second["cost"]
    assert first["log_loss"] < second["log_loss"]


def test_the_bootstrap_of_probabilities_is_that_of_rows_drawn_one_by_one() -> None:
    truth, ours = answers(1, 2.0)
    theirs, dice, drawn = answers(2, 1.5)[1], np.random.default_rng(1), []
    for _ in range(1000):
        rows = dice.integers(ROWS, size=ROWS)
        scores = [average_precision_score(truth[rows] == 1, side[rows, 1]) for side in (ours, theirs)]
        drawn.append(scores[0] - scores[1])
    metrics = criteria(["average_precision:abuse"], LABELS, COSTS).values()
    (found,) = compare_probabilities(truth, ours, theirs, metrics).values()
    assert found.error == pytest.approx(np.std(drawn), rel=0.1)
    assert compare_probabilities(truth, ours, theirs, metrics)["average_precision:abuse"] == found


def test_what_no_row_is_of_has_no_average_precision() -> None:
    truth, ours = answers(1, 2.0)
    metrics = criteria(["average_precision:spam"], LABELS, COSTS)
    assert np.isnan(metrics["average_precision:spam"].value(truth, ours))
    assert np.isnan(compare_probabilities(truth, ours, ours, metrics.values())["average_precision:spam"].error)


def test_the_rarest_label_is_described_first() -> None:
    truth, probabilities = answers(1, 2.0)
    rare, frequent = label_scores(truth, probabilities, LABELS, bins=10)
    assert (rare.label, frequent.label) == ("abuse", "fine")
    assert rare.rows == (truth == 1).sum()
    assert rare.expected == pytest.approx(probabilities[:, 1].sum())
    assert rare.f1 == pytest.approx(2 * rare.precision * rare.recall / (rare.precision + rare.recall))
    assert rare.average_precision == pytest.approx(average_precision_score(truth == 1, probabilities[:, 1]))
    # All of it expected where none is: of every hundredth row the promise is wrong.
    sure = np.tile([0.99, 0.01, 0.0], (100, 1))
    (only,) = label_scores(np.zeros(100, np.int64), sure, LABELS, bins=10)
    assert only.ece == pytest.approx(0.01)


def test_names_are_counted_as_codes_are() -> None:
    truth, answered = np.array(["b", "b", "a"]), np.array(["b", "c", "b"])
    assert counted(truth, answered).tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert counted(truth, answered, [2, 1, 1]).sum() == 4
    # c is true of no row: a mistake towards it counts for b alone.
    assert macro_f1_of(counted(truth, answered)) == pytest.approx((0 + 2 / 4) / 2)


def test_people_read_what_decides() -> None:
    assert [
        title(name, load_domain()) for name in ("macro_f1", "average_precision:student_loan", "f1:gone", "cost")
    ] == [
        "macro-F1",
        "average precision of Student loan",
        "F1 of gone",
        "cost",
    ]
