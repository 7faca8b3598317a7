"""A domain of two labels, one of which three records in a hundred are of; and models that know their own chances."""

from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from assets.evaluation.evaluate import Champion, scores
from assets.evaluation.report import Evaluation, Golden, SnapshotFacts
from assets.settings import Settings, load_domain, load_settings

DOMAIN = Path(__file__).parent / "domain"
LABELS = ("fine", "abuse")
SHARE = 0.03
ROWS = 1500


@pytest.fixture(autouse=True)
def domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(DOMAIN))


@pytest.fixture
def settings() -> Settings:
    return load_settings("quick")


def records(dice: np.random.Generator, rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": np.where(dice.random(rows) < SHARE, "abuse", "fine"),
            "room": dice.choice(["games", "help"], rows),
            "channel": dice.choice(["app", "web"], rows),
            "known_at": pd.Timestamp("2024-05-01"),
            "text": "x",
        }
    )


def probabilities(abuse: np.ndarray, noise: np.ndarray, skill: float) -> np.ndarray:
    """[rows, labels] of a model that sees abuse `skill` standard deviations away from what is fine, and knows it."""
    chance = expit(logit(SHARE) + skill * (skill * abuse + noise) - skill**2 / 2)
    return np.column_stack([1 - chance, chance])


class Judge(Protocol):
    """An evaluation of models by their skill: 0 sees nothing, 2 half of it, 4 nearly all."""

    def __call__(
        self, seed: int, challenger: float, champion: float, baseline: float = ..., rows: int = ...
    ) -> Evaluation: ...


@pytest.fixture
def judged(settings: Settings) -> Judge:
    def evaluate(seed: int, challenger: float, champion: float, baseline: float = 1.0, rows: int = ROWS) -> Evaluation:
        dice = np.random.default_rng(seed)
        test = records(dice, rows)
        abuse, shared = (test["label"] == "abuse").to_numpy(int), dice.normal(size=rows)
        skills = {"challenger": challenger, "baseline": baseline, "champion": champion}
        noises = {who: np.sqrt(0.7) * shared + np.sqrt(0.3) * dice.normal(size=rows) for who in skills}
        found = {who: probabilities(abuse, noises[who], skill) for who, skill in skills.items()}
        return Evaluation(
            id="e",
            basis="b",
            as_of="2024-06-01",
            training_id="challenger",
            labels=LABELS,
            snapshot=SnapshotFacts(
                id="s",
                train_rows=1,
                test_rows=rows,
                period={"train": ("2024-01-01", "2024-05-01"), "test": ("2024-05-01", "2024-05-01")},
            ),
            golden=Golden(rows=8, max_difference=0.0),
            milliseconds=1.0,
            reference=None,
            settings={},
            **scores(test, load_domain(), found, Champion("1", "champion", Path()), settings.evaluation, settings.gate),
        )

    return evaluate
