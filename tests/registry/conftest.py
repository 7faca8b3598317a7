"""Tiny bundles, hashed like real ones, and evaluations of them."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from assets.evaluation.gate import Verdict
from assets.evaluation.metrics import Metrics
from assets.evaluation.paired import Pair
from assets.evaluation.report import Evaluation, Golden, Rival, SliceScores, SnapshotFacts, write_evaluation
from assets.hashing import hash_json
from assets.home import Home
from assets.registry.registry import RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.registry.tracking import Tracking
from assets.settings import GatePolicy, load_domain, load_settings
from assets.training.bundle import files_of, write_manifest
from assets.training.launchers.launch import override
from assets.training.tasks import TASKS

LABELS = tuple(load_domain().labels)

DAY = "2024-06-01"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables: making them takes seconds, copying them does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    Tracking(folder, load_domain()).client.search_registered_models()
    return folder / "mlflow.db"


@pytest.fixture
def home(home: Home, empty_database: Path) -> Home:
    home.mlflow.mkdir(parents=True)
    shutil.copy(empty_database, home.mlflow)
    return home


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


@pytest.fixture
def policy() -> GatePolicy:
    return load_settings("quick").gate.model_copy(update={"min_test_rows": 100})


def make_bundle(home: Home, training_id: str) -> Path:
    """A bundle's files without a model in them, where the lake keeps that of a training."""
    folder = home.lake.path(f"challenger/{DAY}", training_id)
    folder.mkdir(parents=True)
    provenance = {
        "training_id": training_id,
        "as_of": DAY,
        "snapshot_id": "5" * 16,
        "settings": override(load_settings("quick").training, {"epochs": 1.0, "seed": 0}).model_dump(),
        "deepspeed": {"zero_optimization": {"stage": 2}},
        "base_model": {"name": "tiny", "sha256": "ab" * 32},
        "code": "c0de",
        "features": ["x", "y"],
        "software": {"torch": "2"},
        **{"device": "x86_64", "threads": 2, "world_size": 1, "world_sizes": [1]},
    }
    training = {
        **{"seconds": 1.5, "tokens_per_second": 10.0, "loss_curve": [[1, 2.0], [2, 1.5]]},
        **{"validation_loss": [[2, 1.7]], "ended": "2026-07-01T12:00:00.000+00:00"},
        **{"step_seconds": [[1, 0.9], [2, 1.4]], "cost": 0.25, "start_seconds": {"imports": 3.5}},
    }
    contents = {"provenance.json": provenance, "training.json": training}
    for name in files_of(TASKS["classification"]):
        (folder / name).write_text(json.dumps(contents.get(name, {"of": training_id})))
    write_manifest(folder, TASKS["classification"])
    return folder


def make_evaluation(
    home: Home,
    training_id: str,
    champion: RegisteredVersion | None = None,
    accuracy: float = 0.9,
    trained_to: str = DAY,
    as_of: str = DAY,
) -> Evaluation:
    """A published evaluation of that accuracy, beside a champion of 0.85 if there is one."""
    ours, theirs = Metrics(200, accuracy, accuracy - 0.1, 0.4, 0.02), Metrics(200, 0.85, 0.75, 0.5, 0.03)
    rival = champion and Rival(
        version=champion.version, training_id=champion.training_id, metrics=theirs, pairs=_pairs(round(200 * accuracy))
    )
    evaluation = Evaluation(
        id=hash_json([training_id, champion and champion.version, accuracy, trained_to, as_of])[:16],
        basis="b",
        as_of=as_of,
        training_id=training_id,
        labels=LABELS,
        snapshot=SnapshotFacts(
            id="5" * 16, train_rows=1000, test_rows=200, period={"train": (DAY, trained_to), "test": (DAY, DAY)}
        ),
        challenger=ours,
        baseline=Metrics(200, 0.8, 0.7, 0.6, 0.05),
        champion=rival,
        slices=(_slice(0.85 if champion else None),),
        reliability={"challenger": ()},
        confusion=tuple((2,) * len(LABELS) for _ in LABELS),
        golden=Golden(rows=8, max_difference=0.0),
        milliseconds=5.0,
        reference=None,
        settings={},
    )
    folder = evaluation.folder(home.lake)
    folder.mkdir(parents=True, exist_ok=True)
    write_evaluation(evaluation, folder)
    (folder / "reliability.png").write_bytes(b"\x89PNG")
    return evaluation


def _pairs(right: int) -> tuple[Pair, ...]:
    """200 rows, of which the challenger gets `right` right and the champion 170, nearly all of them the same."""
    both = min(right, 170) - 2
    return ((0, 0, 0, both), (0, 0, 1, right - both), (0, 1, 0, 170 - both), (0, 1, 1, 30 - right + both))


def _slice(champion: float | None) -> SliceScores:
    scores = {"challenger": 0.9, "baseline": 0.8, "champion": champion}
    return SliceScores(by="label", value="cards", rows=150, decides=True, **scores)


@pytest.fixture
def bundle_of(home: Home) -> Callable[[str], Path]:
    return partial(make_bundle, home)


@pytest.fixture
def evaluation_of(home: Home) -> Callable[..., Evaluation]:
    return partial(make_evaluation, home)


@pytest.fixture
def promoted(home: Home, policy: GatePolicy) -> Callable[[str], tuple[RegisteredVersion, Verdict]]:
    """Register a training that is better than the champion, and let the gate promote it."""

    def promote(training_id: str, **about: str) -> tuple[RegisteredVersion, Verdict]:
        registry = Registry(home)
        evaluation = make_evaluation(home, training_id, registry.evaluated_champion(), **about)
        version = registry.register(make_bundle(home, training_id), evaluation)
        verdict = Succession(registry).judge(version.version, evaluation, policy)
        return registry.version(version.version), verdict

    return promote
