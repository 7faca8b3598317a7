"""The memory of trainings by ZeRO file: what 7 billion parameters need, and small models beside their estimate.

python bench/sizes.py [PART ...] [--rows N]

    seven      the tables of docs/scale.md, in 10^9 bytes, by the estimate that is made before a training starts
    measured   the peak of a rank on CPU, of MiniLM and of a BERT base with random weights, beside that estimate
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from assets.settings import TrainingSettings, load_settings
from assets.training.launchers.estimate import Memory, estimate_memory
from assets.training.launchers.launch import _deepspeed_config, override
from assets.training.model_size import ModelSize

FILES = ("zero-0", "zero-1", "zero-2", "zero-3", "zero-2-offload", "zero-3-offload", "zero-3-nvme")
GPUS, OF_A_MACHINE, GPU_BYTES = (1, 2, 4, 8, 16), 8, 80e9
MEASURED = [("zero-0", 1), ("zero-2", 1), ("zero-2-offload", 1), ("zero-1", 2), ("zero-2", 2), ("zero-3", 2)]
CHANGES = {"max_tokens": 512, "batch_tokens": 4096, "batch_rows": 128, "hashed_words": 0, "nvme": "/nvme"}
SEVEN = ModelSize(
    trained=6_444_154_880,
    frozen=133_169_152,
    layers=32,
    trained_layers=32,
    layer_parameters=201_379_840,
    hidden=4096,
    intermediate=16384,
    heads=32,
    largest=131_072_000,
)
"""32 layers of BERT's shape, 4,096 wide, with 32,000 words and 512 positions, whose embeddings are not trained."""


def settings(precision: str, again: bool = True) -> TrainingSettings:
    """Those of the tables: micro-batches of eight rows of 512 tokens."""
    changes = CHANGES | {"precision": precision, "activation_checkpointing": again}
    return override(load_settings("gpu-8").training, changes)


def needed(file: str, precision: str, gpus: int, again: bool = True) -> Memory:
    return estimate_memory(SEVEN, settings(precision, again), _deepspeed_config(file), gpus, has_gpu=True)


def device(memory: Memory) -> float:
    return sum(memory.device.values())


def gigabytes(count: float, fits: bool = False) -> str:
    text = f"{count / 1e9:,.1f}"
    return f"**{text}**" if fits else text


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(head: list[str], rows: Iterator[list[str]]) -> str:
    return "\n".join([row(head), f"|---|{'---:|' * (len(head) - 1)}", *map(row, rows)])


def on_gpus(precision: str) -> Iterator[list[str]]:
    """The memory of each GPU, and of the fullest machine."""
    for file in FILES:
        cells = [f"`{file}`"]
        for gpus in GPUS:
            memory = needed(file, precision, gpus)
            host = sum(memory.host.values()) * min(gpus, OF_A_MACHINE)
            cells.append(f"{gigabytes(device(memory), device(memory) <= GPU_BYTES)}, {gigabytes(host)}")
        yield cells


def by_content() -> Iterator[list[str]]:
    """What one GPU of eight has, in bf16."""
    for file in FILES:
        found = needed(file, "bf16", OF_A_MACHINE).device
        states = [found.get(part, 0) for part in ("weights", "gradients", "optimizer", "step")]
        rest = sum(found.values()) - sum(states) - found["activations"]
        yield [f"`{file}`", *map(gigabytes, [*states, found["activations"], rest, sum(found.values())])]


def seven(_: argparse.Namespace) -> None:
    heads = [f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS]
    for precision in ("bf16", "fp32"):
        print(f"{precision}\n\n{table([precision, *heads], on_gpus(precision))}\n")
    head = ["bf16, 8 GPUs", "weights", "gradients", "states", "step", "activations", "rest", "in all"]
    print(table(head, by_content()))
    kept = needed("zero-3", "bf16", OF_A_MACHINE, again=False).device["activations"]
    print(f"\nWithout activation checkpointing the activations are {gigabytes(kept)} instead.")


def inputs(folder: Path, rows: int, layers: int, hidden: int) -> None:
    """Training rows, and a BERT with random weights and the default encoder's words."""
    from peers.rows import write_rows
    from transformers import BertConfig, BertModel

    from assets.training.base_model import DEFAULT, resolve_base_model

    write_rows(folder, rows)
    words = resolve_base_model(DEFAULT).path
    shutil.copytree(words, folder / "encoder", ignore=shutil.ignore_patterns("*.safetensors"))
    shape = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 4 * hidden}
    BertModel(BertConfig(num_attention_heads=hidden // 64, **shape)).save_pretrained(folder / "encoder")


def measured(options: argparse.Namespace) -> None:
    from training import make_plan

    from assets.training.launchers.processes import worker_command
    from assets.training.tasks import TASKS

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak begins with its parent's.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(inputs, folder, 4 * options.rows, 12, 768).result()
        encoders = {"MiniLM": "all-MiniLM-L6-v2", "BERT base": str(folder / "encoder")}
        changes = {"batch_rows": options.rows, "hashed_words": 0, "checkpoint_seconds": 1e6}
        for encoder, (file, ranks) in [(encoder, each) for encoder in encoders for each in MEASURED]:
            plan = make_plan(folder, **changes, deepspeed=file, ranks=ranks, base_model=encoders[encoder])
            (folder / "plan.json").write_text(plan.model_dump_json())
            command = worker_command(folder / "plan.json", ranks, None)
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found = json.loads((plan.output / "training.json").read_text())["peak_memory"]["host"]
            size = TASKS[plan.task].size(plan)
            total = estimate_memory(size, plan.settings, plan.deepspeed, ranks, has_gpu=False).total
            print(row([encoder, f"`{file}`", str(ranks), *(f"{n / 1e6:,.0f}" for n in (total, found)),
                       f"{total / found:.2f}"]), flush=True)  # fmt: skip
            shutil.rmtree(plan.output)


PARTS = {"seven": seven, "measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART")
    parser.add_argument("--rows", type=int, default=8, help="rows of a step")
    options = parser.parse_args()
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
