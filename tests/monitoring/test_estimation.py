import numpy as np
import pytest

from assets.monitoring.estimation import Answers, chances, estimate_quality
from assets.settings import load_domain

LABELS = tuple(load_domain().labels)

NAMES = np.array(LABELS)


def draw(rng: np.random.Generator, rows: int, sure: float, over: float = 0.0) -> tuple[np.ndarray, Answers]:
    """True labels and answers. Sure ones (beta of `sure`) are right as often as they say, less `over`."""
    confidence = rng.beta(sure, 2, rows) * 0.85 + 0.15
    answers = rng.choice(len(LABELS), rows, p=np.arange(9, 0, -1) / 45)
    right = rng.random(rows) < confidence - over
    truth = np.where(right, answers, (answers + rng.integers(1, len(LABELS), rows)) % len(LABELS))
    return NAMES[truth], Answers(NAMES[answers], confidence)


def accuracy(truth: np.ndarray, answers: Answers) -> float:
    return float((truth == answers.labels).mean())


def macro_f1(truth: np.ndarray, answers: Answers) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, answers.labels, average="macro"))


@pytest.mark.parametrize("sure", [1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("over", [0.0, 0.1])
def test_the_estimate_is_what_is_realised(sure: float, over: float) -> None:
    """A harder or an easier window than the evaluation's, of a model that is as sure as it is right or too sure."""
    rng = np.random.default_rng(int(sure * 10 + over * 100))
    evaluated, window = draw(rng, 4000, 3.0, over), draw(rng, 20_000, sure, over)
    found = estimate_quality(*evaluated, window[1])
    assert found.accuracy == pytest.approx(accuracy(*window), abs=0.025)
    assert found.macro_f1 == pytest.approx(macro_f1(*window), abs=0.035)


def test_the_threshold_is_the_evaluations_own() -> None:
    """As many answers reach it as are right there; a window that is less sure by as much has fewer right answers."""
    rng = np.random.default_rng(1)
    truth, evaluated = draw(rng, 4000, 3.0)
    assert estimate_quality(truth, evaluated, evaluated).by_threshold == accuracy(truth, evaluated)
    harder, easier = (estimate_quality(truth, evaluated, draw(rng, 20_000, sure)[1]) for sure in (2.0, 4.0))
    assert harder.by_threshold < accuracy(truth, evaluated) < easier.by_threshold


def test_where_nothing_was_right_nothing_is_expected_to_be() -> None:
    answers = Answers(NAMES, np.full(len(NAMES), 0.9))
    assert estimate_quality(np.roll(NAMES, 1), answers, answers).by_threshold == 0.0


def test_the_confidence_itself_is_not_believed() -> None:
    rng = np.random.default_rng(0)
    evaluated, window = draw(rng, 4000, 3.0, over=0.15), draw(rng, 20_000, 3.0, over=0.15)
    uncalibrated = abs(float(window[1].confidence.mean()) - accuracy(*window))
    calibrated = abs(estimate_quality(*evaluated, window[1]).accuracy - accuracy(*window))
    assert uncalibrated > 0.1 > 5 * calibrated


def test_chances_rise_with_confidence_and_stay_chances() -> None:
    rng = np.random.default_rng(0)
    truth, evaluated = draw(rng, 500, 3.0)
    window = Answers(np.repeat("cards", 101), np.linspace(0, 1, 101))
    found = chances(truth, evaluated, window)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (np.diff(found) >= 0).all()


def test_a_model_that_is_always_right_is_expected_to_be() -> None:
    answers = Answers(NAMES, np.full(len(NAMES), 0.9))
    found = estimate_quality(NAMES, answers, answers)
    assert (found.accuracy, found.macro_f1) == (1.0, 1.0)


def test_there_is_nothing_to_estimate_by_without_rows() -> None:
    none, some = Answers(NAMES[:0], np.zeros(0)), Answers(NAMES, np.ones(len(NAMES)))
    with pytest.raises(ValueError, match="nothing to estimate from"):
        estimate_quality(NAMES, some, none)
    with pytest.raises(ValueError, match="nothing to estimate from"):
        estimate_quality(NAMES[:0], none, some)
