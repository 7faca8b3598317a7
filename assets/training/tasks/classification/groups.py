"""Parameter groups for the optimizer, with their learning rates."""

from typing import Any

from torch import nn

from assets.settings import TrainingSettings
from assets.training.tasks.classification.model import TextClassifier, encoder_layers

__all__ = ["parameter_groups"]


def parameter_groups(classifier: TextClassifier, settings: TrainingSettings) -> list[dict[str, Any]]:
    """The trained parameters, in groups with one learning rate and one weight decay.

    Learning rates fall from the encoder's top layer down, lowest for its embeddings (discriminative fine-tuning, Howard
    and Ruder 2018). Matrices have weight decay; biases and normalisation weights do not.
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
            shape = getattr(parameter, "ds_shape", parameter.shape)  # a sharded tensor's own shape is empty
            decay = settings.optimizer.weight_decay if len(shape) > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def _depths(classifier: TextClassifier) -> dict[nn.Parameter, int]:
    """The number of layers above each of the encoder's parameters; those outside its layers are below all of them."""
    if not any(True for _ in classifier.encoder.parameters()):  # a lookup table in its place has no layers
        return {}
    layers = encoder_layers(classifier.encoder)
    depths = dict.fromkeys(classifier.encoder.parameters(), len(layers))
    for above, layer in enumerate(reversed(layers)):
        depths |= dict.fromkeys(layer.parameters(), above)
    return depths
