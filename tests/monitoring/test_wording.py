from typing import Any

import numpy as np
import pytest
from scipy.sparse import vstack

from assets.monitoring.comparison import Column
from assets.monitoring.wording import hash_words, measure_wording, wording_rows
from assets.settings import load_settings

SETTINGS = load_settings("quick").drift
WORDS = [f"{first}{second}{third}" for first in "bcdfg" for second in "aeiou" for third in "klmnpqrstz"]


def texts(rng: np.random.Generator, rows: int, favoured: int = 0) -> Any:
    """Thirty words each, of 250; the first `favoured` ones three times as often as the others."""
    chances = np.where(np.arange(len(WORDS)) < favoured, 3.0, 1.0)
    return hash_words(" ".join(rng.choice(WORDS, 30, p=chances / chances.sum())) for _ in range(rows))


def measured(reference: Any, current: Any, parts: int = 5) -> Column:
    found = measure_wording(reference, current, parts, SETTINGS)
    assert found is not None
    return found


@pytest.mark.parametrize("rows", [150, 1000])
def test_calm_texts_cannot_be_told_apart(rows: int) -> None:
    rng = np.random.default_rng(rows)
    found = [measured(texts(rng, 5 * rows), texts(rng, rows)) for _ in range(10)]
    assert sum(column.drifted for column in found) <= 1
    assert all(0.3 < column.value < 0.55 for column in found)


def test_known_words_that_become_frequent_are_seen() -> None:
    rng = np.random.default_rng(0)
    found = measured(texts(rng, 2500), texts(rng, 500, favoured=50))
    assert found.drifted
    assert (found.group, found.statistic, found.name) == ("wording", "auc", "domain_classifier")
    assert found.value > 0.9 > found.threshold


def test_more_texts_see_smaller_changes() -> None:
    """A tenth of the texts has changed."""
    rng = np.random.default_rng(1)
    reference, found = texts(rng, 10_000), {}
    for rows in (200, 4000):
        current = vstack([texts(rng, rows * 9 // 10), texts(rng, rows // 10, favoured=40)], format="csr")
        found[rows] = measured(reference, current[rng.permutation(rows)])
    assert (found[200].drifted, found[4000].drifted) == (False, True)
    assert found[4000].threshold < found[200].threshold < 0.6


def test_a_season_that_the_training_has_seen_is_no_drift() -> None:
    rng = np.random.default_rng(2)
    year = vstack([texts(rng, 300, favoured=80 if month == 11 else 0) for month in range(12)], format="csr")
    assert not measured(year, texts(rng, 300, favoured=80), 12).drifted
    assert measured(year, texts(rng, 300, favoured=30), 12).drifted


def test_one_stretch_that_is_like_the_window_is_enough() -> None:
    """The least of eleven areas is small by luck; the only one that is like the window has no such luck."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        year = vstack([texts(rng, 200, favoured=80), texts(rng, 2200)], format="csr")
        found.append(measured(year, texts(rng, 1500, favoured=80), 12).drifted)
    assert sum(found) <= 1


def test_a_champion_of_the_middle_of_a_change_sees_the_next() -> None:
    """The last of its training is new to the rest; the window is like the last, until it changes again."""
    rng = np.random.default_rng(3)
    training = vstack([texts(rng, 1600), texts(rng, 800, favoured=80)], format="csr")
    assert not measured(training, texts(rng, 400, favoured=80), 6).drifted
    assert measured(training, texts(rng, 400, favoured=30), 6).drifted


def test_words_that_come_and_go_are_no_drift() -> None:
    rng = np.random.default_rng(0)
    parts = [texts(rng, 300, favoured=80 if number % 2 else 0) for number in range(5)]
    assert not measured(vstack(parts, format="csr"), texts(rng, 300, favoured=80)).drifted


def test_too_few_texts_are_not_judged() -> None:
    rng = np.random.default_rng(0)
    assert measure_wording(texts(rng, 499), texts(rng, 500), 5, SETTINGS) is None
    assert measure_wording(texts(rng, 500), texts(rng, 99), 5, SETTINGS) is None
    assert measure_wording(texts(rng, 500), texts(rng, 100), 24, SETTINGS) is not None
    assert wording_rows(100_000, 30_000, SETTINGS) == 20_000


def test_redactions_numbers_and_short_words_are_not_read() -> None:
    assert hash_words(["XXXX 12 xx/xx of $5"]).nnz == 0
    assert hash_words(["The bank, the BANK"]).nnz == 2
