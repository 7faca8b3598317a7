"""How fast each parameter learns: groups for the optimizer."""

from typing import Any

from torch import nn

from assets.settings import TrainingSettings
from assets.training.tasks.classification.model import TextClassifier, encoder_layers

__all__ = ["parameter_groups"]


def parameter_groups(classifier: TextClassifier, settings: TrainingSettings) -> list[dict[str, Any]]:
    """What is trained, in groups of one learning rate and one weight decay.

    The encoder's layers learn more slowly from the top down, its embeddings slowest (discriminative fine-tuning,
    Howard and Ruder 2018). Matrices decay; biases and normalisation weights do not.
    """
    depths = _depths(classifier)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            rate = (
                settings.optimizer.learning_rate
                if name.startswith("encoder.")
                else settings.optimizer.head_learning_rate
            )
            rate *= settings.optimizer.layer_rate_decay ** depths.get(parameter, 0)
            shape = getattr(parameter, "ds_shape", parameter.shape)  # what ZeRO-3 has dealt out has none of its own
            decay = settings.optimizer.weight_decay if len(shape) > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def _depths(classifier: TextClassifier) -> dict[nn.Parameter, int]:
    """Layers above each of the encoder's parameters; what lies outside its layers is below them all."""
    if not any(True for _ in classifier.encoder.parameters()):  # a table in its place has no layers
        return {}
    layers = encoder_layers(classifier.encoder)
    depths = dict.fromkeys(classifier.encoder.parameters(), len(layers))
    for above, layer in enumerate(reversed(layers)):
        depths |= dict.fromkeys(layer.parameters(), above)
    return depths
