"""What a bundle holds, what it refuses, and what it answers."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.exceptions import BundleError
from assets.features.snapshot import Snapshot
from assets.settings import QUEUES
from assets.training.bundle import FILES, Bundle, load_bundle, verify_bundle, write_manifest


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_path, tmp_path / "bundle")


@pytest.fixture(scope="module")
def rows_to_route(snapshot: Snapshot) -> pd.DataFrame:
    return snapshot.test()


def test_it_is_safetensors_and_json_and_nothing_else(bundle_path: Path) -> None:
    assert {file.name for file in bundle_path.iterdir()} == {*FILES, "MANIFEST.json"}
    json.loads((bundle_path / "config.json").read_text())
    assert all(path.suffix in (".json", ".safetensors") for path in bundle_path.iterdir())


def test_nothing_in_it_names_a_place_on_this_machine(bundle_path: Path, encoder: Path) -> None:
    for name in ("config.json", "preprocessing.json", "tokenizer.json", "training.json"):
        assert str(encoder.parent) not in (bundle_path / name).read_text()


@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
def test_a_changed_byte_in_any_file_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError):
        verify_bundle(copy)
    with pytest.raises(BundleError):
        load_bundle(copy)


@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        verify_bundle(copy)


def test_a_file_that_nobody_wrote_is_found(copy: Path) -> None:
    (copy / "modeling.py").write_text("")
    with pytest.raises(BundleError, match=r"modeling\.py is not in MANIFEST\.json"):
        verify_bundle(copy)


def test_loading_runs_no_code_of_the_artifact(copy: Path, tmp_path: Path) -> None:
    """Even a bundle whose manifest agrees with a planted module and a configuration that points to it."""
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "planted.Planted", "AutoConfig": "planted.Planted"}
    config["encoder"]["auto_map"] = config["auto_map"]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (copy / "MANIFEST.json").unlink()
    write_manifest(copy)
    load_bundle(copy)
    assert not (tmp_path / "ran").exists()


def test_answers_are_probabilities_in_the_order_of_the_rows(bundle: Bundle, rows_to_route: pd.DataFrame) -> None:
    answers = bundle.predict_proba(rows_to_route)
    assert answers.shape == (len(rows_to_route), len(QUEUES))
    assert answers.dtype == np.float64
    assert answers.sum(axis=1) == pytest.approx(np.ones(len(rows_to_route)))
    backwards = bundle.predict_proba(rows_to_route.iloc[::-1])
    assert np.abs(answers[::-1] - backwards).max() < 1e-5


@pytest.mark.parametrize("batch_tokens", [1, 100])
def test_an_answer_does_not_depend_on_the_batch(bundle: Bundle, rows_to_route: pd.DataFrame, batch_tokens: int) -> None:
    assert np.abs(bundle.predict_proba(rows_to_route) - bundle.predict_proba(rows_to_route, batch_tokens)).max() < 1e-5


def test_it_learned_something(bundle: Bundle, frame: pd.DataFrame) -> None:
    predicted = np.array(QUEUES)[bundle.predict_proba(frame).argmax(axis=1)]
    assert (predicted == frame["queue"]).mean() > 0.5


def test_rows_to_route_without_text_or_history_have_an_answer(bundle: Bundle, rows_to_route: pd.DataFrame) -> None:
    bare = rows_to_route.iloc[:3].copy()
    bare[list(bundle.features)] = np.nan
    bare[["narrative", "company", "state"]] = None
    assert np.isfinite(bundle.predict_proba(bare)).all()


def test_no_rows_have_no_answers(bundle: Bundle, rows_to_route: pd.DataFrame) -> None:
    assert bundle.predict_proba(rows_to_route.iloc[:0]).shape == (0, len(QUEUES))


def test_its_provenance_says_what_it_was_made_of(bundle: Bundle, bundle_path: Path, snapshot: Snapshot) -> None:
    assert bundle.id == bundle_path.name == bundle.provenance["training_id"]
    assert bundle.provenance["snapshot_id"] == snapshot.id
    assert bundle.provenance["world_size"] == 1
    assert bundle.provenance["threads"] == len(os.sched_getaffinity(0))
    assert bundle.features == snapshot.features
