"""A bundle without a model, and marts made by hand."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.features.serving import OnlineStore
from assets.home import Home
from assets.registry.registry import RegisteredVersion
from assets.settings import load_domain
from assets.warehouse.marts import partition_file

LABELS = tuple(load_domain().labels)

FEATURE = "company_records_7d"
GOLDEN = "mortgage golden"
"""The text of the champion's golden row."""


@dataclass
class FakeBundle:
    """Routes a text by the label that it names, with confidence 0.6."""

    id: str = "training-1"
    features: tuple[str, ...] = (FEATURE,)
    labels: tuple[str, ...] = LABELS
    seen: list[str] = field(default_factory=list)
    """Every text but the golden one, in the order in which they came."""
    compiled: str | None = None
    fail_after: int | None = None
    """Texts after which it is interrupted."""

    def compile(self, precision: str) -> None:
        self.compiled = precision

    def predict_proba(self, rows: pd.DataFrame, batch_tokens: int = 2048, precision: str = "float32") -> np.ndarray:
        assert set(self.features) <= set(rows.columns)
        assert self.compiled in (None, precision)
        if self.fail_after is not None and len(self.seen) >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += [text for text in rows["text"] if text != GOLDEN]
        chosen = [LABELS.index(text.split()[0]) for text in rows["text"]]
        probabilities = np.full((len(rows), len(LABELS)), 0.4 / (len(LABELS) - 1))
        probabilities[np.arange(len(rows)), chosen] = 0.6
        return probabilities


@pytest.fixture
def bundle() -> FakeBundle:
    return FakeBundle()


@pytest.fixture
def champion_evaluated_as(home: Home) -> Callable[[str], RegisteredVersion]:
    """A champion whose golden row, a mortgage to the bundle, was sent to the given label when it was evaluated."""

    def evaluated(label: str) -> RegisteredVersion:
        test = pd.DataFrame({"record_id": ["a", "g"], "text": ["cards x", GOLDEN], FEATURE: 1.0})
        golden = pd.DataFrame({"record_id": ["g"], "probabilities": [np.eye(len(LABELS))[LABELS.index(label)]]})
        for table, version, name, rows in (
            ("training_set/2024-01-01", "snapshot-1", "test", test),
            ("evaluation/2024-01-01", f"as-{label}", "golden", golden),
        ):
            with home.lake.staging(table) as staged:
                rows.to_parquet(staged / f"{name}.parquet")
                home.lake.publish(table, version, staged)
        tags = {"evaluation": f"as-{label}"}
        return RegisteredVersion("3", "training-1", "snapshot-1", "2024-01-01", tags, "file:///nowhere")

    return evaluated


@pytest.fixture
def champion(champion_evaluated_as: Callable[[str], RegisteredVersion]) -> RegisteredVersion:
    return champion_evaluated_as("mortgage")


@pytest.fixture(autouse=True)
def online(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def features(_: Home, rows: pd.DataFrame, folder: Path | None = None) -> pd.DataFrame:
        return rows.assign(**{FEATURE: np.arange(len(rows), dtype=float)})

    monkeypatch.setattr("assets.scoring.predictions.definitions", lambda home: SimpleNamespace(digest="d1"))

    def store(_: Path) -> OnlineStore:
        return OnlineStore("2024-02-01", home.lake.version("marts") or "", "d1", {})

    monkeypatch.setattr("assets.scoring.predictions.pinned", lambda *_: nullcontext(home.features))
    monkeypatch.setattr("assets.scoring.files.online_store", store)
    monkeypatch.setattr("assets.scoring.predictions.online_features", features)
    monkeypatch.setattr("assets.scoring.champion.online_features", features)


@pytest.fixture
def publish_marts(home: Home) -> Callable[..., str]:
    """Publishes fct_records with the given rows: record_id, known_at, and whatever else differs."""

    def publish(*rows: dict[str, Any], version: str = "m1") -> str:
        defaults = {"known_until": None, "text": "cards again", "company": "ACME", "state": "CA"}
        defaults |= {"zip_code": None, "tags": None, "channel": "Web"}
        table = pd.DataFrame([{**defaults, **row} for row in rows])
        for name in ("known_at", "known_until"):
            table[name] = pd.to_datetime(table[name])
        with home.lake.staging("marts") as staged:
            table.to_parquet(partition_file(staged, "fct_records", "all"), index=False)
            home.lake.publish("marts", version, staged)
        return version

    return publish
