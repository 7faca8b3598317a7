"""The model: a transformer over the text, a small network over the features, a linear branch over hashed words.

    tokens ----> encoder -> mean pooling --+
    features --> small network ------------+--> linear --> logits --+
    log-priors of the row's entities          -> scaled --> + ------+--> weighted mean
    hashed words --> one weight per bucket and label ---------------+

The linear branch is fitted before and not trained here, and is left out while the rest is trained. Finally the logits
are divided by a temperature that calibrates the confidence.

Nothing here depends on how, or on how many machines, it is trained.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from assets.exceptions import BaseModelError, SettingsError, describe
from assets.training.model_files import read_config, read_shapes
from assets.training.task import Reader
from assets.training.tasks.classification.bert import Bert, BertSettings
from assets.training.tasks.classification.preprocessing import Preprocessing

__all__ = [
    "ClassifierConfig",
    "TextClassifier",
    "around",
    "empty_encoder",
    "encoder_layers",
    "freeze",
    "load_classifier",
    "load_encoder",
    "mean_pooling",
    "new_classifier",
]

_FEATURE_WIDTH = 64
_DROPOUT = 0.1
_PRIOR_SCALE = 0.5


@dataclass
class ClassifierConfig:
    """Widths of the classifier, and the configuration of the encoder inside it."""

    encoder: dict[str, Any]
    labels: list[str]
    inputs: int = 0
    entities: int = 0
    hashed_words: int = 0
    word_share: float = 0.0
    calibration_temperature: float = 1.0

    @classmethod
    def read(cls, folder: Path) -> "ClassifierConfig":
        """Read what `save` wrote; other keys of a config.json are ignored."""
        config = read_config(folder)
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})

    def save(self, folder: Path) -> None:
        content = {"model_type": "text-classifier"} | asdict(self)
        (folder / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True))


class TextClassifier(nn.Module):
    """Text, features and words fused into one logit per label."""

    def __init__(self, config: ClassifierConfig, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        inner: Any = encoder if encoder is not None else empty_encoder(config.encoder)
        self.encoder, width, labels = inner, inner.config.hidden_size, len(config.labels)
        self.feature_network = _feature_network(config.inputs) if config.inputs else None
        self.dropout = nn.Dropout(_DROPOUT)
        self.output = nn.Linear(width + (_FEATURE_WIDTH if config.inputs else 0), labels)
        self.words = nn.EmbeddingBag(config.hashed_words, labels, mode="sum") if config.hashed_words else None
        if self.words is not None:
            self.words.requires_grad_(False)
        scale = torch.full((config.entities,), _PRIOR_SCALE)
        if config.entities:
            self.prior_scale = nn.Parameter(scale)
        else:  # ZeRO-3 cannot gather a parameter of no elements
            self.register_buffer("prior_scale", scale)
        self._draw()

    @property
    def padding(self) -> int:
        """The token that pads short rows."""
        return self.encoder.config.pad_token_id or 0

    def train(self, mode: bool = True) -> "TextClassifier":
        """Switch dropout on or off; frozen parts never use it, because they do not learn."""
        super().train(mode)
        for module in self.encoder.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                nn.Module.train(module, False)
        return self

    def _draw(self) -> None:
        """Initialize the new parts on top of the encoder: small weights, and zeros in the linear branch."""
        for module in (*(self.feature_network or ()), self.output):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.words is not None:
            nn.init.zeros_(self.words.weight)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        features: Tensor,
        priors: Tensor,
        buckets: Tensor,
        bucket_weights: Tensor,
        bucket_offsets: Tensor,
    ) -> Tensor:
        """Logits [rows, labels] in float32.

        input_ids and attention_mask: [rows, tokens]; features: [rows, inputs]; priors: [rows, entities, labels];
        buckets and bucket_weights: the hashed words of all rows end to end, row i from bucket_offsets[i].
        """
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        fused = mean_pooling(hidden, attention_mask)
        if self.feature_network is not None:
            fused = torch.cat([fused, self.feature_network(features.to(fused.dtype))], dim=1)
        logits: Tensor = self.output(self.dropout(fused)).float()
        logits = logits + torch.einsum("e,req->rq", self.prior_scale.float(), priors.float())
        if self.training:
            return logits
        if self.words is not None:
            weights = bucket_weights.to(self.words.weight.dtype)
            words: Tensor = self.words(buckets, bucket_offsets, per_sample_weights=weights)
            logits = torch.lerp(logits, words.float(), self.config.word_share)
        return logits / float(self.config.calibration_temperature)


def mean_pooling(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean [rows, width] of the hidden states [rows, tokens, width] of the tokens that are not padding."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def load_encoder(base: Path, max_tokens: int, read: Reader | None = None) -> Any:
    """A pretrained encoder. No code from the folder is run and no pickled weights are read.

    A plain BERT uses our implementation, any other encoder transformers'. read: None reads all weights, in float32.
    Raises BaseModelError when it cannot be read or supports fewer tokens than `max_tokens`.
    """
    try:
        config = read_config(base)
        _require_weights(base, lambda: empty_encoder(config))
        encoder: Any = read(base, lambda: empty_encoder(config)) if read else _read_encoder(base, config)
    except Exception as error:  # each architecture has its own errors for an invalid configuration
        raise BaseModelError(f"training.model.base_model: {base} cannot be read: {describe(error)}") from None
    limit = getattr(encoder.config, "max_position_embeddings", max_tokens)
    if max_tokens > limit:
        raise BaseModelError(f"training.model.max_tokens: {max_tokens}, but the base model takes at most {limit}")
    return encoder


def new_classifier(
    base: Path,
    preprocessing: Preprocessing,
    words: NDArray[np.float32] | None = None,
    word_share: float = 0.0,
    read: Reader | None = None,
) -> TextClassifier:
    """A classifier around a pretrained encoder, from `load_encoder` with `read`.

    words: weights [buckets, labels] of the linear branch, which has `word_share` of the answer; none are zeros.
    Raises BaseModelError as `load_encoder` does.
    """
    return around(load_encoder(base, preprocessing.max_tokens, read), preprocessing, words, word_share)


def around(
    encoder: Any, preprocessing: Preprocessing, words: NDArray[np.float32] | None, word_share: float
) -> TextClassifier:
    """A new classifier around an encoder, with the widths of rows encoded by `preprocessing`."""
    classifier = TextClassifier(_config(encoder.config, preprocessing, word_share), encoder)
    if classifier.words is not None and words is not None:
        classifier.words.weight.copy_(torch.tensor(words))
    return classifier


def _config(encoder: Any, preprocessing: Preprocessing, word_share: float) -> ClassifierConfig:
    return ClassifierConfig(
        encoder=encoder.to_diff_dict() | {"model_type": encoder.model_type},
        labels=list(preprocessing.labels),
        inputs=preprocessing.inputs,
        entities=len(preprocessing.entities),
        hashed_words=preprocessing.hashed_words,
        word_share=word_share,
    )


def load_classifier(path: Path) -> TextClassifier:
    """A trained classifier from a bundle, in float32 on the CPU, ready to predict. No code from the folder is run.

    Raises ValueError when its weights do not match its configuration.
    """
    config = ClassifierConfig.read(path)
    _require_weights(path, lambda: TextClassifier(config))
    classifier = TextClassifier(config)
    _fill(classifier, path)
    return classifier.train(False)


def freeze(classifier: TextClassifier, trainable_layers: int | None, train_embeddings: bool) -> None:
    """Freeze the encoder's embeddings, its lower layers, or both.

    trainable_layers counts from the top; None trains them all. The other parts of the classifier are always trained.
    """
    layers = encoder_layers(classifier.encoder)
    if trainable_layers is not None and trainable_layers > len(layers):
        raise SettingsError(
            f"training.model.trainable_layers: {trainable_layers}, but the base model has {len(layers)}"
        )
    frozen = list(layers) if trainable_layers == 0 else list(layers)[:-trainable_layers] if trainable_layers else []
    modules: list[nn.Module] = [*frozen]
    if trainable_layers is not None and trainable_layers < len(layers):
        modules.append(_embeddings(classifier.encoder))
    for module in modules:
        module.requires_grad_(False)
    if not train_embeddings:
        classifier.encoder.get_input_embeddings().requires_grad_(False)


def encoder_layers(encoder: Any) -> nn.ModuleList:
    """The encoder's layers, from the bottom up. Raises BaseModelError when they are not a list of modules."""
    count = encoder.config.num_hidden_layers
    lists = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise BaseModelError(f"training.model.base_model: no list of {count} layers in {type(encoder).__name__}")
    return lists[0]


def _feature_network(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, _FEATURE_WIDTH), nn.GELU(), nn.Dropout(_DROPOUT))


def _embeddings(encoder: Any) -> nn.Module:
    embeddings: nn.Module = getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()
    return embeddings


def empty_encoder(config: Mapping[str, Any]) -> nn.Module:
    """An encoder by a config.json, without its pooler. Its weights are meaningless."""
    if (plain := BertSettings.of(config)) is not None:
        return Bert(plain)
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    with no_init_weights():
        encoder = AutoModel.from_config(
            AutoConfig.for_model(**config), attn_implementation="sdpa", trust_remote_code=False
        )
    return _without_pooler(encoder)


def _require_weights(folder: Path, build: Callable[[], nn.Module]) -> None:
    """Raises ValueError when what `build` makes has more weights than the files of a folder.

    Only shapes are built: a configuration is checked against the size of the files before any memory is allocated.
    """
    with torch.device("meta"), _Undrawn():
        asked = sum(weight.numel() for weight in build().parameters())
    if asked > (held := sum(map(prod, read_shapes(folder).values()))):
        raise ValueError(f"config.json asks for {asked:,} weights, the files have {held:,}")


class _Undrawn(TorchFunctionMode):
    """Leaves weights uninitialized: drawing them on the device `meta` imports torch._dynamo, which takes a second."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draws = getattr(function, "__module__", None) == "torch.nn.init"
        return kwargs["tensor"] if draws else function(*args, **(kwargs or {}))


def _read_encoder(base: Path, config: Mapping[str, Any]) -> nn.Module:
    if (plain := BertSettings.of(config)) is None:
        return _read_by_transformers(base)
    with torch.device("meta"), _Undrawn():
        encoder = Bert(plain)
    _fill(encoder, base, encoder.base_model_prefix, assign=True)
    return encoder


def _fill(model: nn.Module, folder: Path, prefix: str = "", assign: bool = False) -> None:
    """Read a model's weights in float32, `assign` if it has none yet. Raises ValueError when the files lack some."""
    read: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        read |= {name.removeprefix(f"{prefix}."): weight for name, weight in load_file(file).items()}
    own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())} & {*model.state_dict()}
    if missing := sorted(own - {*read}):
        raise ValueError(f"the files lack {missing[0]}")
    weights = {name: read[name].to(torch.float32, copy=True) for name in own}
    model.load_state_dict(weights, strict=False, assign=assign)  # a weight tied to another one has no name of its own


def _read_by_transformers(folder: Path) -> nn.Module:
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    encoder, info = AutoModel.from_pretrained(
        folder,
        config=AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
        use_safetensors=True,
        local_files_only=True,
        attn_implementation="sdpa",
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
        raise ValueError(f"the files lack {missing[0]}")
    return _without_pooler(encoder)


def _without_pooler(encoder: nn.Module) -> nn.Module:
    if getattr(encoder, "pooler", None) is not None:
        encoder.register_module("pooler", None)
    return encoder
