"""Encoded rows as tensors."""

import numpy as np
import torch
from torch import Tensor

from assets.training.program.batches import Integers, widths
from assets.training.tasks.classification.preprocessing import Encoded, starts

__all__ = ["collate"]


def collate(rows: Encoded, index: Integers, pad: int, window: int | None = None) -> dict[str, Tensor]:
    """The chosen rows as the model's arguments, tokens padded to the longest of them.

    window: the window of a run, which trains for hours and so pads to a multiple of 16 or to the full window: every
    further batch width leaves kernels and gaps in freed memory behind.
    """
    chosen = rows.take(index)
    mask = np.arange(*widths(chosen.lengths.max(keepdims=True), window)) < chosen.lengths[:, None]
    ids = np.full(mask.shape, pad, np.int64)
    ids[mask] = chosen.tokens
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        "features": torch.from_numpy(chosen.features),
        "priors": torch.from_numpy(chosen.priors),
        "buckets": torch.from_numpy(chosen.buckets.astype(np.int64)),
        "bucket_weights": torch.from_numpy(chosen.weights),
        "bucket_offsets": torch.from_numpy(starts(chosen.words)),
    }
