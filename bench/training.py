"""Training compared with its peers, each ratio measured in one run; by default all but `deepspeed`.

    engine      our DeepSpeed engine against a plain PyTorch loop: the same model, batches and precision, interleaved
    checkpoint  blocks of steps with one checkpoint against blocks without, as a share of a minute
    startup     launching the worker until its first step against importing torch and transformers
    trainer     useful tokens/s, and seconds to one validation loss, against HF Trainer on the same texts
    deepspeed   useful tokens/s, share of the peak and memory against HF Trainer with DeepSpeed, in the same batches

Rows are the real records of ../shared/data/cfpb if present, else simulated. `--rows N` sets their number; `--folder F`
reads F/train.parquet. All peers use the encoder of configs/training.yaml, profile full, and all cores. With a GPU,
`engine` and `deepspeed` use it, with the profile gpu.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from assets.training.program.process import keep_memory, lean_imports, use_cores

VALIDATION, EVALUATIONS = 400, 6
GOALS = {"engine": 0.9, "checkpoint": 0.03, "startup": 1.4, "stock": 4.0, "bf16": 1.5}


def make_plan(folder: Path, profile: str = "full", **changes: Any) -> Any:
    """A profile over the folder's rows, one pass, without features: what the peers read, too."""
    import pyarrow.parquet as pq

    from assets.features.snapshot import Snapshot
    from assets.settings import load_domain, load_settings
    from assets.training.launchers.launch import override, plan_training

    rows = pq.ParquetFile(folder / "train.parquet").metadata.num_rows
    snapshot = Snapshot(
        "0" * 16,
        "2024-01-01",
        folder,
        (),
        rows,
        0,
        0,
        {"snapshot_id": "0" * 16, "domain": load_domain().model_dump(mode="json")},
    )
    settings = override(load_settings(profile).training, {"epochs": 1.0, **changes})
    (folder / "out").mkdir(exist_ok=True)
    return plan_training(snapshot, settings, folder / "out", folder / "home")


def make_classifier(plan: Any, data: Any) -> Any:
    import torch

    from assets.training.tasks.classification.model import freeze, new_classifier

    torch.manual_seed(0)
    classifier = new_classifier(plan.base_model, data.preprocessing)
    freeze(classifier, plan.settings.model.trainable_layers, plan.settings.model.train_embeddings)
    return classifier


def start(plan: Any, data: Any) -> Any:
    """The worker's engine around the classifier."""
    import torch

    from assets.training.program.engine import make_model, start_engine
    from assets.training.tasks import TASKS

    torch.manual_seed(0)
    return start_engine(TASKS[plan.task], make_model(TASKS[plan.task], plan, data), plan, data.trained)


def our_loop(plan: Any, data: Any) -> tuple[Any, Callable[[int], None]]:
    from assets.training.program.batches import Sampler
    from assets.training.program.engine import Agreement
    from assets.training.program.fit import make_step, take_step
    from assets.training.tasks import TASKS

    engine, task = start(plan, data), TASKS[plan.task]
    engine.train()
    sampler, agreement = Sampler.of(data, plan.settings, 1), Agreement(engine, 1)
    objective = task.objective(data).to(engine.device)

    def step(number: int) -> None:
        loss = take_step(engine, objective, make_step(engine, task, data, sampler, number))
        agreement.answer()
        agreement.ask(loss, [0.0])

    return engine, step


def alone(plan: Any) -> Any:
    """This process as the run's only rank, and its data."""
    from assets.training.program.engine import join_processes
    from assets.training.tasks import TASKS

    join_processes(1, use_cores())
    return TASKS[plan.task].data(plan)


def timed(work: Callable[[], Any], wait: Callable[[], None] = lambda: None) -> float:
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def engine(folder: Path) -> None:
    import numpy as np
    import torch
    from peers.plain_loop import plain_loop

    from assets.training.program.batches import Sampler
    from assets.training.tasks.classification.attention import use_cpu_kernels

    on_gpu = torch.cuda.is_available()
    plan = make_plan(folder, "gpu" if on_gpu else "full")
    data = alone(plan)
    stock = plain_loop(make_classifier(plan, data).to("cuda" if on_gpu else "cpu"), plan, data)
    loops = {f"DeepSpeed, {plan.settings.hardware.deepspeed}": our_loop(plan, data)[1], "plain loop": stock}
    if not on_gpu:
        faster = make_classifier(plan, data)
        use_cpu_kernels(faster, faster.encoder)
        loops |= {"plain loop": plain_loop(faster, plan, data), "plain loop, torch's attention and dropout": stock}
    sampler, steps = Sampler.of(data, plan.settings, 1), range(2, 18)
    for step in loops.values():
        step(0)
        step(1)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in steps:
        for name, step in loops.items():
            seconds[name].append(timed(partial(step, number), torch.cuda.synchronize if on_gpu else lambda: None))
    tokens = np.array([data.lengths[sampler.rows(number)].sum() for number in steps])
    ours, peer = next(iter(loops)), "plain loop"
    for name, times in seconds.items():
        ratio = np.median(np.array(seconds[peer]) / np.array(times))
        print(f"{name:<44}{np.median(tokens / times):>8,.0f} tokens/s{ratio:>7.2f} of the plain loop")
    found = np.median(np.array(seconds[peer]) / np.array(seconds[ours]))
    print(f"engine: {found:.2f} of a plain loop, goal at least {GOALS['engine']}", flush=True)


def checkpoint(folder: Path) -> None:
    import numpy as np

    from assets.training.program.checkpoints import Checkpoints
    from assets.training.program.progress import Progress
    from assets.training.program.saving import Saver

    plan, block, pairs = make_plan(folder, epochs=20.0), 8, 3
    data = alone(plan)
    trained, step = our_loop(plan, data)
    progress = Progress(block, lambda _: None)
    saver = Saver(trained, Checkpoints(plan.checkpoints, plan.settings.storage.checkpoints_kept), float("inf"), print)
    plan.checkpoints.mkdir(parents=True, exist_ok=True)
    delays: list[float] = []

    def steps(save: bool) -> None:
        for number in range(block):
            step(number)
            _, done, failed = saver.votes()
            due = save and number == 0
            waited = timed(partial(saver.act, [float(due), done, failed], progress))
            if due:
                delays.append(waited)

    steps(save=True)
    delays.clear()
    plain, saving = zip(*[(timed(lambda: steps(False)), timed(lambda: steps(True))) for _ in range(pairs)], strict=True)
    saver.close()
    tensors = [np.empty(file.stat().st_size, np.uint8) for file in plan.checkpoints.glob("*/*.pt")]
    bytes_kept = sum(tensor.nbytes for tensor in tensors) / plan.settings.storage.checkpoints_kept
    copy = (
        min(timed(lambda: [tensor.copy() for tensor in tensors]) for _ in range(3))
        / plan.settings.storage.checkpoints_kept
    )
    cost = float(np.median(np.array(saving) - np.array(plain)))
    print(f"{pairs} blocks of {block} steps: {np.median(plain):.2f} s without, {np.median(saving):.2f} s with one")
    print(f"{bytes_kept / 1e6:.0f} MB; the step after it waits {max(delays):.3f} s at most, a copy takes {copy:.3f} s")
    print(f"checkpoint: {cost / 60:.2%} at one a minute, goal under {GOALS['checkpoint']:.0%}", flush=True)


def startup(folder: Path) -> None:
    from assets.training.launchers.processes import worker_command

    plan_file = folder / "plan.json"
    plan_file.write_text(make_plan(folder).model_dump_json())
    peers = {
        "import torch, transformers": [sys.executable, "-c", "import torch, transformers"],
        "and its AutoModel and AutoTokenizer": [
            *(sys.executable, "-c"),
            "import torch; from transformers import AutoModel, AutoTokenizer",
        ],
        "and DeepSpeed, and a model's code": [
            *(sys.executable, "-c"),
            "import torch, deepspeed; from transformers.models.bert.modeling_bert import BertModel",
        ],
    }
    ours = "worker launched to its first step"
    first_step(worker_command(plan_file, 1, None))
    found: dict[str, list[float]] = {name: [] for name in (*peers, ours)}
    for _ in range(3):
        for name, command in peers.items():
            found[name].append(timed(partial(subprocess.run, command, check=True, capture_output=True)))
        found[ours].append(first_step(worker_command(plan_file, 1, None)))
    for name, seconds in found.items():
        print(f"{name:<44}{min(seconds):>7.2f} s{min(found[ours]) / min(seconds):>7.2f} times")
    ratio = min(found[ours]) / min(found[list(peers)[1]])
    print(f"startup: {ratio:.2f} times importing torch and transformers, goal at most {GOALS['startup']}", flush=True)


def first_step(command: list[str]) -> float:
    """Seconds until a worker reports its first step; it is ended then."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        shown = []
        for line in worker.stderr:
            shown.append(line)
            if line.startswith("step "):
                seconds = time.perf_counter() - started
                worker.kill()
                return seconds
    sys.exit("".join(shown[-20:]))


def train_ours(folder: Path) -> dict[str, Any]:
    """The worker's own loop, by the encoder alone and without class weights; the clock is stopped during validation."""
    from assets.training.program import loop
    from assets.training.program.checkpoints import Checkpoints
    from assets.training.program.saving import Saver
    from assets.training.tasks import TASKS

    rows = count_rows(folder)
    every = (rows - VALIDATION) // 32 // EVALUATIONS
    plan = make_plan(
        folder, validation_share=VALIDATION / rows, class_weight_power=0.0, hashed_words=0, evaluate_every=every
    )
    data = alone(plan)
    trained = start(plan, data)
    saver = Saver(trained, Checkpoints(plan.checkpoints, 1), float("inf"), print)
    evaluate, spent, curve, began = loop._evaluate, [0.0], [], time.perf_counter()

    def timed_evaluate(*arguments: Any) -> None:
        before = time.perf_counter()
        evaluate(*arguments)
        curve.append((before - began - spent[0], arguments[-1].validation[-1][1]))
        spent[0] += time.perf_counter() - before

    loop._evaluate = timed_evaluate
    progress = loop.run_steps(trained, TASKS[plan.task], data, plan.settings, saver, lambda _: None)
    return {"tokens": progress.tokens, "seconds": curve[-1][0], "curve": curve}


def train_theirs(folder: Path, fast: bool) -> dict[str, Any]:
    from peers.hf_trainer import train_theirs

    return train_theirs(make_plan(folder), VALIDATION, EVALUATIONS, fast)


def count_rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(folder / "train.parquet").metadata.num_rows)


def trainer(folder: Path) -> None:
    names = {"ours": "Evergreen", "bf16": "HF Trainer, bf16, length grouping", "stock": "HF Trainer, stock"}
    found = {}
    for name in names:
        run = subprocess.run(
            [sys.executable, __file__, name, "--folder", str(folder)], stderr=subprocess.PIPE, text=True
        )
        if run.returncode:
            sys.exit(run.stderr)
        found[name] = json.loads((folder / f"{name}.json").read_text())
    reached = max(min(loss for _, loss in run["curve"]) for run in found.values())
    until = {n: next(second for second, loss in run["curve"] if loss <= reached) for n, run in found.items()}
    speed = {name: run["tokens"] / run["seconds"] for name, run in found.items()}
    print(f"{'':<36}{'tokens/s':>9}{'ratio':>7}{'goal':>6}{'lowest loss':>13}{f's to {reached:.3f}':>13}{'ratio':>7}")
    for name, run in found.items():
        line = f"{names[name]:<36}{speed[name]:>9,.0f}{speed['ours'] / speed[name]:>7.2f}{GOALS.get(name, 1):>6.1f}"
        lowest = min(loss for _, loss in run["curve"])
        print(f"{line}{lowest:>13.3f}{until[name]:>13.1f}{until[name] / until['ours']:>7.2f}", flush=True)


def deepspeed(folder: Path) -> None:
    plan, file = encoder_alone(folder), folder / "plan.json"
    file.write_text(plan.model_dump_json())
    ours = ["-m", "assets.training.program.worker", str(file)], plan.output / "training.json"
    peer = [__file__, "peer", "--folder", str(folder)], folder / "peer.json"
    for name, (program, report) in [("Evergreen", ours), ("HF Trainer with DeepSpeed", peer)] * 2:
        subprocess.run([sys.executable, *program], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(report.read_text())
        speed, share = found["tokens_per_second"], found["utilisation"]
        memory = ", ".join(f"{used / 1e9:.2f} GB {where}" for where, used in found["peak_memory"].items())
        print(f"{name:<28}{speed:>10,.0f} tokens/s{share:>7.1%} of the peak  {memory}", flush=True)


def encoder_alone(folder: Path) -> Any:
    """A plan of what both have: the encoder and its texts, for steps enough that the first ones count little."""
    import torch

    on_gpu = torch.cuda.is_available()
    changes = {"class_weight_power": 0.0, "hashed_words": 0, "checkpoint_seconds": 1e6}
    return make_plan(folder, "gpu" if on_gpu else "full", epochs=20.0 if on_gpu else 1.0, **changes)


def train_peer(folder: Path) -> dict[str, Any]:
    from peers.hf_deepspeed import train_by_deepspeed

    return train_by_deepspeed(encoder_alone(folder))


def train_alone(folder: Path, name: str) -> None:
    runs = {"ours": train_ours, "peer": train_peer}
    run = runs[name](folder) if name in runs else train_theirs(folder, fast=name == "bf16")
    (folder / f"{name}.json").write_text(json.dumps(run))


PARTS = {"engine": engine, "checkpoint": checkpoint, "startup": startup, "trainer": trainer, "deepspeed": deepspeed}


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS)[:-1])
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.folder is not None:
        use_cores()
        if asked.parts[0] in PARTS or asked.parts[0] == "ours":
            keep_memory()
            lean_imports()
        part = PARTS.get(asked.parts[0])
        part(asked.folder) if part else train_alone(asked.folder, asked.parts[0])
        return
    from peers.rows import write_rows

    with tempfile.TemporaryDirectory() as name:
        write_rows(Path(name), asked.rows)
        for part_name in asked.parts:
            print(f"\n{part_name}", flush=True)
            subprocess.run([sys.executable, __file__, part_name, "--folder", name], check=True)


if __name__ == "__main__":
    main()
