"""The curves of a training, in MLflow while it goes on (assets/registry/curves.py)."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.report import Evaluation
from assets.home import Home
from assets.registry import curves
from assets.registry.curves import live_curves
from assets.registry.registry import Registry, tracking_of
from assets.settings import EMBEDDED

A = "a" * 16
FIRST = {"training_id": A, "as_of": "2024-06-01"}
BEGAN = 1_700_000_000.0


def point(step: int, **values: float) -> dict[str, Any]:
    return {"step": step, "at": BEGAN + step, "values": values}


def history(home: Home, curve: str) -> list[tuple[int, float, int]]:
    """Step, value and time of each point in MLflow."""
    client = tracking_of(home).client
    (run,) = client.search_runs([client.get_experiment_by_name("text-classifier").experiment_id])
    metrics = client.get_metric_history(run.info.run_id, f"training/{curve}")
    return sorted((metric.step, metric.value, metric.timestamp) for metric in metrics)


def run_of(home: Home) -> Any:
    client = tracking_of(home).client
    (run,) = client.search_runs([client.get_experiment_by_name("text-classifier").experiment_id])
    return run


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        with suppress(AttributeError, ValueError):  # there is no experiment, or no run in it, yet
            if condition():
                return
        assert time.monotonic() < end
        time.sleep(0.05)


def test_points_are_there_while_the_training_goes_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_EVERY_SECONDS", 0.05)
    with live_curves(home, "dagster-1") as told:
        told(FIRST)
        told(point(1, loss=2.0, tokens_per_second=10.0))
        until(lambda: history(home, "loss") == [(1, 2.0, 1_700_000_001_000)])
        assert run_of(home).info.status == "RUNNING"
        told(point(2, validation_loss=1.7))
    assert history(home, "validation_loss") == [(2, 1.7, 1_700_000_002_000)]
    assert history(home, "tokens_per_second") == [(1, 10.0, 1_700_000_001_000)]
    run = run_of(home)
    assert run.info.run_name == f"2024-06-01 {A[:8]}"
    assert {name: run.data.tags[name] for name in ("training_id", "dagster_run")} == {
        "training_id": A,
        "dagster_run": "dagster-1",
    }


def test_a_resumed_training_and_its_registration_add_what_is_missing(
    home: Home, bundle_of: Callable[[str], Path], evaluation_of: Callable[..., Evaluation], monkeypatch: Any
) -> None:
    monkeypatch.setattr(curves, "_PATIENCE", 120)
    with pytest.raises(KeyboardInterrupt), live_curves(home, "dagster-1") as told:
        told(FIRST)
        told(point(1, loss=2.0))
        raise KeyboardInterrupt
    assert run_of(home).info.status == "FAILED"
    with live_curves(home, "dagster-2") as told:
        told(FIRST)
        told(point(1, loss=2.0) | {"at": BEGAN + 100})
        told(point(1, validation_loss=1.9))
    Registry(home).register(bundle_of(A), evaluation_of(A), "dagster-2")
    assert [(step, value) for step, value, _ in history(home, "loss")] == [(1, 2.0), (2, 1.5)]
    assert history(home, "loss")[0][2] == 1_700_000_001_000
    assert [(step, value) for step, value, _ in history(home, "validation_loss")] == [(1, 1.9), (2, 1.7)]
    before = history(home, "loss")
    Registry(home).register(bundle := home.lake.path("challenger/2024-06-01", A), evaluation_of(A, accuracy=0.95))
    assert bundle.exists()
    assert history(home, "loss") == before
    assert run_of(home).info.status == "FINISHED"
    assert run_of(home).data.tags["dagster_run"] == "dagster-2"


def test_an_mlflow_that_does_not_answer_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(curves, "_PATIENCE", 120)
    home = Home(tmp_path, EMBEDDED.model_copy(update={"mlflow": "http://127.0.0.1:9"}))
    with live_curves(home, "dagster-1") as told:
        told(FIRST)
        told(point(1, loss=2.0))
    assert caplog.text.count("the curves of the training will be in MLflow once it is registered: MLflow at http") == 1


def test_nothing_is_started_for_a_training_that_says_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "tracking_of", None)
    with live_curves(home, "dagster-1"):
        pass
    assert tracking_of(home).client.get_experiment_by_name("text-classifier") is None
