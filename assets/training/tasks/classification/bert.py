"""BERT (Devlin et al. 2019) without transformers, but with that library's names of the weights.

Importing its models takes as long as the rest of the start of a training. The outputs differ from its BertModel's only
by rounding (tests/training/test_bert.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

__all__ = ["Bert", "BertSettings", "Hidden"]

Attention = Callable[..., tuple[Tensor, None]]


class Hidden(NamedTuple):
    """The output of an encoder, named as in transformers: hidden states [rows, tokens, width]."""

    last_hidden_state: Tensor


@dataclass(frozen=True)
class BertSettings:
    """The fields of a BERT's config.json that an encoder needs; the defaults are transformers'."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    model_type: str = "bert"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "BertSettings | None":
        """The settings of a config.json; None unless it describes a plain BERT."""
        plain = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
        plain |= {"add_cross_attention": False, "chunk_size_feed_forward": 0}
        if config.get("model_type") != "bert" or any(config.get(name, value) != value for name, value in plain.items()):
            return None
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})

    def to_diff_dict(self) -> dict[str, Any]:
        """All settings by name, like the method of transformers' configurations."""
        return asdict(self)


class Bert(nn.Module):
    """The encoder, without a pooler."""

    base_model_prefix = "bert"
    supports_gradient_checkpointing = True

    def __init__(self, config: BertSettings) -> None:
        super().__init__()
        self.config, self.is_activation_checkpointing = config, False
        width = config.hidden_size
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, width),
                "position_embeddings": nn.Embedding(config.max_position_embeddings, width),
                "token_type_embeddings": nn.Embedding(config.type_vocab_size, width),
                "LayerNorm": nn.LayerNorm(width, eps=config.layer_norm_eps),
                "dropout": nn.Dropout(config.hidden_dropout_prob),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))})

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings["word_embeddings"]

    def activation_checkpointing_enable(self, _: Mapping[str, Any] | None = None) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.is_activation_checkpointing = True

    def set_attention(self, attend: Attention) -> None:
        """Set the attention function of every layer, with transformers' interface."""
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            layer.attend = attend

    @property
    def layers(self) -> nn.ModuleList:
        return self.encoder["layer"]  # type: ignore[return-value]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Hidden:
        """Hidden states of tokens [rows, tokens], whose mask is 0 where there is padding."""
        parts, positions = self.embeddings, torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = parts["word_embeddings"](input_ids) + parts["position_embeddings"](positions)
        hidden = hidden + parts["token_type_embeddings"](torch.zeros_like(input_ids))
        hidden = parts["dropout"](parts["LayerNorm"](hidden))
        bias = None if attention_mask is None else _bias(attention_mask, hidden.dtype)
        for layer in self.layers:
            again = self.is_activation_checkpointing and self.training
            hidden = checkpoint(layer, hidden, bias, use_reentrant=False) if again else layer(hidden, bias)
        return Hidden(hidden)


class _Layer(nn.Module):
    def __init__(self, config: BertSettings) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads, self.dropped = config.num_attention_heads, config.attention_probs_dropout_prob
        if width % self.heads:
            raise ValueError(f"hidden_size {width} is no multiple of num_attention_heads {self.heads}")
        self.attend: Attention = _torchs
        own = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": own, "output": _output(width, width, config)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _output(inner, width, config)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        hidden = _add(self.attention["output"], self._attention(hidden, bias), hidden)
        return _add(self.output, gelu(self.intermediate["dense"](hidden)), hidden)

    def _attention(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        rows, tokens, width = hidden.shape
        own = self.attention["self"]
        query, key, value = (
            own[name](hidden).view(rows, tokens, self.heads, width // self.heads).transpose(1, 2)  # type: ignore[index]
            for name in ("query", "key", "value")
        )
        output, _ = self.attend(self, query, key, value, bias, self.dropped if self.training else 0.0)
        return output.reshape(rows, tokens, width)


def _output(inputs: int, width: int, config: BertSettings) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "dense": nn.Linear(inputs, width),
            "LayerNorm": nn.LayerNorm(width, eps=config.layer_norm_eps),
            "dropout": nn.Dropout(config.hidden_dropout_prob),
        }
    )


def _add(output: nn.Module, part: Tensor, hidden: Tensor) -> Tensor:
    """The output of a part of a layer, added to its input."""
    parts: Any = output
    added: Tensor = parts["LayerNorm"](parts["dropout"](parts["dense"](part)) + hidden)
    return added


def _bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores [rows, heads, tokens, tokens]: nearly minus infinity at padding."""
    masked = torch.zeros_like(attention_mask, dtype=dtype).masked_fill(attention_mask == 0, torch.finfo(dtype).min)
    return masked[:, None, None, :]


def _torchs(
    _: nn.Module, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float
) -> tuple[Tensor, None]:
    return scaled_dot_product_attention(query, key, value, bias, dropout).transpose(1, 2), None
