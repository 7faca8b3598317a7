"""Attention and dropout for training on CPU: the same functions as torch's own, faster.

torch (2.13) draws dropout's mask one number at a time on one core, and its scaled_dot_product_attention takes much
longer than its matrix products: together a third of a step of MiniLM.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from assets.training.tasks.classification.bert import Bert

__all__ = ["Dropout", "attend", "use_cpu_kernels"]

_MODELS = ("bert", "roberta", "xlm-roberta")
"""Encoders whose attention is that of `attend`: no relative positions, no shared heads."""

_NAME = "cpu"
_STEPS = 1 << 16
"""Dropout probabilities are multiples of 1 / this."""


class Dropout(nn.Dropout):
    """nn.Dropout with a mask that costs a fifth; it also depends only on torch's random state."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        return input * _mask(input, self.p).mul_(1 / (1 - self.p))


class _Attention(torch.autograd.Function):
    """softmax(query key^T scale + bias) with dropout, times value; all [rows x heads, tokens, width] except the
    bias."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
        scores = torch.bmm(query, key.transpose(1, 2))
        if bias is not None:
            scores.view(len(bias), -1, *scores.shape[1:]).add_(bias)
        shares = torch.softmax(scores, -1)
        kept = shares * _mask(shares, dropout) if dropout else shares
        ctx.scale = 1 / (1 - dropout)
        output = torch.bmm(kept, value).mul_(ctx.scale)
        ctx.save_for_backward(query, key, value, shares, kept, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """As in FlashAttention (Dao et al. 2022): the softmax's row sums are those of gradient times output."""
        query, key, value, shares, kept, output = ctx.saved_tensors
        sums = (gradient * output).sum(-1, keepdim=True)
        gradient = gradient * ctx.scale
        of_scores = torch.bmm(gradient, value.transpose(1, 2)).mul_(kept).addcmul_(shares, sums, value=-1)
        of_value = torch.bmm(kept.transpose(1, 2), gradient)
        return torch.bmm(of_scores, key), torch.bmm(of_scores.transpose(1, 2), query), of_value, None, None


def attend(
    module: nn.Module,  # noqa: ARG001 - transformers' interface
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query, key and value [rows, heads, tokens, width], an additive mask.

    Returns [rows, tokens, heads, width].
    """
    rows, heads, tokens, width = query.shape
    scaled = query * (width**-0.5 if scaling is None else scaling)
    parts = [part.reshape(rows * heads, tokens, width) for part in (scaled, key, value)]
    output: Tensor = _Attention.apply(*parts, attention_mask, dropout)  # type: ignore[no-untyped-call]
    return output.view(rows, heads, tokens, width).transpose(1, 2), None


def use_cpu_kernels(classifier: nn.Module, encoder: Any) -> None:
    """Use the dropout above in a classifier, and the attention above in the encoders of `_MODELS`."""
    if isinstance(encoder, Bert):
        encoder.set_attention(attend)
    elif encoder.config.model_type in _MODELS:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import eager_mask

        AttentionInterface.register(_NAME, attend)
        AttentionMaskInterface.register(_NAME, eager_mask)
        encoder.set_attn_implementation(_NAME)
    for parent in list(classifier.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))


def _mask(like: Tensor, dropout: float) -> Tensor:
    """Ones, and zeros where dropped; drawn by numpy, with a seed from torch's random state."""
    seed = int(torch.randint(1 << 62, ()))
    drawn = np.random.SFC64(seed).random_raw(-(-like.numel() // 4)).view(np.uint16)[: like.numel()]
    kept = torch.from_numpy(drawn >= round(dropout * _STEPS))
    return kept.view(like.shape).to(like.dtype)
