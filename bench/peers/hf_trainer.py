"""HF Trainer, fine-tuning the encoder on a snapshot's texts: as it comes, or with length grouping and our precision."""

import time
from typing import Any

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

from assets.settings import load_domain
from assets.training.plan import TrainingPlan
from assets.training.tasks.classification.preprocessing import fit_preprocessing

LABELS = tuple(load_domain().labels)

__all__ = ["LABELS", "encode", "train_theirs"]

_EVALUATED_ROWS = 50


class Watch(TrainerCallback):  # type: ignore[misc]
    """The validation loss over the seconds of training; time stands still while it is computed."""

    def __init__(self, every: int, loss: Any) -> None:
        self.every, self.loss = every, loss
        self.curve: list[tuple[float, float]] = []
        self.began = self.spent = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            before = time.perf_counter()
            self.curve.append((before - self.began - self.spent, self.loss()))
            self.spent += time.perf_counter() - before


def train_theirs(plan: TrainingPlan, validation: int, evaluations: int, fast: bool) -> dict[str, Any]:
    """Tokens, seconds and the validation loss on the last rows, for as many steps as ours makes in one pass."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = encode(plan)
    training, held_out = rows[:-validation], sorted(rows[-validation:], key=lambda row: int(row["length"]))
    steps = len(training) // plan.settings.optimizer.batch_rows
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        plan.base_model, num_labels=len(LABELS), local_files_only=True
    )
    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(plan.base_model, local_files_only=True))
    arguments = _arguments(plan, steps, fast)
    watch = Watch(steps // evaluations, lambda: _loss(model, held_out, pad, arguments.bf16))
    Trainer(model=model, args=arguments, train_dataset=training, data_collator=pad, callbacks=[watch]).train()
    tokens = sum(row["length"] for row in training) * steps * plan.settings.optimizer.batch_rows / len(training)
    return {"tokens": tokens, "seconds": watch.curve[-1][0], "curve": watch.curve}


def encode(plan: TrainingPlan) -> list[dict[str, Any]]:
    tokenizer = Tokenizer.from_file(str(plan.base_model / "tokenizer.json"))
    tokenizer.enable_truncation(plan.settings.model.max_tokens)
    tokenizer.no_padding()
    rows = pq.read_table(plan.snapshot / "train.parquet").to_pydict()
    reading = fit_preprocessing(rows, (), plan.domain, plan.settings.model.max_tokens, 0, 1.0)
    texts = reading.read(rows, reading.clean(rows))
    found = zip(tokenizer.encode_batch(texts), (LABELS.index(label) for label in rows["label"]), strict=True)
    return [
        {"input_ids": text.ids, "attention_mask": text.attention_mask, "labels": label, "length": len(text.ids)}
        for text, label in found
    ]


def _arguments(plan: TrainingPlan, steps: int, fast: bool) -> TrainingArguments:
    settings = plan.settings
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": [], "disable_tqdm": True}
    faster = (
        {"bf16": settings.hardware.precision == "bf16", "train_sampling_strategy": "group_by_length"} if fast else {}
    )
    return TrainingArguments(
        output_dir=str(plan.output / "hf"),
        max_steps=steps,
        per_device_train_batch_size=settings.optimizer.batch_rows,
        learning_rate=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
        warmup_steps=steps // 10,
        use_cpu=True,
        **quiet,
        **faster,
    )


@torch.no_grad()
def _loss(model: Any, rows: list[dict[str, Any]], pad: DataCollatorWithPadding, bf16: bool) -> float:
    model.eval()
    total = 0.0
    for start in range(0, len(rows), _EVALUATED_ROWS):
        chosen = rows[start : start + _EVALUATED_ROWS]
        batch = pad([{name: value for name, value in row.items() if name != "length"} for row in chosen])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            total += float(model(**batch).loss) * len(chosen)
    model.train()
    return total / len(rows)
