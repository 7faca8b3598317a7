"""Recognises the texts that no training sees because models are judged by them."""

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
    """Texts from the training's period that it did not see, because models are judged by them.

    A form letter in the test part is in no train row. A comparison of later texts with the train rows must leave such
    letters out, or it takes old texts for new ones.
    """

    starts: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Hashes of the starts of the train rows that were removed because of the test part."""
    reserved: float = 0.0
    """`reference_share`."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "KeptOut":
        """From a snapshot's manifest."""
        return cls(np.array(manifest.get("removed_starts", []), np.uint64), manifest["settings"]["reference_share"])

    def among(self, texts: "pd.Series[str]") -> npt.NDArray[np.bool_]:
        """Which of the texts start like one that was kept out [rows]."""
        starts = hash_starts(pa.chunked_array([pa.array(texts, pa.large_string())]))
        return np.isin(starts, self.starts) | is_reserved(starts, self.reserved)


def is_reserved(starts: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Which texts belong to the share reserved as reference, by hashes of their starts [rows]."""
    return starts < np.uint64(share * 2**64)
