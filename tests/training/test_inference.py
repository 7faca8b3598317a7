"""The classifier with its encoder run by OpenVINO: the same answers, or torch."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from assets.features.snapshot import Snapshot
from assets.training.bundle import Bundle
from assets.training.tasks.classification import inference, predictor
from assets.training.tasks.classification.inference import compile_classifier
from assets.training.tasks.classification.predictor import TextPredictor


@pytest.fixture(scope="module")
def rows_to_route(snapshot: Snapshot) -> pd.DataFrame:
    return snapshot.test()


@pytest.fixture
def fresh(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> TextPredictor:
    """The model as it was loaded, which compiles its encoder from the first row on."""
    monkeypatch.setattr(predictor, "_WORTH_COMPILING", 1)
    return replace(bundle.predictor, _compiled={})


def test_openvino_gives_the_answers_of_torch(fresh: TextPredictor, rows_to_route: pd.DataFrame) -> None:
    pytest.importorskip("openvino")
    exact = replace(fresh, _compiled={"float32": fresh.classifier}).predict_proba(rows_to_route)
    for batch_tokens in (1, 100, 2048):
        assert np.abs(fresh.predict_proba(rows_to_route, batch_tokens) - exact).max() < 1e-5
    assert fresh._compiled["float32"] is not fresh.classifier
    fast = fresh.predict_proba(rows_to_route, precision="bfloat16")
    assert (fast.argmax(axis=1) == exact.argmax(axis=1)).all()


def test_every_core_has_its_batches_and_torch_its_threads_afterwards(
    fresh: TextPredictor, rows_to_route: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    cores, used = torch.get_num_threads(), set()
    forward = inference._CompiledEncoder.forward

    def watched(encoder: Any, **batch: Any) -> Any:
        used.add((threading.get_ident(), torch.get_num_threads()))
        return forward(encoder, **batch)

    monkeypatch.setattr(inference._CompiledEncoder, "forward", watched)
    fresh.compile("bfloat16")
    assert fresh._compiled["bfloat16"].encoder._compiled.get_property("NUM_STREAMS") == cores
    used.clear()
    fresh.predict_proba(rows_to_route, batch_tokens=1, precision="bfloat16")
    assert {threads for _, threads in used} == {1}
    assert threading.get_ident() not in {ident for ident, _ in used}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == cores


def test_few_rows_are_not_worth_compiling(bundle: Bundle, rows_to_route: pd.DataFrame) -> None:
    fresh = replace(bundle.predictor, _compiled={})
    fresh.predict_proba(rows_to_route, precision="bfloat16")
    assert fresh._compiled == {}


def test_close_calls_are_settled_in_float32(
    fresh: TextPredictor, rows_to_route: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier that is less sure of everything: what it finds close is answered anew."""
    exact = fresh.predict_proba(rows_to_route)
    lead = predictor._lead(exact)
    monkeypatch.setattr(predictor, "_CLOSE_CALL", float(np.median(lead)))

    class Flat:
        encoder, output = fresh.classifier.encoder, fresh.classifier.output

        def __call__(self, **batch: Any) -> Any:
            return 0.9 * fresh.classifier(**batch)

    fresh._compiled["bfloat16"] = Flat()
    fast = fresh.predict_proba(rows_to_route, precision="bfloat16")
    same = np.abs(fast - exact).max(axis=1) < 1e-5
    assert same[lead < np.median(lead)].all()
    assert not same.all()


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is this CPU: what is moved to it is a copy, as there."""
    monkeypatch.setattr(inference, "gpu", lambda: torch.device("cpu"))


def test_a_gpu_gives_the_answers_of_the_cpu(fresh: TextPredictor, rows_to_route: pd.DataFrame, fake_gpu: None) -> None:
    exact = replace(fresh, _compiled={"float32": fresh.classifier}).predict_proba(rows_to_route)
    assert np.abs(fresh.predict_proba(rows_to_route) - exact).max() < 1e-5
    fast = fresh.predict_proba(rows_to_route, precision="bfloat16")
    assert 0 < np.abs(fast - exact).max() < 0.05
    assert (fast.argmax(axis=1) == exact.argmax(axis=1)).all()
    moved = fresh._compiled["bfloat16"]
    assert next(moved.encoder.parameters()).dtype == torch.bfloat16
    assert {weight.dtype for weight in (*fresh.classifier.parameters(), moved.output.weight)} == {torch.float32}


def test_the_cpu_scores_where_a_gpus_answers_differ(
    fresh: TextPredictor, fake_gpu: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(inference._TOLERANCE, "bfloat16", 1e-12)
    assert compile_classifier(fresh.classifier, "bfloat16") is fresh.classifier
    assert "the GPU cannot be used, the CPU scores: its answers differ" in caplog.text


def test_torch_scores_where_openvino_is_not_installed(fresh: TextPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert compile_classifier(fresh.classifier, "bfloat16") is fresh.classifier


def test_torch_scores_where_the_encoder_cannot_be_converted(
    fresh: TextPredictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("openvino.convert_model", fail)
    assert compile_classifier(fresh.classifier, "float32") is fresh.classifier
    assert "no such operator" in caplog.text


def test_torch_scores_where_the_answers_differ(
    fresh: TextPredictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setitem(inference._TOLERANCE, "float32", 1e-12)
    assert compile_classifier(fresh.classifier, "float32") is fresh.classifier
    assert "differ from torch's" in caplog.text


def test_nothing_is_reported_over_the_network() -> None:
    """Even where OpenVINO's telemetry is installed, it is not loaded."""
    pytest.importorskip("openvino")
    code = (
        "import sys; tried = []\n"
        "def hook(event, _):\n    if event in ('socket.connect', 'socket.getaddrinfo'): tried.append(event)\n"
        "sys.addaudithook(hook)\n"
        "import transformers, assets.training.tasks.classification.inference as inference\n"
        "config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)\n"
        "encoder = transformers.BertModel(config).eval()\n"
        "inference._compile(encoder, 'float32')\n"
        "print(tried, sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] None"
