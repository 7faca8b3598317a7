"""Which rows make which step, and rows as tensors."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assets.training.preprocessing import Encoded

__all__ = ["collate", "count_steps", "epoch_batches", "training_batches"]

_POOL = 50
"""Batches among which rows of like length are gathered: 50 leave about 2% padding and keep batches random."""


def count_steps(rows: int, epochs: float, batch_rows: int) -> int:
    """Optimizer steps of a run: whole batches only, at least one."""
    return max(1, round(epochs * (rows // batch_rows)))


def training_batches(
    lengths: NDArray[np.int64], batch_rows: int, steps: int, seed: int, first: int = 0
) -> Iterator[NDArray[np.int64]]:
    """The rows of every step from `first`, over all ranks: a function of seed, epoch and the rows' lengths alone."""
    for step in range(first, steps):
        epoch, index = divmod(step, len(lengths) // batch_rows)
        if index == 0 or step == first:
            batches = epoch_batches(lengths, batch_rows, seed, epoch)
        yield batches[index]


def epoch_batches(lengths: NDArray[np.int64], batch_rows: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Every row at most once, in batches of rows of like length, the batches in random order.

    The rows that do not fill a batch are left out; which ones changes from epoch to epoch.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))[: len(lengths) // batch_rows * batch_rows]
    pool = batch_rows * _POOL
    grouped = [
        part[np.argsort(lengths[part], kind="stable")] for part in np.split(order, range(pool, len(order), pool))
    ]
    batches = np.concatenate(grouped).reshape(-1, batch_rows)
    return list(batches[random.permutation(len(batches))])


def collate(rows: Encoded, index: NDArray[np.int64], pad: int) -> dict[str, Tensor]:
    """The chosen rows as the model's arguments, tokens padded to the longest of them."""
    width = max(len(rows.tokens[i]) for i in index)
    ids = np.full((len(index), width), pad, np.int64)
    mask = np.zeros((len(index), width), np.int64)
    for row, i in enumerate(index):
        ids[row, : len(rows.tokens[i])] = rows.tokens[i]
        mask[row, : len(rows.tokens[i])] = 1
    sizes = [len(rows.buckets[i]) for i in index]
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "features": torch.from_numpy(rows.features[index]),
        "priors": torch.from_numpy(rows.priors[index]),
        "buckets": torch.from_numpy(np.concatenate([rows.buckets[i] for i in index]).astype(np.int64)),
        "bucket_weights": torch.from_numpy(np.concatenate([rows.weights[i] for i in index])),
        "bucket_offsets": torch.from_numpy(np.cumsum([0, *sizes[:-1]])),
    }
