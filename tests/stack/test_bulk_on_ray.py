"""Scoring, and the encoding of a training's rows, by the workers of a Ray cluster of two nodes: the same as here."""
# ruff: noqa: F811

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pandas as pd
import psutil
import pytest

from assets.cluster.chunks import ANSWERS
from assets.cluster.exchange import Exchange
from assets.cluster.jobs import Job, run_job
from assets.features.snapshot import Snapshot, load_snapshot
from assets.hashing import hash_file
from assets.home import Home
from assets.lake import Lake
from assets.registry.registry import RegisteredVersion
from assets.scoring.predictions import Predictions, predict
from assets.settings import EMBEDDED, ScoringSettings, TrainingSettings
from assets.settings.serving import BulkSettings
from assets.training.bundle import Bundle
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import override, train
from assets.warehouse.marts import partition_file
from tests.stack.cluster import Nodes, eventually, keys
from tests.training.conftest import (  # noqa: F401 - fixtures, which tests name again
    AS_OF,
    DOMAIN,
    FEATURES,
    bundle,
    bundle_path,
    encoder,
    lake,
    rows,
    run,
    settings,
    snapshot,
)

pytestmark = pytest.mark.stack

pytest.importorskip("ray", reason="Ray is not installed: pip install 'evergreen[ray]'")

DAY, RECORDS = "2024-02-01", 40_000
SCORING = ScoringSettings(
    window_days=30,
    batch_tokens=1024,
    chunk_rows=1000,
    precision="bfloat16",
    cluster=BulkSettings(bulk_rows=RECORDS),
)


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    """Those of a window, with their features; some have no text."""
    frame = rows(RECORDS, seed=2)
    arrived = pd.Timestamp("2024-01-10") + pd.to_timedelta(range(RECORDS), "s")
    frame.loc[::50, "text"] = None
    return frame.assign(known_at=arrived, known_until=pd.NaT)


@pytest.fixture
def online(records: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    features = records.set_index("record_id")[list(FEATURES)]

    def read(home: Home, chunk: pd.DataFrame, online: Path) -> pd.DataFrame:
        return chunk.assign(**features.loc[chunk["record_id"]].reset_index(drop=True))

    monkeypatch.setattr("assets.scoring.predictions.definitions", lambda home: SimpleNamespace(digest="d"))
    monkeypatch.setattr("assets.scoring.predictions.pinned", lambda *_: nullcontext(Path()))
    monkeypatch.setattr("assets.scoring.predictions.online_features", read)


@pytest.fixture
def score(records: pd.DataFrame, bundle: Bundle, online: None) -> Callable[..., Predictions]:
    """Scores the window of a home, which is new."""
    test = rows(48, seed=1)
    answers = [*bundle.predict_proba(test)]
    golden = pd.DataFrame({"record_id": test["record_id"], "probabilities": answers})
    champion = RegisteredVersion("3", bundle.id, "s", AS_OF, {"evaluation": "e"}, "file:///nowhere")
    marts = records.drop(columns=["label", *FEATURES])

    def scored(home: Home, run: Callable[[Job], None]) -> Predictions:
        tables = {(f"training_set/{AS_OF}", "s"): {"test.parquet": test}}
        tables |= {(f"evaluation/{AS_OF}", "e"): {"golden.parquet": golden}}
        for (table, version), files in tables.items():
            with home.lake.staging(table) as staged:
                for name, frame in files.items():
                    frame.to_parquet(staged / name)
                home.lake.publish(table, version, staged)
        with home.lake.staging("marts") as staged:
            marts.to_parquet(partition_file(staged, "fct_records", "all"), index=False)
            home.lake.publish("marts", "m", staged)
        return predict(home, DAY, champion, lambda: bundle, SCORING, run)

    return scored


def worker() -> psutil.Process | None:
    """A process that answers chunks."""
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if " ".join(process.info["cmdline"] or []).startswith("ray::MapWorker"):
                return process
    return None


def killing(job: Job) -> None:
    """Run a job, and kill a worker once there is an answer."""
    exchange = Exchange(job.command[-1])
    with ThreadPoolExecutor(1) as other:
        running = other.submit(run_job, job)
        eventually(lambda: running.done() or exchange.folders(ANSWERS), "an answer")
        process = worker()
        assert process is not None
        process.kill()
        answered = len(exchange.folders(ANSWERS))
        assert 0 < answered < RECORDS / SCORING.chunk_rows
        running.result()


def never(job: Job) -> None:
    raise AssertionError(job)


def test_a_cluster_scores_as_this_machine_does_though_a_worker_is_killed(
    nodes: Nodes, score: Callable[..., Predictions], tmp_path: Path
) -> None:
    team = EMBEDDED.model_copy(update={"objects": "s3://team/home", "ray": nodes.address})
    here, there = score(Home(tmp_path / "here"), never), score(Home(tmp_path / "there", team), killing)
    assert here.manifest == there.manifest
    assert here.manifest.each_record_once
    assert here.version == there.version
    one, other = (pd.read_parquet(found.path / "predictions.parquet") for found in (here, there))
    assert len(one["predicted"].unique()) > 5
    pd.testing.assert_frame_equal(one.drop(columns="confidence"), other.drop(columns="confidence"))
    pd.testing.assert_series_equal(one["confidence"], other["confidence"], rtol=0, atol=1e-5)
    assert f"{RECORDS // SCORING.chunk_rows} of " in nodes.said()
    assert keys("home/scoring/") == []


@pytest.fixture
def many(tmp_path: Path) -> Snapshot:
    """A snapshot of three chunks of rows."""
    lake, train_rows = Lake(tmp_path / "many" / "lake"), rows(20_000, seed=3)
    counts = {"train_rows": len(train_rows), "test_rows": 0, "reference_rows": 0}
    about = {"snapshot_id": "f" * 16, "features": FEATURES, "domain": DOMAIN.model_dump(mode="json")}
    with lake.staging(f"training_set/{AS_OF}") as staged:
        train_rows.to_parquet(staged / "train.parquet")
        (staged / "manifest.json").write_text(json.dumps(about | counts))
        lake.publish(f"training_set/{AS_OF}", "f" * 16, staged)
    return load_snapshot(lake, AS_OF)


def test_rows_that_the_workers_encode_make_the_same_weights(
    nodes: Nodes,
    many: Snapshot,
    settings: TrainingSettings,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two ranks here, and there, with a thread each."""
    assert "EVERGREEN_RAY" not in os.environ
    two = override(settings, {"ranks": 2, "epochs": 0.05, "bulk_rows": 20_000, "validation_share": 0.01})
    here = train(Lake(tmp_path / "here" / "lake"), AS_OF, many, two, run)
    places = {"RAY": nodes.address, "OBJECTS": "s3://team/home", "MLFLOW": "http://127.0.0.1:1"}
    for name, value in (places | {"DATABASE": "postgresql://nobody@127.0.0.1:1/none"}).items():
        monkeypatch.setenv(f"EVERGREEN_{name}", value)
    there = train(Lake(tmp_path / "there" / "lake"), AS_OF, many, two, run_job)  # type: ignore[arg-type]
    assert there.training_id == here.training_id
    for name in ("model.safetensors", "preprocessing.json", "tokenizer.json"):
        assert hash_file(there.path / name) == hash_file(here.path / name), name
    assert "3 of 3 chunks are done" in nodes.said()
    assert keys("home/training/") == []


def test_what_is_wrong_with_a_worker_is_the_run_s_line(
    nodes: Nodes, score: Callable[..., Predictions], tmp_path: Path
) -> None:
    """Its input is not what was put there: another try would not help, and there is none."""
    team = EMBEDDED.model_copy(update={"objects": "s3://team/spoilt", "ray": nodes.address})

    def spoil(job: Job) -> None:
        first: Any = next(key for key in keys("spoilt/scoring/") if key.endswith("/rows.parquet") and "/inputs/" in key)
        boto3.client("s3").put_object(Bucket="team", Key=first, Body=b"other")
        run_job(job)

    with pytest.raises(Exception, match=r"^s3://team/spoilt/.*: its content is not what was written; restore it$"):
        score(Home(tmp_path / "there", team), spoil)
