"""The nearest value of one threshold of the gate at which something turns."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

from assets.settings import GatePolicy

__all__ = ["nearest"]

_STEPS = 22
_HALVINGS = 16
_OVERSHOOT = 0.25
"""A rounder value may be further away by this share of the change."""
_EDGE = 1e-9
"""The distance from a bound that a threshold must not reach."""


def nearest(policy: GatePolicy, setting: str, turns: Callable[[float], bool]) -> float | None:
    """The nearest value of a numeric setting at which `turns` holds, with few digits; None if there is none.

    `turns` must be false for the policy's own value, and stay true beyond the first value in a direction where it is.
    """
    was, whole = getattr(policy, setting), GatePolicy.model_fields[setting].annotation is int
    values = [value for limit in _limits(setting) if (value := _towards(limit, was, whole, turns)) is not None]
    return min(values, key=lambda value: abs(value - was), default=None)


def _limits(setting: str) -> tuple[float, float]:
    """The smallest and the largest possible value."""
    metadata = GatePolicy.model_fields[setting].metadata
    bounds = {name: getattr(one, name) for one in metadata for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    low = bounds.get("ge", bounds.get("gt", -math.inf) + _EDGE)
    return low, bounds.get("le", bounds.get("lt", math.inf) - _EDGE)


def _towards(limit: float, was: float, whole: bool, turns: Callable[[float], bool]) -> float | None:
    steps = [was, *_steps(was, limit, whole)]
    if not turns(steps[-1]):
        return None
    near, far = next(pair for pair in pairwise(steps) if turns(pair[1]))
    far = _halved(near, far, whole, turns)
    return far if whole else _rounded(was, far, limit, turns)


def _steps(was: float, limit: float, whole: bool) -> Iterator[float]:
    """Values towards the limit: the first a thousandth away, each of the others twice as far as the one before."""
    scale, direction = (abs(was) or 1.0) / 1000, 1 if limit > was else -1
    for step in range(_STEPS):
        distance = scale * 2**step
        value = was + direction * (math.ceil(distance) if whole else distance)
        if direction * value >= direction * limit:
            yield limit
            return
        yield value


def _halved(near: float, far: float, whole: bool, turns: Callable[[float], bool]) -> float:
    """A value close to where it turns, between one where it does not and one where it does."""
    for _ in range(_HALVINGS):
        middle = (near + far) // 2 if whole else (near + far) / 2
        near, far = (near, middle) if turns(middle) else (middle, far)
    return far


def _rounded(was: float, value: float, limit: float, turns: Callable[[float], bool]) -> float:
    """A value with few digits, a little further away."""
    upwards = value > was
    for digits in range(1, 8):
        unit = 10.0 ** (math.floor(math.log10(abs(value) or 1)) - digits + 1)
        rounded = round((math.ceil if upwards else math.floor)(value / unit) * unit, 12)
        possible = rounded <= limit if upwards else rounded >= limit
        if possible and abs(rounded - value) <= _OVERSHOOT * abs(value - was) and turns(rounded):
            return rounded
    return value
