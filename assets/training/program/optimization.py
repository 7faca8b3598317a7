"""How fast each parameter learns, and when: groups for the optimizer, a schedule for their rates."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from assets.settings import TrainingSettings
from assets.training.tasks.classification.model import TextClassifier, encoder_layers

__all__ = ["parameter_groups", "rate_factor", "schedule"]


def parameter_groups(classifier: TextClassifier, settings: TrainingSettings) -> list[dict[str, Any]]:
    """What is trained, in groups of one learning rate and one weight decay.

    The encoder's layers learn more slowly from the top down, its embeddings slowest (discriminative fine-tuning,
    Howard and Ruder 2018). Matrices decay; biases and normalisation weights do not.
    """
    depths = _depths(classifier)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            rate = settings.learning_rate if name.startswith("encoder.") else settings.head_learning_rate
            rate *= settings.layer_rate_decay ** depths.get(parameter, 0)
            shape = getattr(parameter, "ds_shape", parameter.shape)  # what ZeRO-3 has dealt out has none of its own
            decay = settings.weight_decay if len(shape) > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def schedule(optimizer: Optimizer, steps: int, settings: TrainingSettings) -> LambdaLR:
    """The learning rates of all groups, rising and falling together over `steps` steps."""
    return LambdaLR(optimizer, rate_factor(steps, settings))


def rate_factor(steps: int, settings: TrainingSettings) -> Callable[[int], float]:
    """The multiple of its learning rate with which step number `step`, counted from 0, is made.

    It rises over the warm-up in a line, and then falls to nothing in a line or half a cosine (Loshchilov and Hutter
    2017), or stays.
    """
    warmup = max(1, math.ceil(steps * settings.warmup_share))
    rest = max(1, steps - warmup + 1)

    def factor(step: int) -> float:
        left = (steps - step) / rest
        after = {"linear": left, "cosine": (1 - math.cos(math.pi * min(left, 1.0))) / 2, "constant": 1.0}
        return min((step + 1) / warmup, after[settings.schedule])

    return factor


def _depths(classifier: TextClassifier) -> dict[nn.Parameter, int]:
    """Layers above each of the encoder's parameters; what lies outside its layers is below them all."""
    layers = encoder_layers(classifier.encoder)
    depths = dict.fromkeys(classifier.encoder.parameters(), len(layers))
    for above, layer in enumerate(reversed(layers)):
        depths |= dict.fromkeys(layer.parameters(), above)
    return depths
