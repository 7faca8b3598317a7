"""A small world: records of nine labels, models that are right as often as they are told to be."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.evaluation import evaluate as module
from assets.settings import Domain, EvaluationSettings, load_domain

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)


def records(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    label = random.choice(LABELS, rows)
    hints = np.where(random.random(rows) < 0.6, label, random.choice(LABELS, rows))
    fill = ["they", "closed", "my", "bill"]
    words = [" ".join([hint, *random.choice(fill, 60 * (i % 3) + 3)]) for i, hint in enumerate(hints)]
    return pd.DataFrame(
        {
            "record_id": [f"{seed}-{i}" for i in range(rows)],
            "known_at": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) // 5, unit="D"),
            "label": label,
            "text": words,
            "company": "acme",
            "state": random.choice(["CA", "TX", "unknown"], rows),
            "tags": random.choice([None, "Older American", "Older American, Servicemember"], rows),
            "channel": random.choice([None, "Web"], rows),
            "x": random.normal(size=rows),
        }
    )


@dataclass(frozen=True)
class FakeSnapshot:
    id: str = "0123456789abcdef"
    as_of: str = "2024-06-01"
    features: tuple[str, ...] = ("x",)
    labels: tuple[str, ...] = LABELS
    domain: Domain = DOMAIN
    train_rows: int = 300
    test_rows: int = 240
    reference_rows: int = 60

    @property
    def manifest(self) -> dict[str, Any]:
        return {"period": {"train": ["2024-01-01", "2024-03-01"], "test": ["2024-03-02", "2024-05-01"]}}

    def train(self) -> pd.DataFrame:
        return records(self.train_rows, 1)

    def test(self) -> pd.DataFrame:
        return records(self.test_rows, 2)

    def reference(self) -> pd.DataFrame:
        return records(self.reference_rows, 3)


@dataclass(frozen=True)
class FakeBundle:
    """Right for a share of rows that it picks by record id, and as sure of itself each time."""

    id: str
    share: float = 0.8
    features: tuple[str, ...] = ("x",)
    labels: tuple[str, ...] = LABELS
    noise: float = 0.0

    def predict_proba(self, rows: pd.DataFrame, batch_rows: int = 64) -> np.ndarray:
        answers = np.full((len(rows), len(LABELS)), (1 - self.share) / (len(LABELS) - 1))
        for i, (label, record) in enumerate(zip(rows["label"], rows["record_id"], strict=True)):
            right = int(record.split("-")[1]) % 100 < 100 * self.share
            answers[i, (LABELS.index(label) + (0 if right else 1)) % len(LABELS)] = self.share
        return answers + self.noise


@pytest.fixture
def snapshot() -> FakeSnapshot:
    return FakeSnapshot()


@pytest.fixture
def fake_bundle() -> type[FakeBundle]:
    return FakeBundle


@pytest.fixture
def settings() -> EvaluationSettings:
    return EvaluationSettings(calibration_bins=10, min_slice_rows=30, golden_rows=16, min_label_rows=10)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Answer `load_bundle` from fakes by folder name; the list that it returns says what was loaded."""

    def install(*bundles: FakeBundle) -> list[str]:
        known, loaded = {bundle.id: bundle for bundle in bundles}, []

        def load(path: Path) -> FakeBundle:
            loaded.append(path.name)
            return known[path.name]

        monkeypatch.setattr(module, "load_bundle", load)
        return loaded

    return install
