"""Labels as numbers: the only place that maps labels to outputs."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_weights", "places"]


def places(names: Iterable[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """The index of each row's label in all labels, [rows]. Raises KeyError for an unknown name."""
    numbers = {label: place for place, label in enumerate(labels)}
    return np.array([numbers[name] for name in names], np.int64)


def class_weights(frequencies: Sequence[float], labels: NDArray[np.int64], power: float) -> NDArray[np.float32]:
    """One weight per label: its frequency to the power of -`power`, scaled to a mean of 1 over these rows."""
    weights = np.array(frequencies) ** -power
    return np.asarray(weights / weights[labels].mean(), np.float32)
