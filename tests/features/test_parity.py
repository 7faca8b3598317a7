"""What a model is served, against what it was trained on (assets/scoring/parity.py)."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.features.serving import materialize, online_store
from assets.features.store import definitions
from assets.home import Home
from assets.scoring import parity
from assets.scoring.parity import measure_parity
from assets.settings import ScoringSettings, load_domain, load_settings

LABELS = tuple(load_domain().labels)

AS_OF = "2020-03-15"


class LabelCounter:
    """As sure of the first label as the company has labels."""

    id, labels = "counter", LABELS

    def __init__(self, features: tuple[str, ...]) -> None:
        self.features = features

    def compile(self, precision: str) -> None:
        raise AssertionError(precision)

    def predict_proba(self, rows: pd.DataFrame, batch_tokens: int = 64, precision: str = "float32") -> np.ndarray:
        assert precision == "float32"
        share = 1 / (1 + np.exp(-rows["company_labels"].fillna(-1).to_numpy() / 1000))
        return np.column_stack([share, *[(1 - share) / (len(LABELS) - 1)] * (len(LABELS) - 1)])


@pytest.fixture
def bundle(home: Home, marts: Path) -> LabelCounter:
    assert marts.exists()
    materialize(home, "2020-02-01")
    return LabelCounter(definitions(home).features)


@pytest.fixture
def settings() -> ScoringSettings:
    return load_settings("quick").scoring


def test_both_paths_agree_and_what_is_served_stays(home: Home, bundle: LabelCounter, settings: ScoringSettings) -> None:
    found = measure_parity(home, AS_OF, bundle, settings)
    assert found.equal
    assert found.rows == 100
    assert online_store(home.features).as_of == "2020-02-01"


def test_serving_features_that_drifted_are_found(
    home: Home, bundle: LabelCounter, settings: ScoringSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = parity.online_features

    def drifted(home: Home, rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
        found = serve(home, rows, folder)
        return found.assign(company_labels=found["company_labels"] + 1)

    monkeypatch.setattr(parity, "online_features", drifted)
    found = measure_parity(home, AS_OF, bundle, settings)
    assert not found.equal
    assert found.max_difference > 1e-5


def test_an_online_store_of_another_day_is_found(
    home: Home, bundle: LabelCounter, settings: ScoringSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = parity.online_features
    monkeypatch.setattr(parity, "online_features", lambda home, rows, folder: serve(home, rows))
    assert not measure_parity(home, AS_OF, bundle, settings).equal


def test_nothing_to_compare_is_no_agreement(home: Home, bundle: LabelCounter, settings: ScoringSettings) -> None:
    assert not measure_parity(home, "2019-01-01", bundle, settings).equal
