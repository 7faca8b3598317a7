"""What a classifier computes again, compiles, or leaves to other kernels while it is trained."""

import os
from typing import Any

import torch

from assets.exceptions import SettingsError
from assets.settings import TrainingSettings
from assets.training.tasks.classification.attention import use_cpu_kernels
from assets.training.tasks.classification.model import TextClassifier

__all__ = ["tune"]


def tune(classifier: TextClassifier, settings: TrainingSettings) -> None:
    """Let the encoder compute activations again, and compile it, where the settings ask for it.

    Without a GPU and a compiler, dropout and attention are those of `attention.py`. Raises SettingsError when the
    encoder cannot compute activations again.
    """
    encoder: Any = classifier.encoder
    if settings.hardware.activation_checkpointing:
        if not encoder.supports_gradient_checkpointing:
            raise SettingsError(
                f"training.hardware.activation_checkpointing: {type(encoder).__name__} does not support it"
            )
        encoder.activation_checkpointing_enable({"use_reentrant": False})
    if settings.hardware.compile:
        os.environ["TORCHDYNAMO_DISABLE"] = "0"  # the start switches it off (assets/training/program/process.py)
        encoder.compile(dynamic=True)
    elif not torch.cuda.is_available():
        use_cpu_kernels(classifier, encoder)
