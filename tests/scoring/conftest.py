"""A bundle without a model, and marts made by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.features.serving import OnlineStore
from assets.lake import Home
from assets.registry.registry import RegisteredVersion
from assets.settings import QUEUES

FEATURE = "company_complaints_7d"


@dataclass
class FakeBundle:
    """Routes a text by the queue that it names, with confidence 0.6."""

    id: str = "training-1"
    features: tuple[str, ...] = (FEATURE,)
    seen: list[str] = field(default_factory=list)
    fail_after: int | None = None
    """Texts after which it is interrupted."""

    def predict_proba(self, rows: pd.DataFrame, batch_tokens: int = 2048, precision: str = "float32") -> np.ndarray:
        assert set(self.features) <= set(rows.columns)
        if self.fail_after is not None and len(self.seen) >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += list(rows["narrative"])
        chosen = [QUEUES.index(text.split()[0]) for text in rows["narrative"]]
        probabilities = np.full((len(rows), len(QUEUES)), 0.4 / (len(QUEUES) - 1))
        probabilities[np.arange(len(rows)), chosen] = 0.6
        return probabilities


@pytest.fixture
def bundle() -> FakeBundle:
    return FakeBundle()


@pytest.fixture
def champion() -> RegisteredVersion:
    return RegisteredVersion("3", "training-1", "snapshot-1", "2024-01-01", {}, "file:///nowhere")


@pytest.fixture(autouse=True)
def online(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def features(_: Home, rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{FEATURE: np.arange(len(rows), dtype=float)})

    monkeypatch.setattr("assets.scoring.predictions.definitions", lambda home: SimpleNamespace(digest="d1"))

    def store(_: Path) -> OnlineStore:
        return OnlineStore("2024-02-01", home.lake.version("marts") or "", "d1", {})

    monkeypatch.setattr("assets.scoring.predictions.online_store", store)
    monkeypatch.setattr("assets.scoring.files.online_store", store)
    monkeypatch.setattr("assets.scoring.predictions.online_features", features)
    monkeypatch.setattr("assets.scoring.files.online_features", features)


@pytest.fixture
def publish_marts(home: Home) -> Callable[..., str]:
    """Publishes fct_complaints with the given rows: complaint_id, known_at, and whatever else differs."""

    def publish(*rows: dict[str, Any], version: str = "m1") -> str:
        defaults = {"known_until": None, "narrative": "cards again", "company": "ACME", "state": "CA"}
        defaults |= {"zip_code": None, "tags": None, "channel": "Web"}
        table = pd.DataFrame([{**defaults, **row} for row in rows])
        for name in ("known_at", "known_until"):
            table[name] = pd.to_datetime(table[name])
        with home.lake.staging("marts") as staged:
            table.to_parquet(staged / "fct_complaints.parquet", index=False)
            home.lake.publish("marts", version, staged)
        return version

    return publish
