"""How sure a model may be: one temperature that divides its logits (Guo et al., On Calibration, 2017)."""

from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["TEMPERATURES", "losses_by_temperature"]

TEMPERATURES = tuple(round(0.5 + 0.05 * place, 2) for place in range(21))
"""Those that are tried. The loss is flat around its lowest: finer steps would follow the draw of the rows."""


def losses_by_temperature(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """The cross-entropy, summed over rows, at each of TEMPERATURES. logits: [rows, labels]; labels: [rows].

    Sums add up over batches and ranks, so that no rank needs all logits.
    """
    return [cross_entropy(logits / temperature, labels, reduction="sum") for temperature in TEMPERATURES]
