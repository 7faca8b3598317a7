from typing import Any

import numpy as np
import pytest
from scipy.sparse import vstack

from assets.monitoring.wording import calm_wording, hash_words, measure_wording, wording_rows
from assets.settings import load_settings

SETTINGS = load_settings("quick").drift
WORDS = [f"{first}{second}{third}" for first in "bcdfg" for second in "aeiou" for third in "klmnpqrstz"]


def texts(rng: np.random.Generator, rows: int, favoured: int = 0) -> Any:
    """Thirty words each, of 250; the first `favoured` ones three times as often as the others."""
    chances = np.where(np.arange(len(WORDS)) < favoured, 3.0, 1.0)
    return hash_words(" ".join(rng.choice(WORDS, 30, p=chances / chances.sum())) for _ in range(rows))


@pytest.mark.parametrize("rows", [150, 1000])
def test_calm_texts_cannot_be_told_apart(rows: int) -> None:
    rng = np.random.default_rng(rows)
    found = [measure_wording(texts(rng, 5 * rows), texts(rng, rows), SETTINGS) for _ in range(4)]
    assert not [column for column in found if column is None or column.drifted]
    assert all(0.4 < column.value < 0.6 for column in found if column)


def test_known_words_that_become_frequent_are_seen() -> None:
    rng = np.random.default_rng(0)
    found = measure_wording(texts(rng, 2500), texts(rng, 500, favoured=50), SETTINGS)
    assert found is not None
    assert found.drifted
    assert (found.group, found.statistic, found.name) == ("wording", "auc", "domain_classifier")
    assert found.value > 0.9 > found.threshold


def test_words_that_came_and_went_in_the_training_are_no_drift() -> None:
    rng = np.random.default_rng(0)
    parts = [texts(rng, 300, favoured=80 if number % 2 else 0) for number in range(5)]
    found = measure_wording(vstack(parts, format="csr"), texts(rng, 300, favoured=80), SETTINGS)
    assert found is not None
    assert found.value > SETTINGS.wording_threshold
    assert not found.drifted
    assert found.threshold == found.calm


def test_what_is_calm_can_be_measured_once() -> None:
    rng = np.random.default_rng(0)
    reference, window = texts(rng, 600), texts(rng, 120)
    calm = calm_wording(reference, 120, SETTINGS)
    assert measure_wording(reference, window, SETTINGS, calm) == measure_wording(reference, window, SETTINGS)


def test_too_few_texts_are_not_judged() -> None:
    rng = np.random.default_rng(0)
    assert measure_wording(texts(rng, 499), texts(rng, 500), SETTINGS) is None
    assert measure_wording(texts(rng, 500), texts(rng, 99), SETTINGS) is None
    assert measure_wording(texts(rng, 500), texts(rng, 100), SETTINGS) is not None
    assert wording_rows(100_000, 50_000, SETTINGS) == SETTINGS.wording_rows


def test_redactions_numbers_and_short_words_are_not_read() -> None:
    assert hash_words(["XXXX 12 xx/xx of $5"]).nnz == 0
    assert hash_words(["The bank, the BANK"]).nnz == 2
