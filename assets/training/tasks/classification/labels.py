"""Labels as numbers: the only place that says which output is which label."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_weights", "places"]


def places(names: Iterable[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """The place of each row's label among all labels, [rows]. Raises KeyError for a name that is none of them."""
    numbers = {label: place for place, label in enumerate(labels)}
    return np.array([numbers[name] for name in names], np.int64)


def class_weights(frequencies: Sequence[float], labels: NDArray[np.int64], power: float) -> NDArray[np.float32]:
    """One weight a label, its frequency to minus `power`, such that the mean over rows with these labels is 1."""
    weights = np.array(frequencies) ** -power
    return np.asarray(weights / weights[labels].mean(), np.float32)
