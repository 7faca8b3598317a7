import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from assets.evaluation.metrics import confusion, measure, reliability, slices
from assets.settings import load_domain
from assets.training.tasks.classification.labels import places

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.integers(0, 7, 500)  # two labels have no row
    return truth, random.dirichlet(np.ones(len(LABELS)), 500)


def sure(label: str, confidence: float) -> np.ndarray:
    answer = np.full(len(LABELS), (1 - confidence) / (len(LABELS) - 1))
    answer[LABELS.index(label)] = confidence
    return answer


def test_metrics_are_those_of_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    truth, probabilities = scored
    found, predicted, labels = measure(truth, probabilities, 10), probabilities.argmax(axis=1), np.unique(truth)
    assert found.rows == 500
    assert found.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(truth, predicted, labels=labels, average="macro"))
    assert found.log_loss == pytest.approx(log_loss(truth, probabilities, labels=range(len(LABELS))))
    assert (confusion(truth, probabilities) == confusion_matrix(truth, predicted, labels=range(len(LABELS)))).all()


def test_a_label_without_test_rows_does_not_lower_macro_f1() -> None:
    truth = places(pd.Series(["cards", "mortgage"]), LABELS)
    assert measure(truth, np.stack([sure("cards", 0.9), sure("mortgage", 0.9)]), 10).macro_f1 == 1.0


def test_calibration_error_by_hand() -> None:
    truth = places(pd.Series(["cards"] * 5), LABELS)
    answers = np.stack([sure("cards", 0.75)] * 2 + [sure("other", 0.75)] + [sure("cards", 0.95), sure("other", 0.95)])
    # three rows at 0.75 with 2 right, two at 0.95 with 1 right
    assert measure(truth, answers, 10).ece == pytest.approx(3 / 5 * abs(2 / 3 - 0.75) + 2 / 5 * abs(1 / 2 - 0.95))


def test_bins_hold_every_row_once_edges_included() -> None:
    answers = np.stack([sure("cards", share) for share in (0.2, 0.3, 0.35, 1.0)])
    bins = reliability(places(pd.Series(["cards"] * 4), LABELS), answers, 10)
    assert [(part.low, part.high, part.rows) for part in bins] == [
        (0.1, 0.2, 1),
        (0.2, 0.3, 1),
        (0.3, 0.4, 1),
        (0.9, 1.0, 1),
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_measured(scored: tuple[np.ndarray, np.ndarray], value: float) -> None:
    truth, probabilities = scored
    probabilities[3, 4] = value
    found = measure(truth, probabilities, 10)
    assert np.isnan([found.accuracy, found.macro_f1, found.log_loss, found.ece]).all()
    assert reliability(truth, probabilities, 10) == []


def test_no_rows_are_not_measured() -> None:
    assert np.isnan(measure(np.empty(0, np.int64), np.empty((0, len(LABELS))), 10).accuracy)


def test_a_certain_wrong_answer_has_a_finite_log_loss() -> None:
    assert measure(places(pd.Series(["cards"]), LABELS), sure("other", 1.0)[None], 10).log_loss == pytest.approx(
        36.04, abs=0.01
    )


def test_slices_cover_each_dimension() -> None:
    rows = pd.DataFrame(
        {
            "label": ["cards", "cards", "other"],
            "channel": ["Web", None, "Web"],
            "company": ["A", "A", "B"],
            "state": ["CA", "CA", "unknown"],
            "tags": ["Older American, Servicemember", None, "Servicemember"],
            "known_at": pd.to_datetime(["2024-01-31", "2024-02-01", "2024-02-29"]),
            "text": ["a" * 299, "a" * 300, "a" * 2000],
        }
    )
    found = {(part.by, part.value): list(part.mask) for part in slices(rows, DOMAIN) if part.rows}
    assert found == {
        ("label", "cards"): [True, True, False],
        ("label", "other"): [False, False, True],
        ("channel", "Web"): [True, False, True],
        ("channel", "unknown"): [False, True, False],
        ("company", "A"): [True, True, False],
        ("company", "B"): [False, False, True],
        ("state", "CA"): [True, True, False],
        ("state", "unknown"): [False, False, True],
        ("tags", "Older American"): [True, False, False],
        ("tags", "Servicemember"): [True, False, True],
        ("month", "2024-01"): [True, False, False],
        ("month", "2024-02"): [False, True, True],
        ("length", "under 300"): [True, False, False],
        ("length", "300 to 799"): [False, True, False],
        ("length", "2000 and more"): [False, False, True],
    }


def test_only_the_largest_states_are_slices() -> None:
    states = [f"S{number:02}" for number in range(20) for _ in range(number + 1)]
    rows = pd.DataFrame({"state": states, "label": "cards", "company": "A", "channel": None, "tags": None, "text": "a"})
    rows["known_at"] = pd.Timestamp("2024-01-01")
    assert [part.value for part in slices(rows, DOMAIN) if part.by == "state"] == [
        f"S{number}" for number in range(10, 20)
    ]
