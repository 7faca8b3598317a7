"""The linear branch over hashed words: a regularised logistic regression, fitted to convergence before training.

Trained together with the encoder, the branch would fit the rows first and leave the encoder little to learn from.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from assets.training.program.batches import Integers
from assets.training.tasks.classification.preprocessing import Encoded

__all__ = ["fit_words", "one_thread"]

_STRENGTH = 4.0
"""One over twice the L2 penalty, as in scikit-learn's LogisticRegression."""
_STEPS = 100


def fit_words(rows: Encoded, labels: Integers, class_weights: NDArray[np.float32], buckets: int) -> NDArray[np.float32]:
    """Weights [buckets, labels], by L-BFGS (Liu and Nocedal 1989) over all rows at once, on one thread.

    Sums depend on the number of threads, and the weights must be the same for any number of ranks. `labels` [rows] are
    indices; `class_weights` [labels] weight the loss of a row.
    """
    if not buckets:
        return np.zeros((0, len(class_weights)), np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(*_compressed(rows), (len(rows), buckets), check_invariants=False)
        back = matrix.to_sparse_csc().transpose(0, 1).to_sparse_csr()
    truth, weights = torch.from_numpy(labels), torch.from_numpy(class_weights)
    count = len(class_weights)
    classes, fitted = one_hot(truth, count).float(), torch.zeros(buckets, count)
    solver = torch.optim.LBFGS([fitted], max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        logits = matrix @ fitted
        fitted.grad = back @ ((logits.softmax(1) - classes) * weights[truth, None]) + fitted / _STRENGTH
        return cross_entropy(logits, truth, weights, reduction="sum") + fitted.square().sum() / (2 * _STRENGTH)

    with one_thread():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return fitted.numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread: sums are the same on any machine, and small ones faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _compressed(rows: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """The end of each row, its buckets and their weights."""
    ends = torch.from_numpy(np.append(0, np.cumsum(rows.words)))
    return ends, torch.from_numpy(np.array(rows.buckets, np.int64)), torch.from_numpy(np.array(rows.weights))
