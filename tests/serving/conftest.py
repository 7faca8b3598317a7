"""A server with a real ledger, registry and files, whose models answer with a word of the text."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from assets.features.serving import OnlineStore
from assets.home import Home
from assets.registry.registry import RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.scoring.golden import GoldenAnswers
from assets.serving.app import application
from assets.serving.keys import add_key
from assets.serving.server import Server, keys_file
from assets.settings import GatePolicy, ServingSettings, load_domain, load_serving_settings, load_settings
from tests.registry.conftest import empty_database, make_bundle, make_evaluation

__all__ = ["empty_database"]

LABELS = tuple(load_domain().labels)
FEATURE = "company_records_7d"
SETTINGS = load_settings("quick")


@dataclass
class WordModel:
    """Answers with the first word of a text, or the second if its training is named so: `cards mortgage`."""

    id: str
    labels: tuple[str, ...] = LABELS
    features: tuple[str, ...] = (FEATURE,)

    def compile(self, precision: str) -> None:
        pass

    def predict_proba(self, rows: pd.DataFrame, batch_tokens: int = 0, precision: str = "float32") -> Any:
        assert set(self.features) <= set(rows.columns)
        if (rows["text"] == "poison").any():
            raise FloatingPointError("a fault of the model")
        words = [text.split()[-1 if self.id.startswith("second") else 0] for text in rows["text"]]
        chosen = [LABELS.index(word if word in LABELS else "other") for word in words]
        probabilities = np.full((len(rows), len(LABELS)), 0.4 / (len(LABELS) - 1))
        probabilities[np.arange(len(rows)), chosen] = 0.6
        return probabilities


@dataclass
class Store:
    """The online store: what it was filled with, and whether it can be read."""

    content: OnlineStore | None = None
    fault: Exception | None = None


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return patch_store(monkeypatch)


def patch_store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Replace Feast by a store that knows one feature."""
    state = Store(OnlineStore("2024-06-01", "m1", "d1", {}))

    def read(_: Path) -> OnlineStore:
        if state.fault:
            raise state.fault
        assert state.content
        return state.content

    @dataclass
    class Reader:
        content: OnlineStore

        @classmethod
        def open(cls, home: Home) -> "Reader":
            return cls(read(home.features))

        @property
        def is_current(self) -> bool:
            return read(Path()) == self.content

        def features(self, rows: pd.DataFrame) -> pd.DataFrame:
            return rows.assign(**{FEATURE: 1.0})

    monkeypatch.setattr("assets.serving.features.OnlineReader", Reader)
    monkeypatch.setattr("assets.serving.features.online_store", read)
    monkeypatch.setattr("assets.serving.features.digest", lambda: "d1")
    return state


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many of ten golden rows a training now answers otherwise: none, unless a test says so."""
    return patch_models(monkeypatch)


def patch_models(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Load word models from the files of the registry's versions."""
    others: dict[str, int] = {}

    def load(path: Path) -> WordModel:
        return WordModel(json.loads((path / "provenance.json").read_text())["training_id"])

    def answers(_: Any, version: RegisteredVersion, *__: Any) -> GoldenAnswers:
        return GoldenAnswers(10, others.get(version.training_id, 0), 0.0)

    monkeypatch.setattr("assets.serving.standing.load_bundle", load)
    monkeypatch.setattr("assets.serving.standing.answer_golden_rows", answers)
    return others


@pytest.fixture
def home(home: Home, empty_database: Path) -> Home:
    home.mlflow.mkdir(parents=True)
    (home.mlflow / "mlflow.db").write_bytes(empty_database.read_bytes())
    return home


@pytest.fixture
def judged(home: Home) -> Callable[..., RegisteredVersion]:
    """Register a training, better than the champion, and have the gate judge it."""

    def judge(training: str, **changes: Any) -> RegisteredVersion:
        policy = GatePolicy(**SETTINGS.gate.model_dump() | {"min_test_rows": 100} | changes)
        registry = Registry(home)
        evaluation = make_evaluation(home, training, registry.evaluated_champion())
        version = registry.register(make_bundle(home, training), evaluation)
        Succession(registry).judge(version.version, evaluation, policy)
        return registry.version(version.version)

    return judge


@dataclass
class Client:
    """Asks a running server with a key."""

    http: TestClient
    server: Server

    def ask(self, *texts: str, first: int = 1) -> list[dict[str, Any]]:
        """The answers to records with these texts, numbered from `first`."""
        records = [{"complaint_id": str(first + n), "narrative": text} for n, text in enumerate(texts)]
        done = self.http.post("/v1/predict", json={"records": records})
        assert done.status_code == 200, done.text
        return done.json()["answers"]

    def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds; the follower looks at the ledger in a thread of its own, and nobody beside it."""
        ends = monotonic() + 30
        while not holds():
            assert monotonic() < ends, self.server.state()
            Event().wait(0.01)


@pytest.fixture
def serving(home: Home, store: Store, golden: dict[str, int]) -> Callable[..., Any]:
    """A server with some settings; by default nothing of it happens by time."""

    @contextmanager
    def serve(**changes: Any) -> Iterator[Client]:
        usual = {"follow_seconds": 0.05, "segment_seconds": 3600, "wait_milliseconds": 1}
        settings = ServingSettings(**load_serving_settings().model_dump() | usual | changes)
        path = keys_file(home, settings)
        key = add_key(path, "tests" if not path.exists() else f"tests-{len(path.read_text())}")
        server = Server(home, SETTINGS.ingestion, SETTINGS.scoring, settings)
        with TestClient(application(server), headers={"Authorization": f"Bearer {key}"}) as http:
            yield Client(http, server)

    return serve


@pytest.fixture
def client(serving: Any, judged: Any) -> Iterator[Client]:
    """A server with a champion, `first-1`, that answers with the first word of a text."""
    judged("first-1")
    with serving() as client:
        client.until(lambda: client.server.follower.standings.champion)
        yield client
