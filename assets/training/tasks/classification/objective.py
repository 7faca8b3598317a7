"""The loss, and the temperature that calibrates a model's confidence (Guo et al., On Calibration, 2017)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["TEMPERATURES", "CrossEntropy", "losses_by_temperature"]

TEMPERATURES = tuple(round(0.5 + 0.05 * place, 2) for place in range(21))
"""The temperatures to try. The loss is flat around its minimum: finer steps would fit the sample of rows."""


class CrossEntropy(nn.Module):
    """The cross-entropy of logits [rows, labels] and the indices of the true labels [rows], weighted by label."""

    weights: Tensor

    def __init__(self, weights: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, summed over rows."""
        return cross_entropy(logits, labels, weight=self.weights, reduction="sum")

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sums of the losses, of their weights, and of the plain losses at each of TEMPERATURES."""
        losses = losses_by_temperature(logits, labels)
        return torch.stack([self(logits, labels), self.weights[labels].sum(), *losses]).double()

    def findings(self, sums: Tensor) -> dict[str, float]:
        """The temperature with the lowest loss."""
        return {"temperature": TEMPERATURES[int(sums.argmin())]}


def losses_by_temperature(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """The cross-entropy, summed over rows, at each of TEMPERATURES. logits: [rows, labels]; labels: [rows].

    Sums can be added over batches and ranks, so that no rank needs all logits.
    """
    return [cross_entropy(logits / temperature, labels, reduction="sum") for temperature in TEMPERATURES]
