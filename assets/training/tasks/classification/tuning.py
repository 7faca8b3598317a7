"""Sets up recomputation, compilation and kernels of a classifier for training."""

import os
from typing import Any

import torch

from assets.exceptions import SettingsError
from assets.settings import TrainingSettings
from assets.training.tasks.classification.attention import use_cpu_kernels
from assets.training.tasks.classification.model import TextClassifier

__all__ = ["tune"]


def tune(classifier: TextClassifier, settings: TrainingSettings) -> None:
    """Let the encoder recompute activations, and compile it, if the settings say so.

    Without a GPU and a compiler, dropout and attention are those of `attention.py`. Raises SettingsError when the
    encoder cannot recompute activations.
    """
    encoder: Any = classifier.encoder
    if settings.hardware.activation_checkpointing:
        if not encoder.supports_gradient_checkpointing:
            raise SettingsError(
                f"training.hardware.activation_checkpointing: {type(encoder).__name__} does not support it"
            )
        encoder.activation_checkpointing_enable({"use_reentrant": False})
    if settings.hardware.compile:
        os.environ["TORCHDYNAMO_DISABLE"] = "0"  # switched off at the start (assets/training/program/process.py)
        encoder.compile(dynamic=True)
    elif not torch.cuda.is_available():
        use_cpu_kernels(classifier, encoder)
