"""Kills training runs at random times and counts how many end bitwise equal to a run that was never killed.

SIGKILL is sent to a rank, to the launcher or to all processes, at a random time or during the writes of a checkpoint
(before the nth call that writes to disk, or in the middle of a file). A killed run is restarted until it finishes.
Workers are forked from a process with all imports done, so that a start takes a second. `--kills N` sets the number.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from assets.training.program.process import lean_imports, use_cores

use_cores()
lean_imports()

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from assets.features.snapshot import Snapshot
from assets.hashing import hash_file
from assets.settings import TrainingSettings, load_domain, load_settings
from assets.training.base_model import resolve_base_model
from assets.training.launchers.launch import override, plan_training
from assets.training.program import checkpoints, output, saving, worker  # noqa: F401 - before the forks
from assets.training.tasks.classification import data, model  # noqa: F401 - before the forks

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

ROWS = 256
FEATURES = ("company_labels", *(f"company_share_{label}" for label in LABELS))


@dataclass
class Case:
    """One stage on one number of ranks, and how its runs went."""

    stage: str
    ranks: int
    folder: Path
    snapshot: Snapshot
    settings: TrainingSettings
    seconds: float = 0.0
    weights: str = ""
    runs: int = 0
    kills: int = 0
    resumed: int = 0
    equal: int = 0

    def plan(self, name: str) -> Path:
        (self.folder / name).mkdir()
        changes = {"deepspeed": self.stage, "ranks": self.ranks}
        settings, saved = override(self.settings, changes), self.folder / f"{name}-saved"
        plan = plan_training(self.snapshot, settings, self.folder / name, saved)
        (self.folder / f"{name}.json").write_text(plan.model_dump_json())
        return self.folder / f"{name}.json"


def prepare(folder: Path) -> tuple[Snapshot, TrainingSettings]:
    """A random encoder of two layers, and random texts whose labels are random: what is learned does not matter."""
    from transformers import BertConfig, BertModel

    base = resolve_base_model("all-MiniLM-L6-v2").path
    torch.manual_seed(0)
    BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    ).save_pretrained(folder / "encoder")
    shutil.copyfile(base / "tokenizer.json", folder / "encoder" / "tokenizer.json")
    dice = np.random.default_rng(0)
    words = np.array(["they", "never", "told", "me", "about", "account", "card", "loan", "report", "XXXX"])
    columns: dict[str, Any] = {
        "label": dice.choice(LABELS, ROWS).tolist(),
        "text": [" ".join(dice.choice(words, dice.integers(3, 30))) for _ in range(ROWS)],
        "company": dice.choice(["ACME BANK", "LENDER, INC."], ROWS).tolist(),
        "state": dice.choice(["CA", "NY"], ROWS).tolist(),
        **{name: dice.random(ROWS) for name in FEATURES},
    }
    pq.write_table(pa.table(columns), folder / "train.parquet")
    manifest = {"snapshot_id": "0" * 16, "domain": DOMAIN.model_dump(mode="json")}
    snapshot = Snapshot("0" * 16, "2024-01-01", folder, FEATURES, ROWS, 0, 0, manifest)
    changes = {
        **{"base_model": str(folder / "encoder"), "max_tokens": 32, "hashed_words": 512, "trainable_layers": None},
        **{"epochs": 6.0, "batch_rows": 16, "checkpoint_seconds": 0.02},
    }
    return snapshot, override(load_settings("quick").training, changes)


def start(plan: Path, ranks: int, fault: int | None) -> list[int]:
    """Fork a launcher, which forks the ranks; returns their process ids, the launcher's first."""
    reader, writer = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        try:
            launch(plan, ranks, fault, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return [launcher, *map(int, pipe.readline().split())]


def launch(plan: Path, ranks: int, fault: int | None, writer: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = os.open(plan.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    children = [fork_rank(plan, rank, ranks, port, fault) for rank in range(ranks)]
    os.write(writer, (" ".join(map(str, children)) + "\n").encode())
    os.close(writer)
    for _ in range(ranks):
        rank, status = os.wait()
        children.remove(rank)
        if status:  # as the launchers do: when one rank fails, all end
            for child in children:
                os.kill(child, signal.SIGKILL)
            os._exit(1)
    os._exit(0)


def fork_rank(plan: Path, rank: int, ranks: int, port: int, fault: int | None) -> int:
    child = os.fork()
    if child:
        return child
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if fault is not None and rank == fault % ranks:
        inject(fault)
    status = 1
    try:
        status = worker.main(plan)
    finally:
        os._exit(status)


def inject(fault: int) -> None:
    """Have this process killed at the given call of those that write checkpoints; inside a file for every third."""
    left = fault

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                if function is torch_save and fault % 3 == 0:
                    args[1].write(os.urandom(1000))
                    args[1].flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    torch_save = torch.save
    torch.save = counted(torch_save)
    saving.sync, saving.write_atomically = counted(saving.sync), counted(saving.write_atomically)
    checkpoints.sync, checkpoints.write_atomically = counted(checkpoints.sync), counted(checkpoints.write_atomically)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]


def finish(processes: list[int]) -> bool:
    """Wait for a run; whether it ended well."""
    ended = os.waitstatus_to_exitcode(os.waitpid(processes[0], 0)[1])
    for rank in processes[1:]:  # the kernel ends them with their launcher; see that it has
        while Path(f"/proc/{rank}").exists():
            time.sleep(0.01)
    return ended == 0


def kill(case: Case, plan: Path, dice: random.Random) -> None:
    """One run that is killed before its end, unless it was faster."""
    in_a_write = dice.random() < 0.5
    processes = start(plan, case.ranks, dice.randint(1, 60) if in_a_write else None)
    if not in_a_write:
        time.sleep(dice.uniform(0.3, 1.0) * case.seconds)
        for victim in dice.choice([[p] for p in processes] + [processes]):
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
    case.kills += not finish(processes)


def trial(case: Case, dice: random.Random) -> None:
    """A run that is killed up to four times and then left to end."""
    plan = case.plan(f"run-{case.runs}")
    case.runs += 1
    weights = case.folder / plan.stem / "model.safetensors"
    for _ in range(dice.randint(1, 4)):
        kill(case, plan, dice)
        if weights.exists() and (weights.parent / "MANIFEST.json").exists():
            break
    else:
        if not finish(start(plan, case.ranks, None)):
            sys.exit(f"a run could not be finished: {plan.with_suffix('.log').read_text()[-2000:]}")
    case.resumed += plan.with_suffix(".log").read_text().count("resumed at step")
    case.equal += hash_file(weights) == case.weights
    shutil.rmtree(case.folder / f"{plan.stem}-saved", ignore_errors=True)


def reference(case: Case) -> None:
    """The run that is never killed, twice: the second has nothing to load for the first time."""
    for name in ("first", "reference"):
        started = time.perf_counter()
        assert finish(start(case.plan(name), case.ranks, None))
        case.seconds = time.perf_counter() - started
        case.weights = hash_file(case.folder / name / "model.safetensors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=320)
    parser.add_argument("--stages", nargs="+", default=["zero-0", "zero-1", "zero-2", "zero-3"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    dice, cases = random.Random(asked.seed), [(s, r) for s in asked.stages for r in asked.ranks]
    print(f"{'':<8} {'ranks':>5} {'runs':>5} {'kills':>6} {'resumed':>8} {'equal':>6}")
    whole = True
    with tempfile.TemporaryDirectory() as name:
        snapshot, settings = prepare(Path(name))
        for stage, ranks in cases:
            folder = Path(name) / f"{stage}-{ranks}"
            folder.mkdir()
            case = Case(stage, ranks, folder, snapshot, settings)
            reference(case)
            while case.kills < asked.kills / len(cases):
                trial(case, dice)
            line = f"{stage:<8} {ranks:>5} {case.runs:>5} {case.kills:>6} {case.resumed:>8} {case.equal:>6}"
            print(line, flush=True)
            whole = whole and case.equal == case.runs
    print("every finished run is bitwise equal" if whole else "NOT every finished run is bitwise equal")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
