"""docs/scale.md says what the code computes: its tables by bench/sizes.py, and the defaults that it reckons with."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

from assets.settings import load_serving_settings, load_settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "scale.md").read_text()


@pytest.fixture(scope="module")
def sizes() -> str:
    """What `python bench/sizes.py seven` prints."""
    command = [sys.executable, "bench/sizes.py", "seven"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_tables_are_those_of_the_estimate(sizes: str) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", sizes, re.M)
    assert len(tables) == 3
    for table in tables:
        assert table in PAGE, f"docs/scale.md needs this table, of bench/sizes.py seven:\n{table}"
    (kept,) = re.findall(r"activations are ([\d.]+)", sizes)
    assert f"without it they are {kept} GB" in " ".join(PAGE.split())


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_what_is_not_offloaded_is_no_less_than_deepspeed_says(sizes: str, gpus: int) -> None:
    """Its own estimate has nothing but weights, gradients, states and step and, for stage 3, no weights but a layer."""
    place = (1, 2, 4, 8, 16).index(gpus)

    def ours(file: str) -> float:
        (row,) = re.findall(rf"^\| `{file}` \| (.*) \|$", sizes.partition("fp32")[0], re.M)
        return float(row.split(" | ")[place].partition(",")[0].strip("*"))

    parameters, layer = 6_577_324_032, 201_379_840
    two = estimate_zero2_model_states_mem_needs(parameters, gpus, 1, cpu_offload=False)[1] / 1e9
    three = estimate_zero3_model_states_mem_needs(parameters, layer, gpus, 1, cpu_offload=False)[1] / 1e9
    assert ours("zero-2") == pytest.approx(two, rel=0.06)
    assert 0 < ours("zero-3") - (three + 2 * parameters / gpus / 1e9) < 3


def test_the_page_reckons_with_the_defaults() -> None:
    settings, serving = load_settings("full"), load_serving_settings()
    said = [
        f"`window_days: {settings.scoring.window_days}`, the default",
        f"at most {settings.snapshot.max_train_rows:,}",
        f"the queue of `serve` ({serving.queue_records} records)",
        f"more than {serving.records_per_second:.0f} a second",
        f"`served_days` ({settings.retention.served_days})",
        f"`runs` ({settings.retention.runs})",
        f"test rows ({settings.snapshot.test_rows:,})",
        f"at most {settings.drift.sample_rows:,} are compared",
    ]
    text = " ".join(PAGE.split())
    assert not [words for words in said if words not in text]
