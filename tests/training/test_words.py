"""The linear branch, against scikit-learn's."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from assets.settings import load_domain
from assets.training.tasks.classification.preprocessing import Encoded
from assets.training.tasks.classification.words import fit_words

LABELS = tuple(load_domain().labels)

ROWS, BUCKETS = 300, 40


@pytest.fixture
def rows() -> Encoded:
    dice = np.random.default_rng(0)
    buckets = np.concatenate([dice.choice(BUCKETS, 5, replace=False) for _ in range(ROWS)]).astype(np.int32)
    none, counts = np.zeros((ROWS, 0), np.float32), np.full(ROWS, 5)
    return Encoded(buckets, counts, buckets, dice.random(5 * ROWS).astype(np.float32), counts, none, none)


def test_it_is_the_logistic_regression_of_scikit_learn(rows: Encoded) -> None:
    labels = np.random.default_rng(1).integers(len(LABELS), size=ROWS)
    weights = np.linspace(0.5, 2.0, len(LABELS)).astype(np.float32)
    found = fit_words(rows, labels, weights, BUCKETS)
    matrix = csr_matrix((rows.weights, rows.buckets, np.arange(0, 5 * ROWS + 1, 5)), shape=(ROWS, BUCKETS))
    peer = LogisticRegression(C=4.0, fit_intercept=False, class_weight=dict(enumerate(weights)), tol=1e-6, max_iter=500)
    peer.fit(matrix, labels)
    assert np.allclose(found, peer.coef_.T, atol=5e-3)


def test_it_is_the_same_on_any_number_of_threads(rows: Encoded) -> None:
    labels, weights = np.arange(ROWS) % len(LABELS), np.ones(len(LABELS), np.float32)
    threads, found = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(fit_words(rows, labels, weights, BUCKETS))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert all(np.array_equal(found[0], other) for other in found)
