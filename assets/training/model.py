"""The model: a transformer over the text, a small network over the features, a linear branch over hashed words.

    tokens ----> encoder -> mean pooling --+
    features --> small network ------------+--> linear --> logits --+
    log-priors of the row's company and state -> scaled --> + ------+--> weighted mean
    hashed words --> one weight per bucket and queue ---------------+

The linear branch is fitted before and not trained here: while the rest is, it has no say. In the end the answer is
divided by a temperature that makes the model as sure as it is right.

Nothing here knows that it is trained on several machines, or by what.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from assets.exceptions import BaseModelError, SettingsError, describe
from assets.settings import QUEUES
from assets.training.model_files import read_shapes
from assets.training.preprocessing import Preprocessing, prior_entities

__all__ = [
    "ComplaintRouter",
    "RouterConfig",
    "empty_encoder",
    "encoder_layers",
    "freeze",
    "load_encoder",
    "load_router",
    "mean_pooling",
    "new_router",
    "router_config",
]

Reader = Callable[[Path, PretrainedConfig], PreTrainedModel]

_FEATURE_WIDTH = 64
_DROPOUT = 0.1
_PRIOR_SCALE = 0.5


class RouterConfig(PretrainedConfig):  # type: ignore[misc]
    """Widths of the router, and the configuration of the encoder inside it."""

    model_type = "complaint-router"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        queues: list[str] | None = None,
        inputs: int = 0,
        entities: int = 0,
        hashed_words: int = 0,
        word_share: float = 0.0,
        calibration_temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {}
        self.queues = queues or []
        self.inputs = inputs
        self.entities = entities
        self.hashed_words = hashed_words
        self.word_share = word_share
        self.calibration_temperature = calibration_temperature
        super().__init__(**kwargs)


class ComplaintRouter(PreTrainedModel):  # type: ignore[misc]
    """Text, features and words fused into one logit per queue."""

    config_class = RouterConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: RouterConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.encoder = encoder if encoder is not None else empty_encoder(AutoConfig.for_model(**config.encoder))
        width, queues = self.encoder.config.hidden_size, len(config.queues)
        self.feature_network = _feature_network(config.inputs) if config.inputs else None
        self.dropout = nn.Dropout(_DROPOUT)
        self.output = nn.Linear(width + (_FEATURE_WIDTH if config.inputs else 0), queues)
        self.words = nn.EmbeddingBag(config.hashed_words, queues, mode="sum") if config.hashed_words else None
        if self.words is not None:
            self.words.requires_grad_(False)
        scale = torch.full((config.entities,), _PRIOR_SCALE)
        if config.entities:
            self.prior_scale = nn.Parameter(scale)
        else:  # ZeRO-3 cannot gather a parameter of no elements
            self.register_buffer("prior_scale", scale)
        self.post_init()

    @property
    def padding(self) -> int:
        """The token that fills up short rows."""
        return self.encoder.config.pad_token_id or 0

    def train(self, mode: bool = True) -> "ComplaintRouter":
        """Switch dropout on or off; what is frozen never drops anything, as it has nothing to be kept from learning."""
        super().train(mode)
        for module in self.encoder.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                nn.Module.train(module, False)
        return self

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif module is self.words:
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
        """Logits [rows, queues] in float32.

        input_ids and attention_mask: [rows, tokens]; features: [rows, inputs]; priors: [rows, entities, queues];
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


def load_encoder(base: Path, max_tokens: int, read: Reader | None = None) -> PreTrainedModel:
    """A pretrained encoder. No code from the folder is run and no pickled weights are read.

    read: reads the weights of a folder into an encoder of this configuration; None reads them whole, in float32.
    Raises BaseModelError when it cannot be read or takes fewer tokens than asked for.
    """
    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        _require_weights(base, config, empty_encoder)
        encoder = read(base, config) if read else _load(AutoModel, base, config)
    except Exception as error:  # each architecture has errors of its own for a configuration that makes no sense
        raise BaseModelError(f"training.base_model: {base} cannot be read: {describe(error)}") from None
    limit = getattr(encoder.config, "max_position_embeddings", max_tokens)
    if max_tokens > limit:
        raise BaseModelError(f"training.max_tokens: {max_tokens}, but the base model takes at most {limit}")
    return _without_pooler(encoder)


def new_router(
    base: Path,
    preprocessing: Preprocessing,
    words: NDArray[np.float32] | None = None,
    word_share: float = 0.0,
    read: Reader | None = None,
) -> ComplaintRouter:
    """A router around a pretrained encoder, which `load_encoder` reads by `read`.

    words: weights [buckets, queues] of the linear branch, which has `word_share` of the answer; none are zeros.
    Raises BaseModelError as `load_encoder` does.
    """
    encoder = load_encoder(base, preprocessing.max_tokens, read)
    router = ComplaintRouter(router_config(encoder.config, preprocessing, word_share), encoder)
    if router.words is not None and words is not None:
        router.words.weight.copy_(torch.tensor(words))
    return router


def router_config(encoder: PretrainedConfig, preprocessing: Preprocessing, word_share: float) -> RouterConfig:
    """The widths that rows encoded by `preprocessing` ask for, around an encoder of this configuration."""
    return RouterConfig(
        encoder=encoder.to_diff_dict() | {"model_type": encoder.model_type},
        queues=list(QUEUES),
        inputs=preprocessing.inputs,
        entities=len(prior_entities(preprocessing.features)),
        hashed_words=preprocessing.hashed_words,
        word_share=word_share,
    )


def load_router(path: Path) -> ComplaintRouter:
    """A trained router from a bundle, in float32 on the CPU, ready to predict. No code from the folder is run.

    Raises ValueError when its weights are not those that its configuration asks for.
    """
    config = RouterConfig.from_pretrained(path, local_files_only=True)
    _require_weights(path, config, ComplaintRouter)
    router: ComplaintRouter = _load(ComplaintRouter, path, config)
    router.train(False)
    return router


def freeze(router: ComplaintRouter, trainable_layers: int | None, train_embeddings: bool) -> None:
    """Leave out of training the encoder's embeddings, its lower layers, or both.

    trainable_layers counts from the top; None trains them all. The other parts of the router are always trained.
    """
    layers = encoder_layers(router.encoder)
    if trainable_layers is not None and trainable_layers > len(layers):
        raise SettingsError(f"training.trainable_layers: {trainable_layers}, but the base model has {len(layers)}")
    frozen = list(layers) if trainable_layers == 0 else list(layers)[:-trainable_layers] if trainable_layers else []
    modules: list[nn.Module] = [*frozen]
    if trainable_layers is not None and trainable_layers < len(layers):
        modules.append(_embeddings(router.encoder))
    for module in modules:
        module.requires_grad_(False)
    if not train_embeddings:
        router.encoder.get_input_embeddings().requires_grad_(False)


def encoder_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """The encoder's layers, from the bottom up. Raises BaseModelError when it has no list of them."""
    count = encoder.config.num_hidden_layers
    found = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not found:
        raise BaseModelError(f"training.base_model: no list of {count} layers in {type(encoder).__name__}")
    return found[0]


def _feature_network(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, _FEATURE_WIDTH), nn.GELU(), nn.Dropout(_DROPOUT))


def _embeddings(encoder: PreTrainedModel) -> nn.Module:
    embeddings: nn.Module = getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()
    return embeddings


def empty_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """An encoder of random weights, without its pooler."""
    encoder: PreTrainedModel = AutoModel.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    return _without_pooler(encoder)


def _require_weights(folder: Path, config: PretrainedConfig, build: Callable[[Any], nn.Module]) -> None:
    """Raises ValueError when a model of this configuration has more weights than the files of its folder.

    `build` makes it on the device `meta`, where it takes no memory: what the configuration asks for is thus bounded by
    the size of the files before any memory is.
    """
    with torch.device("meta"):
        asked = sum(weight.numel() for weight in build(config).parameters())
    if asked > (held := sum(map(prod, read_shapes(folder).values()))):
        raise ValueError(f"config.json asks for {asked:,} weights, the files have {held:,}")


def _load(kind: Any, folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """A model of a folder, none of whose weights is random. Raises ValueError when the folder lacks some."""
    logging.disable_progress_bar()
    model: PreTrainedModel
    model, info = kind.from_pretrained(
        folder,
        config=config,
        use_safetensors=True,
        local_files_only=True,
        attn_implementation="sdpa",
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
        raise ValueError(f"the files lack {missing[0]}")
    return model


def _without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    if getattr(encoder, "pooler", None) is not None:
        encoder.register_module("pooler", None)
    return encoder
