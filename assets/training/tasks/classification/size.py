"""The size of a classifier, read from its encoder's files: no weight is loaded and torch is not imported."""

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from assets.exceptions import BaseModelError
from assets.settings import TrainingSettings
from assets.training.model_files import read_config, read_shapes
from assets.training.model_size import ModelSize

__all__ = ["measure_model"]

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
_WORDS = ("word_embeddings", "embed_tokens", "tok_embeddings", "wte")
_FEATURE_WIDTH = 64


def measure_model(base: Path, features: int, labels: int, settings: TrainingSettings) -> ModelSize:
    """The size of a classifier around the encoder in a folder, from its config.json and the headers of its weights.

    `features`: columns of the snapshot; `labels`: outputs. Raises ValueError when a file cannot be read, or lacks these
    numbers.
    """
    config, shapes = read_config(base), read_shapes(base)
    hidden = _first(config, "hidden_size", "dim", "d_model")
    layers = _first(config, "num_hidden_layers", "n_layers", "num_layers")
    trained_layers = layers if settings.model.trainable_layers is None else min(settings.model.trainable_layers, layers)
    own = {name: prod(shape) for name, shape in shapes.items() if "pooler" not in name and "position_ids" not in name}
    in_layers = {name: int(match[1]) for name in own if (match := _LAYER.search(name))}
    frozen = sum(size for name, size in own.items() if in_layers.get(name, layers) < layers - trained_layers)
    frozen += sum(
        size
        for name, size in own.items()
        if name not in in_layers and _is_frozen(name, trained_layers < layers, settings)
    )
    words = settings.model.hashed_words * labels
    return ModelSize(
        trained=sum(own.values()) - frozen + _head_parameters(hidden, features, labels),
        frozen=frozen + words,
        layers=layers,
        trained_layers=trained_layers,
        layer_parameters=sum(own[name] for name in in_layers) // max(1, layers),
        hidden=hidden,
        intermediate=_first(config, "intermediate_size", "hidden_dim", "ffn_dim", default=4 * hidden),
        heads=_first(config, "num_attention_heads", "n_heads", "num_heads"),
        largest=max(*own.values(), words),
    )


def _is_frozen(name: str, without_embeddings: bool, settings: TrainingSettings) -> bool:
    """Whether a tensor outside the layers is frozen, as by `freeze` (model.py)."""
    is_words = any(word in name for word in _WORDS)
    return (without_embeddings and "embed" in name) or (is_words and not settings.model.train_embeddings)


def _head_parameters(hidden: int, features: int, labels: int) -> int:
    """An upper bound: a feature may or may not have an indicator for missing values."""
    inputs = 2 * features
    network = (inputs + 1) * _FEATURE_WIDTH if features else 0
    return network + (hidden + (_FEATURE_WIDTH if features else 0) + 1) * labels


def _first(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    if default is None:
        raise BaseModelError(f"training.model.base_model: config.json has no {names[0]}")
    return default
