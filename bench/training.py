"""Training against its peers, each ratio measured in one run: `engine`, `checkpoint`, `startup`, `trainer`, or all.

    engine      our DeepSpeed engine against a plain PyTorch loop: the same model, batches and precision, interleaved
    checkpoint  blocks of steps that save once against the same blocks without, as a share of a minute
    startup     the worker launched to its first step against importing torch and transformers
    trainer     useful tokens/s, and seconds to one validation loss, against HF Trainer on the same texts

Rows are the real complaints of ../shared/data/cfpb where they are there, and simulated ones elsewhere. `--rows N` for
more or fewer. All peers have the encoder of configs/training.yaml, profile full, and all cores.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from assets.training.process import keep_memory, lean_imports, use_cores

REAL = ROOT.parent / "shared" / "data" / "cfpb"
VALIDATION = 400
GOALS = {"engine": 0.9, "checkpoint": 0.03, "startup": 2.0, "stock": 4.0, "bf16": 1.5}


def write_rows(folder: Path, count: int) -> None:
    """A snapshot's train.parquet: complaints with different beginnings, in random order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from assets.ingestion.reading import read_rows
    from assets.ingestion.records import Record
    from assets.settings import load_settings
    from assets.simulation import simulate

    if not REAL.is_dir():
        simulate(folder / "source", date(2024, 1, 1), date(2024, 6, 30), 10 + count // 60, 7, "calm")
    files = sorted((REAL if REAL.is_dir() else folder / "source").glob("*.csv*"))
    found = (row for file in files for row in read_rows(file, load_settings("full").ingestion))
    route = router_of_products()
    rows = {
        row.narrative[:120]: (route(row), row.narrative, row.company or "unknown", row.state or "unknown")
        for row in found
        if isinstance(row, Record) and row.narrative and route(row)
    }
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    columns = zip(*[list(rows.values())[i] for i in order], strict=True)
    names = ("queue", "narrative", "company", "state")
    pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), folder / "train.parquet")


def router_of_products() -> Callable[[Any], str | None]:
    with (ROOT / "dbt/seeds/queue_by_product.csv").open() as file:
        seed = list(csv.DictReader(file))

    def route(row: Any) -> str | None:
        matches = (
            entry["queue"]
            for entry in seed
            if entry["product"] == row.product and entry["valid_from"] <= row.date_received[:10]
            if not entry["valid_to"] or row.date_received[:10] <= entry["valid_to"]
        )
        return next(matches, None)

    return route


def make_plan(folder: Path, **changes: Any) -> Any:
    """Profile full over the folder's rows, one pass, without features: what the peers read, too."""
    import pyarrow.parquet as pq

    from assets.features.snapshot import Snapshot
    from assets.settings import load_settings
    from assets.training.launch import override, plan_training

    rows = pq.ParquetFile(folder / "train.parquet").metadata.num_rows
    snapshot = Snapshot("0" * 16, "2024-01-01", folder, (), rows, 0, {"snapshot_id": "0" * 16})
    settings = override(load_settings("full").training, {"epochs": 1.0, **changes})
    (folder / "out").mkdir(exist_ok=True)
    return plan_training(snapshot, settings, folder / "out", folder / "home")


def make_router(plan: Any, data: Any) -> Any:
    import torch

    from assets.training.model import freeze, new_router

    torch.manual_seed(0)
    router = new_router(plan.base_model, data.preprocessing)
    freeze(router, plan.settings.trainable_layers, plan.settings.train_embeddings)
    return router


def our_loop(plan: Any, data: Any) -> tuple[Any, Callable[[int], None]]:
    from assets.training import loop
    from assets.training.engine import agree, start_engine

    engine = start_engine(make_router(plan, data), plan, data.trained)
    engine.train()
    sampler, weights = data.sampler(plan.settings, 1), class_weights(plan, data)

    def step(number: int) -> None:
        loss = loop._step(engine, data, weights, sampler.rows(number), sampler.micro_batches(number, 0))
        agree(engine, loss, [0.0])

    return engine, step


def plain_loop(plan: Any, data: Any, kernels: bool) -> Callable[[int], None]:
    """What a person would write: bf16 weights, float32 masters, clipping, fused AdamW, the same schedule."""
    import torch

    from assets.training.attention import use_cpu_kernels
    from assets.training.batches import collate, share_of_loss
    from assets.training.optimization import parameter_groups, schedule

    router = make_router(plan, data)
    if kernels:
        use_cpu_kernels(router, router.encoder)
    router.bfloat16().train()
    groups = parameter_groups(router, plan.settings)
    low = [parameter for group in groups for parameter in group["params"]]
    for group in groups:
        group["params"] = [parameter.detach().float() for parameter in group["params"]]
    masters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)
    sampler, weights = data.sampler(plan.settings, 1), class_weights(plan, data)
    rates = schedule(optimizer, sampler.steps, plan.settings)

    def step(number: int) -> None:
        rows = sampler.rows(number)
        labels = torch.from_numpy(data.labels[rows])
        logits = router(**collate(data.rows, rows, router.padding))
        share_of_loss(logits, labels, weights, float(weights[labels].sum())).backward()
        for weight, master in zip(low, masters, strict=True):
            master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, plan.settings.gradient_clipping)
        optimizer.step()
        rates.step()
        with torch.no_grad():
            torch._foreach_copy_(low, masters)

    return step


def class_weights(plan: Any, data: Any) -> Any:
    import torch

    return torch.from_numpy(data.class_weights(plan.settings.class_weight_power))


def alone(plan: Any) -> Any:
    """This process as the run's only rank, and its data."""
    from assets.training.data import load_training_data
    from assets.training.engine import join_processes

    join_processes(1, use_cores())
    return load_training_data(plan)


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def engine(folder: Path) -> None:
    import numpy as np

    plan = make_plan(folder)
    data = alone(plan)
    loops = {
        f"DeepSpeed, {plan.settings.deepspeed}": our_loop(plan, data)[1],
        "plain loop": plain_loop(plan, data, kernels=True),
        "plain loop, torch's attention and dropout": plain_loop(plan, data, kernels=False),
    }
    sampler, steps = data.sampler(plan.settings, 1), range(2, 18)
    for step in loops.values():
        step(0)
        step(1)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in steps:
        for name, step in loops.items():
            seconds[name].append(timed(partial(step, number)))
    tokens = np.array([data.rows.lengths[sampler.rows(number)].sum() for number in steps])
    ours, peer = next(iter(loops)), "plain loop"
    for name, times in seconds.items():
        ratio = np.median(np.array(seconds[peer]) / np.array(times))
        print(f"{name:<44}{np.median(tokens / times):>8,.0f} tokens/s{ratio:>7.2f} of the plain loop")
    found = np.median(np.array(seconds[peer]) / np.array(seconds[ours]))
    print(f"engine: {found:.2f} of a plain loop, goal at least {GOALS['engine']}", flush=True)


def checkpoint(folder: Path) -> None:
    import numpy as np

    from assets.training.checkpoints import Checkpoints
    from assets.training.progress import Progress
    from assets.training.saving import Saver

    plan, block, pairs = make_plan(folder, epochs=20.0), 8, 3
    data = alone(plan)
    trained, step = our_loop(plan, data)
    progress = Progress(block, lambda _: None)
    saver = Saver(trained, Checkpoints(plan.checkpoints, plan.settings.checkpoints_kept), float("inf"), print)
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
    bytes_kept = sum(tensor.nbytes for tensor in tensors) / plan.settings.checkpoints_kept
    copy = min(timed(lambda: [tensor.copy() for tensor in tensors]) for _ in range(3)) / plan.settings.checkpoints_kept
    cost = float(np.median(np.array(saving) - np.array(plain)))
    print(f"{pairs} blocks of {block} steps: {np.median(plain):.2f} s without, {np.median(saving):.2f} s with one")
    print(f"{bytes_kept / 1e6:.0f} MB; the step after it waits {max(delays):.3f} s at most, a copy takes {copy:.3f} s")
    print(f"checkpoint: {cost / 60:.2%} at one a minute, goal under {GOALS['checkpoint']:.0%}", flush=True)


def startup(folder: Path) -> None:
    from assets.training.launch import worker_command

    plan_file = folder / "plan.json"
    plan_file.write_text(make_plan(folder).model_dump_json())
    peers = {
        "import torch, transformers": [sys.executable, "-c", "import torch, transformers"],
        "and its AutoModel and AutoTokenizer": [
            *(sys.executable, "-c"),
            "import torch; from transformers import AutoModel, AutoTokenizer",
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
    print(f"startup: {ratio:.2f} times importing torch and transformers, goal under {GOALS['startup']:.0f}", flush=True)


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
    """The worker's own loop, without class weights, as its loss is compared; time stands still while it validates."""
    from assets.training import loop
    from assets.training.checkpoints import Checkpoints
    from assets.training.engine import start_engine
    from assets.training.saving import Saver

    rows = count_rows(folder)
    every = (rows - VALIDATION) // 32 // 6
    plan = make_plan(folder, validation_share=VALIDATION / rows, class_weight_power=0.0, evaluate_every=every)
    data = alone(plan)
    trained = start_engine(make_router(plan, data), plan, data.trained)
    saver = Saver(trained, Checkpoints(plan.checkpoints, 1), float("inf"), print)
    evaluate, spent, curve, began = loop._evaluate, [0.0], [], time.perf_counter()

    def timed_evaluate(*arguments: Any) -> None:
        before = time.perf_counter()
        evaluate(*arguments)
        curve.append((before - began - spent[0], arguments[-1].validation[-1][1]))
        spent[0] += time.perf_counter() - before

    loop._evaluate = timed_evaluate
    progress = loop.run_steps(trained, data, plan.settings, saver, lambda _: None)
    return {"tokens": progress.tokens, "seconds": curve[-1][0], "curve": curve}


def train_theirs(folder: Path, fast: bool) -> dict[str, Any]:
    """HF Trainer, fine-tuning the same encoder on the same texts: as it comes, or with bf16 and length grouping."""
    import pyarrow.parquet as pq
    import torch
    from tokenizers import Tokenizer
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        logging,
    )

    from assets.settings import QUEUES
    from assets.training.preprocessing import clean, text_of

    torch.set_num_threads(use_cores())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plan = make_plan(folder)
    settings = plan.settings
    table = pq.read_table(folder / "train.parquet").to_pylist()
    tokenizer = Tokenizer.from_file(str(plan.base_model / "tokenizer.json"))
    tokenizer.enable_truncation(settings.max_tokens)
    tokenizer.no_padding()
    texts = [text_of(row["company"], row["state"], clean(row["narrative"])) for row in table]
    encoded = [
        {
            "input_ids": e.ids,
            "attention_mask": e.attention_mask,
            "labels": QUEUES.index(row["queue"]),
            "length": len(e.ids),
        }
        for e, row in zip(tokenizer.encode_batch(texts), table, strict=True)
    ]
    training, held_out = encoded[:-VALIDATION], sorted(encoded[-VALIDATION:], key=lambda row: row["length"])
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        plan.base_model, num_labels=len(QUEUES), local_files_only=True
    )
    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(plan.base_model, local_files_only=True))
    steps = len(training) // settings.batch_rows
    arguments = TrainingArguments(
        **{"output_dir": str(folder / "hf"), "max_steps": steps, "per_device_train_batch_size": settings.batch_rows},
        **{"learning_rate": settings.learning_rate, "weight_decay": settings.weight_decay, "warmup_steps": steps // 10},
        **{"save_strategy": "no", "logging_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True},
        **({"bf16": True, "train_sampling_strategy": "group_by_length"} if fast else {}),
    )

    class Watch(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.curve: list[tuple[float, float]] = []
            self.began = self.spent = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if state.global_step % (steps // 6) == 0 or state.global_step == steps:
                before = time.perf_counter()
                self.curve.append((before - self.began - self.spent, self.loss()))
                self.spent += time.perf_counter() - before

        @torch.no_grad()
        def loss(self) -> float:
            model.eval()
            total = 0.0
            for start in range(0, VALIDATION, 50):
                batch = pad([{k: v for k, v in row.items() if k != "length"} for row in held_out[start : start + 50]])
                with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                    total += float(model(**batch).loss) * len(batch["labels"])
            model.train()
            return total / VALIDATION

    watch = Watch()
    Trainer(model=model, args=arguments, train_dataset=training, data_collator=pad, callbacks=[watch]).train()
    tokens = sum(row["length"] for row in training) * steps * settings.batch_rows / len(training)
    return {"tokens": tokens, "seconds": watch.curve[-1][0], "curve": watch.curve}


def count_rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(folder / "train.parquet").metadata.num_rows)


def trainer(folder: Path) -> None:
    names = {"ours": "Evergreen", "bf16": "HF Trainer, bf16, length grouping", "stock": "HF Trainer, stock"}
    found = {}
    for name in names:
        subprocess.run([sys.executable, __file__, name, "--folder", str(folder)], check=True, stderr=subprocess.DEVNULL)
        found[name] = json.loads((folder / f"{name}.json").read_text())
    reached = max(min(loss for _, loss in run["curve"]) for run in found.values())
    until = {n: next(second for second, loss in run["curve"] if loss <= reached) for n, run in found.items()}
    speed = {name: run["tokens"] / run["seconds"] for name, run in found.items()}
    print(f"{'':<36}{'tokens/s':>9}{'ratio':>7}{'goal':>6}{'lowest loss':>13}{f's to {reached:.3f}':>13}{'ratio':>7}")
    for name, run in found.items():
        line = f"{names[name]:<36}{speed[name]:>9,.0f}{speed['ours'] / speed[name]:>7.2f}{GOALS.get(name, 1):>6.1f}"
        lowest = min(loss for _, loss in run["curve"])
        print(f"{line}{lowest:>13.3f}{until[name]:>13.1f}{until[name] / until['ours']:>7.2f}", flush=True)


def train_alone(folder: Path, name: str) -> None:
    run = train_ours(folder) if name == "ours" else train_theirs(folder, fast=name == "bf16")
    (folder / f"{name}.json").write_text(json.dumps(run))


PARTS = {"engine": engine, "checkpoint": checkpoint, "startup": startup, "trainer": trainer}


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
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
    with tempfile.TemporaryDirectory() as name:
        write_rows(Path(name), asked.rows)
        for part_name in asked.parts:
            print(f"\n{part_name}", flush=True)
            subprocess.run([sys.executable, __file__, part_name, "--folder", name], check=True)


if __name__ == "__main__":
    main()
