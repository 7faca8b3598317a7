"""A model that is too large for one rank: two of them read it, and neither ever has it whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose weights, all nothing, are 250 MB in float32."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("large")
    config = BertConfig(
        vocab_size=1000, hidden_size=1024, num_hidden_layers=5, num_attention_heads=16, intermediate_size=4096
    )
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in BertModel(config, add_pooling_layer=False).named_parameters()}
    config.save_pretrained(folder)
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    return folder


def grown(folder: Path, how: str) -> float:
    """By how much the second rank's peak has grown, as a share of the weights in float32."""
    command = ["assets.training.launchers.launcher", "torch", "--standalone", "--nproc-per-node=2", "--module"]
    program = ["tests.training.sharding_worker", str(folder), how]
    given_back = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # malloc would keep more or less of what was freed
    done = subprocess.run(
        [sys.executable, "-m", *command, *program], cwd=ROOT, env=given_back, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int((folder / "grown-1").read_text()) / (folder / "model.safetensors").stat().st_size


@pytest.mark.slow
def test_no_rank_has_the_whole_model(large: Path) -> None:
    assert grown(large, "whole") > 0.9
    assert grown(large, "in parts") < 0.5  # a quarter of it is its part in bf16, the rest no weights
