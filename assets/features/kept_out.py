"""Texts that no training sees, for models are judged by them: how a later reader tells them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from assets.features.duplicates import hash_starts

__all__ = ["KeptOut", "is_reserved"]


@dataclass(frozen=True)
class KeptOut:
    """Letters of the training's time that the training did not see, for models are judged by them.

    A form letter that is in the test part is in no train row. Whoever compares later texts with the train rows leaves
    such letters out, or takes for new what is old.
    """

    starts: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Hashes of how the train rows began that were removed for the test part."""
    reserved: float = 0.0
    """`reference_share`."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "KeptOut":
        """By a snapshot's manifest."""
        return cls(np.array(manifest.get("removed_starts", []), np.uint64), manifest["settings"]["reference_share"])

    def among(self, texts: "pd.Series[str]") -> npt.NDArray[np.bool_]:
        """Which of them [rows] begin so."""
        starts = hash_starts(pa.chunked_array([pa.array(texts, pa.large_string())]))
        return np.isin(starts, self.starts) | is_reserved(starts, self.reserved)


def is_reserved(starts: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Which texts are of the share that is reserved as reference, by hashes of how they begin [rows]."""
    return starts < np.uint64(share * 2**64)
