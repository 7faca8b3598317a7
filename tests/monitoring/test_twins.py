import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.home import Home
from assets.monitoring import twins
from assets.monitoring.decision import RetrainingDecision
from assets.monitoring.drift import measure_drift
from assets.monitoring.performance import measure_performance
from assets.monitoring.retraining import decide_retraining
from assets.monitoring.twins import Twin, Twins, ask, candidate, learn, measure_twins
from assets.registry.ledger import Ledger
from assets.registry.registry import RegisteredVersion
from assets.settings import RetrainingPolicy, Settings, load_domain, load_settings

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

AS_OF = "2024-02-01"


@pytest.fixture(scope="module")
def settings() -> Settings:
    found = load_settings("quick")
    changes = {
        "snapshot": {"test_rows": 300, "reference_share": 0.0},
        "retraining": {"probe": True, "twin_rows": 2000, "min_new_labels": 1},
    }
    return found.model_copy(
        update={name: getattr(found, name).model_copy(update=fields) for name, fields in changes.items()}
    )


def records(count: int, start: str, days: int, prefix: str, word: str = "old") -> pd.DataFrame:
    """A label has a word of its own; labels come after five days."""
    random = np.random.default_rng(len(word) * count)
    labels = random.choice(LABELS[:5], count)
    known_at = pd.Timestamp(start) + pd.to_timedelta(np.arange(count) * days // count, unit="D")
    fill = [" ".join(random.choice(list("abcdefghijklmnop"), 12)) for _ in range(count)]
    return pd.DataFrame(
        {
            "record_id": [f"{prefix}{number}" for number in range(count)],
            "known_at": known_at,
            "known_until": pd.NaT,
            "label_known_at": known_at + pd.Timedelta(days=5),
            "label": labels,
            "text": [f"{word}{label} {text}" for label, text in zip(labels, fill, strict=True)],
            **{"company": "ACME", "state": "CA", "zip_code": "", "tags": "", "channel": "Web"},
        }
    )


@pytest.fixture
def changed(home: Home, champion: RegisteredVersion, publish_marts: Any) -> Home:
    """The champion of New Year's Day learned old words; new ones have come since."""
    old, new = records(900, "2023-10-01", 80, "o"), records(1500, "2024-01-02", 24, "n", word="new")
    with home.lake.staging(f"training_set/{champion.as_of}") as staged:
        old.to_parquet(staged / "train.parquet", index=False)
        sizes = {f"{part}_rows": 0 for part in ("train", "test", "reference")}
        manifest = {
            "snapshot_id": champion.snapshot_id,
            "features": [],
            "domain": DOMAIN.model_dump(mode="json"),
            **sizes,
        }
        (staged / "manifest.json").write_text(json.dumps(manifest))
        home.lake.publish(f"training_set/{champion.as_of}", champion.snapshot_id, staged)
    rows = pd.concat([old, new])
    publish_marts(rows, rows[["record_id", "known_at", "known_until", "label", "label_known_at"]])
    return home


def test_a_twin_learns_words_and_is_the_same_every_time(settings: Settings) -> None:
    rows, later = records(500, "2023-10-01", 80, "o"), records(100, "2024-01-01", 20, "l")
    first, second = (learn(rows, DOMAIN, settings.training, settings.retraining) for _ in range(2))
    assert np.array_equal(first.weights, second.weights)
    right = first.answer(later) == later["label"]
    assert right.mean() > 0.95
    few = settings.retraining.model_copy(update={"twin_rows": 100})
    newest = learn(rows[-100:], DOMAIN, settings.training, settings.retraining)
    assert np.array_equal(learn(rows, DOMAIN, settings.training, few).weights, newest.weights)


def test_only_rows_that_are_blind_for_both_are_answered() -> None:
    class Fixed(Twin):
        def answer(self, rows: pd.DataFrame) -> Any:
            return np.full(len(rows), LABELS[int(self.weights)])

    test = pd.DataFrame({"label": LABELS[:4]})
    test["label_known_at"] = pd.to_datetime(["2023-12-31", "2024-01-01", "2024-01-02", "2024-01-02"])
    ours, theirs = Fixed(DOMAIN, np.float32(2)), Fixed(DOMAIN, np.float32(0))
    assert ask(ours, theirs, test, "2024-01-01") == Twins(2, 1, 0, 4)
    assert ask(ours, theirs, test, "2023-12-01") == Twins(4, 1, 1, 4)
    assert ask(ours, theirs, test, "2024-02-01") == Twins(0, 0, 0, 4)


def test_no_row_is_learned_from_and_answered(changed: Home, champion: RegisteredVersion, settings: Settings) -> None:
    found = candidate(changed, AS_OF, settings.snapshot, settings.retraining)
    assert found is not None
    assert found.train["known_at"].max() < found.test["known_at"].min()
    assert found.test["label_known_at"].max() <= pd.Timestamp(AS_OF)
    assert len(found.train) <= settings.retraining.twin_rows
    few = settings.snapshot.model_copy(update={"min_train_rows": 10_000})
    assert candidate(changed, AS_OF, few, settings.retraining) is None


def test_twins_are_asked_once(
    changed: Home, champion: RegisteredVersion, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure_twins(changed, AS_OF, champion, settings)
    assert found is not None
    assert found.rows == found.test_rows >= 300
    assert found.only_challenger > 0.5 * found.rows > 10 * found.only_champion
    learned: list[int] = []

    def count(rows: pd.DataFrame, *_: Any) -> Twin:
        learned.append(len(rows))
        return Twin(DOMAIN, np.zeros((65536, len(LABELS)), np.float32))

    monkeypatch.setattr(twins, "learn", count)
    assert measure_twins(changed, AS_OF, champion, settings) == found
    assert learned == []
    measure_twins(changed, "2024-01-31", champion, settings)
    assert len(learned) == 1  # the champion's twin is kept


def test_the_decision_says_what_twins_found(changed: Home, champion: RegisteredVersion, settings: Settings) -> None:
    def ask_again(policy: RetrainingPolicy) -> RetrainingDecision:
        return decide_retraining(changed, AS_OF, champion, settings.model_copy(update={"retraining": policy}))

    measure_drift(changed, AS_OF, champion, settings.drift)
    measure_performance(changed, AS_OF, champion, settings.retraining, settings.drift)
    found = ask_again(settings.retraining)
    assert found.inputs.probe is not None
    assert found.inputs.probe.chance > 0.9
    (entry,) = Ledger(changed.ledger).entries("retraining")
    assert entry.body["numbers"]["probe"]["rows"] == found.inputs.probe.rows
    assert ask_again(settings.retraining) == found
    unasked = ask_again(settings.retraining.model_copy(update={"probe": False}))
    assert unasked.inputs.probe is None
