"""The schedule of the learning rates."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from assets.settings import TrainingSettings

__all__ = ["rate_factor", "schedule"]


def schedule(optimizer: Optimizer, steps: int, settings: TrainingSettings) -> LambdaLR:
    """The learning rates of all groups, rising and falling together over `steps` steps."""
    return LambdaLR(optimizer, rate_factor(steps, settings))


def rate_factor(steps: int, settings: TrainingSettings) -> Callable[[int], float]:
    """The factor of the learning rate at step number `step`, counted from 0.

    It rises linearly over the warm-up, and then falls to 0 linearly or along half a cosine (Loshchilov and Hutter
    2017), or stays.
    """
    warmup = max(1, math.ceil(steps * settings.optimizer.warmup_share))
    rest = max(1, steps - warmup + 1)

    def factor(step: int) -> float:
        left = (steps - step) / rest
        after = {"linear": left, "cosine": (1 - math.cos(math.pi * min(left, 1.0))) / 2, "constant": 1.0}
        return min((step + 1) / warmup, after[settings.optimizer.schedule])

    return factor
