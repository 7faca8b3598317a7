"""HF Trainer with DeepSpeed: the plan's rows, batches, DeepSpeed file and precision; what it freezes is frozen."""

import os
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    logging,
)

from assets.training.model_size import model_flops
from assets.training.plan import TrainingPlan
from assets.training.program.batches import Sampler
from assets.training.program.usage import matmul_peak, peak_memory
from assets.training.tasks import TASKS
from peers.hf_trainer import LABELS, encode

__all__ = ["train_by_deepspeed"]

_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


class SameBatches(Trainer):  # type: ignore[misc]
    """Takes given rows for each step; two processes make the batches, in pinned memory."""

    batches: list[Any]

    def get_train_dataloader(self) -> Any:
        on_gpu = torch.cuda.is_available()
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=2 if on_gpu else 0,
            pin_memory=on_gpu,
        )


class Clock(TrainerCallback):  # type: ignore[misc]
    """When the first step began: the engine is there by then."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()


def train_by_deepspeed(plan: TrainingPlan) -> dict[str, Any]:
    """What the worker reports of the same steps: useful tokens/s, share of the peak, and bytes at most."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ |= _ALONE
    peak = matmul_peak(plan.settings.hardware.precision)
    rows, settings = encode(plan), plan.settings
    lengths = np.array([row.pop("length") for row in rows])
    optimizer = settings.optimizer
    sampler = Sampler(
        lengths, optimizer.epochs, optimizer.batch_rows, settings.hardware.batch_tokens, optimizer.seed, world_size=1
    )
    clock = Clock()
    trainer = _trainer(plan, rows, [sampler.rows(number).tolist() for number in range(sampler.steps)])
    trainer.add_callback(clock)
    trainer.train()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - clock.began
    used = lengths[np.concatenate(trainer.batches)]
    flops = model_flops(TASKS[plan.task].size(plan), int(used.sum()), int((used**2).sum()))
    return {
        "tokens_per_second": used.sum() / seconds,
        "utilisation": flops / seconds / peak,
        "peak_memory": peak_memory(),
        "loss": trainer.state.log_history[-1]["train_loss"],
    }


def _trainer(plan: TrainingPlan, rows: list[dict[str, Any]], batches: list[list[int]]) -> SameBatches:
    arguments = _arguments(plan, len(batches))
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        plan.base_model, num_labels=len(LABELS), local_files_only=True
    )
    if not plan.settings.model.train_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(plan.base_model, local_files_only=True))
    trainer = SameBatches(model=model, args=arguments, train_dataset=rows, data_collator=pad)
    trainer.batches = batches
    return trainer


def _arguments(plan: TrainingPlan, steps: int) -> TrainingArguments:
    settings = plan.settings
    rates = {"lr": settings.optimizer.learning_rate, "weight_decay": settings.optimizer.weight_decay}
    optimizer = plan.deepspeed["optimizer"]
    config = plan.deepspeed | {
        "optimizer": optimizer | {"params": optimizer["params"] | rates},
        "bf16": {"enabled": settings.hardware.precision == "bf16"},
        "gradient_clipping": settings.optimizer.gradient_clipping,
        "train_batch_size": settings.optimizer.batch_rows,
        "train_micro_batch_size_per_gpu": settings.optimizer.batch_rows,
    }
    return TrainingArguments(
        output_dir=str(plan.output.parent / "hf"),
        max_steps=steps,
        per_device_train_batch_size=settings.optimizer.batch_rows,
        learning_rate=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
        max_grad_norm=settings.optimizer.gradient_clipping,
        warmup_steps=round(steps * settings.optimizer.warmup_share),
        bf16=settings.hardware.precision == "bf16",
        deepspeed=config,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
