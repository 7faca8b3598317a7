"""The size of a model, and the operations of its training."""

from dataclasses import dataclass

__all__ = ["ModelSize", "model_flops"]


@dataclass(frozen=True)
class ModelSize:
    """A model's size, read from its encoder's files: parameters as counts, widths as numbers of units."""

    trained: int
    frozen: int
    layers: int
    trained_layers: int
    layer_parameters: int
    hidden: int
    intermediate: int
    heads: int
    largest: int
    """Parameters of the largest tensor."""

    @property
    def parameters(self) -> int:
        return self.trained + self.frozen


def model_flops(size: ModelSize, tokens: int, squared_lengths: int) -> float:
    """Floating-point operations of the encoder's layers for a run's useful tokens, forward and backward.

    A parameter costs 2 per token forward and 4 backward, attention 4 x hidden x length per token and layer forward and
    twice that backward (Chowdhery et al. 2022, PaLM, appendix B). Layers that are not trained have no backward pass.
    `squared_lengths`: the sum of the squared token counts of the rows. Recomputation and padding do not count.
    """
    forward = 2 * size.layer_parameters * tokens + 4 * size.hidden * squared_lengths
    return float(forward * (size.layers + 2 * size.trained_layers))
