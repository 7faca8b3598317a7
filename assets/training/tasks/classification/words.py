"""The linear branch over hashed words: a regularised logistic regression, fitted to its end before training begins.

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

    Sums depend on how many threads share them, and the weights are to be the same for any number of ranks.
    `labels` [rows] are places in all labels; `class_weights` [labels] weigh the loss of a row.
    """
    if not buckets:
        return np.zeros((0, len(class_weights)), np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(*_compressed(rows), (len(rows), buckets), check_invariants=False)
        back = matrix.to_sparse_csc().transpose(0, 1).to_sparse_csr()
    truth, weights = torch.from_numpy(labels), torch.from_numpy(class_weights)
    count = len(class_weights)
    classes, found = one_hot(truth, count).float(), torch.zeros(buckets, count)
    solver = torch.optim.LBFGS([found], max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        logits = matrix @ found
        found.grad = back @ ((logits.softmax(1) - classes) * weights[truth, None]) + found / _STRENGTH
        return cross_entropy(logits, truth, weights, reduction="sum") + found.square().sum() / (2 * _STRENGTH)

    with one_thread():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return found.numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread: sums come out alike on any machine, and small ones sooner."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _compressed(rows: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """Where each row ends, its buckets and their weights."""
    ends = torch.from_numpy(np.append(0, np.cumsum(rows.words)))
    return ends, torch.from_numpy(np.array(rows.buckets, np.int64)), torch.from_numpy(np.array(rows.weights))
