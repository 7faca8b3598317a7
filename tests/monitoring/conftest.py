"""Marts, a snapshot, an evaluation and predictions made by hand: a small world that can be calm or shifted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.home import Home
from assets.registry.registry import RegisteredVersion
from assets.scoring.predictions import Manifest
from assets.settings import load_domain
from assets.warehouse.marts import partition_file

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

FEATURES = ["company_records_30d", "company_share_cards", "text_length"]
AS_OF = "2024-02-01"
SECRET = "zanzibarian"
"""A word of texts that must appear in no report."""


@dataclass
class World:
    """Draws records; `words`, `mix` and `broken` are what can shift."""

    seed: int
    words: int = 400
    first_word: int = 0
    mix: tuple[float, ...] = (0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05)
    favourites: int = 0
    """So many of the words, the same ones always, are used as often as all others together."""
    broken: tuple[str, ...] = ()
    """Features that are always zero."""

    def rows(self, count: int, start: str, days: int, prefix: str) -> pd.DataFrame:
        rng = np.random.default_rng(self.seed)
        names = [_word(n) for n in range(self.first_word, self.first_word + self.words)]
        chances = np.ones(self.words)
        chances[: self.favourites] *= (self.words - self.favourites) / max(self.favourites, 1)
        chances /= chances.sum()
        sizes = rng.poisson(40, count) + 5
        table = pd.DataFrame(
            {
                "record_id": [f"{prefix}{n}" for n in range(count)],
                "known_at": pd.Timestamp(start) + pd.to_timedelta(np.sort(rng.integers(0, days, count)), unit="D"),
                "label": rng.choice(LABELS, count, p=self.mix),
                "text": [" ".join([SECRET, "XXXX", *rng.choice(names, size, p=chances)]) for size in sizes],
                "company": [f"Company {n}" for n in rng.zipf(1.7, count)],
                "state": rng.choice(["CA", "TX", "NY", "FL", "unknown"], count),
                "zip_code": None,
                "tags": rng.choice([None, "Older American"], count, p=[0.9, 0.1]),
                "channel": "Web",
                "company_records_30d": rng.lognormal(2, 1.5, count).round(),
                "company_share_cards": rng.beta(1, 3, count),
                "text_length": sizes.astype(float),
            }
        )
        table["confidence"] = rng.beta(5, 2, count)
        table["label_known_at"] = table["known_at"] + pd.to_timedelta(rng.integers(0, 10, count), unit="D")
        return table.assign(**dict.fromkeys(self.broken, 0.0))


def _word(number: int) -> str:
    letters = "abcdefghij"
    return "w" + "".join(letters[int(digit)] for digit in f"{number:04d}")


@pytest.fixture
def champion() -> RegisteredVersion:
    return RegisteredVersion("3", "training-1", "snapshot-1", "2024-01-01", {}, "file:///nowhere")


@pytest.fixture
def train(home: Home, champion: RegisteredVersion, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Publishes the champion's snapshot and its evaluation."""
    monkeypatch.setattr(
        "assets.monitoring.champion.read_evaluation",
        lambda folder: SimpleNamespace(training_id=json.loads((folder / "evaluation.json").read_text())),
    )

    def publish(
        world: World, rows: int = 3000, test_rows: int = 600, wrong_below: float = 0.0, kept_out: Sequence[int] = ()
    ) -> None:
        """The champion was wrong on the test rows of which it was less sure than `wrong_below`.

        `kept_out`: hashes of how texts began that were removed from its training set.
        """
        columns = ["record_id", "known_at", "label_known_at", "label"]
        columns += ["text", "company", "state", "zip_code", "tags", "channel"]
        with home.lake.staging("training_set/2024-01-01") as staged:
            drawn = world.rows(rows, "2023-06-01", 180, "t")
            drawn[[*columns, *FEATURES]].to_parquet(staged / "train.parquet", index=False)
            manifest = {"features": FEATURES, "settings": {"reference_share": 0.0}, "removed_starts": [*kept_out]}
            manifest["domain"] = DOMAIN.model_dump(mode="json")
            manifest |= {"snapshot_id": champion.snapshot_id, "train_rows": rows, "test_rows": 0, "reference_rows": 0}
            (staged / "manifest.json").write_text(json.dumps(manifest))
            home.lake.publish("training_set/2024-01-01", champion.snapshot_id, staged)
        with home.lake.staging("evaluation/2024-01-01") as staged:
            tested = World(world.seed + 1000, mix=world.mix).rows(test_rows, "2023-12-01", 30, "e")
            predicted = tested["label"].where(tested["confidence"] >= wrong_below, "wrong")
            predicted = predicted.mask(predicted == "wrong", np.where(tested["label"] == "cards", "other", "cards"))
            tested.assign(predicted=predicted).to_parquet(staged / "predictions.parquet", index=False)
            (staged / "evaluation.json").write_text(json.dumps(champion.training_id))
            home.lake.publish("evaluation/2024-01-01", "e1", staged)

    return publish


@pytest.fixture
def publish_marts(home: Home) -> Callable[..., None]:
    def publish(records: pd.DataFrame, labels: pd.DataFrame | None = None, version: str = "m1") -> None:
        with home.lake.staging("marts") as staged:
            for name, table in (("fct_records", records), ("labels", labels)):
                if table is not None:
                    times = [c for c in ("known_at", "known_until", "label_known_at") if c in table]
                    table = table.assign(**{c: pd.to_datetime(table[c]) for c in times})
                    table.to_parquet(partition_file(staged, name, "all"), index=False)
            home.lake.publish("marts", version, staged)

    return publish


@pytest.fixture
def publish_predictions(home: Home, champion: RegisteredVersion) -> Callable[..., None]:
    def publish(
        as_of: str, rows: pd.DataFrame, model: RegisteredVersion = champion, version: str = "p1", marts: str = "m1"
    ) -> None:
        manifest = Manifest(
            *(as_of, model.version, model.training_id, model.snapshot_id, model.as_of, marts, 30),
            *(len(rows), len(rows), len(rows)),
        )
        predicted = rows["predicted"] if "predicted" in rows else rows["label"]
        table = rows.assign(predicted=predicted, as_of=as_of, model_version=model.version, reason=None)
        columns = ["record_id", "as_of", "predicted", "confidence", "model_version", "reason"]
        with home.lake.staging(f"predictions/{as_of}") as staged:
            kept = [*columns, *(c for c in FEATURES if c in table)]
            table[kept].to_parquet(staged / "predictions.parquet", index=False)
            (staged / "manifest.json").write_text(json.dumps(asdict(manifest)))
            home.lake.publish(f"predictions/{as_of}", version, staged)

    return publish


@pytest.fixture
def world() -> type[World]:
    return World


@pytest.fixture
def score_window(publish_marts: Any, publish_predictions: Any) -> Callable[..., None]:
    """Publishes marts and predictions for the month that ends at 2024-02-01."""

    def publish(
        world: World, rows: int = 1500, version: str = "p1", as_of: str = "2024-02-01", labels: int | None = None
    ) -> None:
        start = (pd.Timestamp(as_of) - pd.Timedelta(days=27)).date().isoformat()
        drawn = world.rows(rows, start, 25, as_of).assign(known_until=pd.NaT)
        known = ["record_id", "known_at", "known_until", "label", "label_known_at"]
        publish_marts(drawn.drop(columns=[*FEATURES, "confidence"]), drawn[known].head(labels or rows), version)
        publish_predictions(as_of, drawn, version=version, marts=version)

    return publish


@pytest.fixture
def answer_traded(world: Any, train: Any, publish_marts: Any, publish_predictions: Any) -> Callable[..., None]:
    """A champion that errs only where it is not sure, and its answers to a window in which labels changed places."""

    def publish(pairs: dict[str, str]) -> None:
        even = (0.125, 0.125, 0.125, 0.125, 0.1, 0.1, 0.1, 0.1, 0.1)
        train(world(1, mix=even), wrong_below=0.5)
        window = world(2, mix=even).rows(1500, "2024-01-05", 25, "n").assign(known_until=pd.NaT)
        wrong = np.where(window["label"] == "cards", "other", "cards")
        answered = window["label"].where(window["confidence"] >= 0.5, wrong)
        trade = pairs | {other: label for label, other in pairs.items()}
        publish_marts(window.drop(columns="confidence"), window.assign(label=window["label"].replace(trade)))
        publish_predictions(AS_OF, window.assign(predicted=answered))

    return publish
