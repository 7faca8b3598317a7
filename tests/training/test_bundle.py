"""What a bundle holds, what it refuses, and what it answers."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.exceptions import BundleError
from assets.features.snapshot import Snapshot
from assets.settings import load_domain
from assets.training.bundle import Bundle, files_of, load_bundle, verify_bundle, write_manifest
from assets.training.tasks import TASKS
from assets.training.tasks.classification.bert import Bert

LABELS = tuple(load_domain().labels)
TASK = TASKS["classification"]
FILES = files_of(TASK)


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
    with pytest.raises(BundleError, match=r"modeling\.py is no file of a bundle"):
        verify_bundle(copy)


@pytest.mark.parametrize("manifest", [{}, {"task": "planted.Task", "files": {}}, {"task": "classification"}])
def test_a_manifest_without_a_task_that_is_known_is_refused(copy: Path, manifest: dict[str, Any]) -> None:
    (copy / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"names no task that is known here \(classification\), or no files"):
        load_bundle(copy)


def configure(copy: Path, changes: dict[str, Any], inner: dict[str, Any]) -> None:
    """Change a bundle's configuration and its manifest with it, as whoever made the bundle can."""
    config = json.loads((copy / "config.json").read_text())
    config["encoder"] |= inner
    (copy / "config.json").write_text(json.dumps(config | changes))
    sign(copy)


def sign(copy: Path) -> None:
    (copy / "MANIFEST.json").unlink()
    write_manifest(copy, TASK)


def test_loading_runs_no_code_of_the_artifact(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that points to a module, which lies where it would be found."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    auto_map = {"auto_map": {"AutoModel": "planted.Planted", "AutoConfig": "planted.Planted"}}
    configure(copy, auto_map, auto_map)
    load_bundle(copy)
    (copy / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    sign(copy)
    with pytest.raises(BundleError, match=r"planted\.py is no file of a bundle"):
        load_bundle(copy)
    assert not (tmp_path / "ran").exists()


def test_what_its_configuration_says_about_attention_is_not_obeyed(copy: Path) -> None:
    other = {"_attn_implementation": "eager", "attn_implementation": "kernels-community/attention"}
    configure(copy, other, other)
    assert isinstance(load_bundle(copy).predictor.classifier.encoder, Bert)


@pytest.mark.parametrize(
    ("changes", "inner", "message"),
    [
        ({}, {"num_hidden_layers": 100_000}, "num_hidden_layers is 100,000"),
        ({}, {"hidden_size": 32_000}, "asks for 8,.* weights, the files have"),
        ({"hashed_words": 10**9}, {}, "asks for 9,.* weights, the files have"),
        ({}, {"model_type": "planted"}, "cannot be loaded"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, {}, "quantization_config is not supported"),
        ({"labels": ["a"] * 9}, {}, "name other labels"),
    ],
)
def test_a_configuration_that_its_weights_do_not_fit_is_one_line(
    copy: Path, changes: dict[str, Any], inner: dict[str, Any], message: str
) -> None:
    configure(copy, changes, inner)
    with pytest.raises(BundleError, match=message) as error:
        load_bundle(copy)
    assert "\n" not in str(error.value)


def test_missing_tensors_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    left = {"spare" if name == "output.weight" else name: weight for name, weight in weights.items()}
    save_file(left, copy / "model.safetensors", metadata={"format": "pt"})
    sign(copy)
    with pytest.raises(BundleError, match=r"the files lack output\.weight"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("preprocessing.json", content) for content in ("", "[]", "{}", '{"unknown": 1}')),
        *(("tokenizer.json", content) for content in ("", "[]", "{}")),
        *(("provenance.json", content) for content in ("", "[]")),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(copy: Path, name: str, content: str) -> None:
    (copy / name).write_text(content)
    sign(copy)
    with pytest.raises(BundleError, match="cannot be loaded") as error:
        load_bundle(copy)
    assert "\n" not in str(error.value)


def test_links_pipes_and_folders_are_refused(copy: Path, tmp_path: Path) -> None:
    weights = (copy / "model.safetensors").rename(tmp_path / "elsewhere")
    odd = copy / "model.safetensors"
    for make in (
        lambda: odd.symlink_to(weights),
        lambda: odd.symlink_to("/nowhere"),
        lambda: odd.symlink_to(tmp_path),
        lambda: os.mkfifo(odd),
        odd.mkdir,
    ):
        make()
        with pytest.raises(BundleError, match=r"model\.safetensors is not a plain file"):
            verify_bundle(copy)
        odd.rmdir() if odd.is_dir() and not odd.is_symlink() else odd.unlink()
    shutil.copy(weights, odd)
    verify_bundle(copy)
    (copy / "stray").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="stray is not a plain file"):
        verify_bundle(copy)


def test_answers_are_probabilities_in_the_order_of_the_rows(bundle: Bundle, rows_to_route: pd.DataFrame) -> None:
    answers = bundle.predict_proba(rows_to_route)
    assert answers.shape == (len(rows_to_route), len(LABELS))
    assert answers.dtype == np.float64
    assert answers.sum(axis=1) == pytest.approx(np.ones(len(rows_to_route)))
    backwards = bundle.predict_proba(rows_to_route.iloc[::-1])
    assert np.abs(answers[::-1] - backwards).max() < 1e-5


@pytest.mark.parametrize("batch_tokens", [1, 100])
def test_an_answer_does_not_depend_on_the_batch(bundle: Bundle, rows_to_route: pd.DataFrame, batch_tokens: int) -> None:
    assert np.abs(bundle.predict_proba(rows_to_route) - bundle.predict_proba(rows_to_route, batch_tokens)).max() < 1e-5


def test_it_learned_something(bundle: Bundle, frame: pd.DataFrame) -> None:
    predicted = np.array(LABELS)[bundle.predict_proba(frame).argmax(axis=1)]
    assert (predicted == frame["label"]).mean() > 0.5


def test_rows_to_route_without_text_or_history_have_an_answer(bundle: Bundle, rows_to_route: pd.DataFrame) -> None:
    bare = rows_to_route.iloc[:3].copy()
    bare[list(bundle.features)] = np.nan
    bare[["text", "company", "state"]] = None
    assert np.isfinite(bundle.predict_proba(bare)).all()


def test_no_rows_have_no_answers(bundle: Bundle, rows_to_route: pd.DataFrame) -> None:
    assert bundle.predict_proba(rows_to_route.iloc[:0]).shape == (0, len(LABELS))


def test_its_provenance_says_what_it_was_made_of(bundle: Bundle, bundle_path: Path, snapshot: Snapshot) -> None:
    assert bundle.id == bundle_path.name == bundle.provenance["training_id"]
    assert bundle.provenance["snapshot_id"] == snapshot.id
    assert bundle.provenance["world_size"] == 1
    assert bundle.provenance["threads"] == len(os.sched_getaffinity(0))
    assert bundle.features == snapshot.features
