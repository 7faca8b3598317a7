"""Attention and dropout on CPU against torch's own."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from assets.features.snapshot import Snapshot
from assets.settings import load_domain
from assets.training.tasks.classification.attention import Dropout, attend, use_cpu_kernels
from assets.training.tasks.classification.collate import collate
from assets.training.tasks.classification.model import TextClassifier, new_classifier
from assets.training.tasks.classification.preprocessing import fit_preprocessing

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 7, 4, dtype=dtype, requires_grad=True) for _ in range(3)]


def bias(dtype: torch.dtype) -> torch.Tensor:
    """The second of two rows has two tokens of padding."""
    found = torch.zeros(2, 1, 7, 7, dtype=dtype)
    found[1, :, :, 5:] = torch.finfo(dtype).min
    return found


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_attention_and_its_gradients_are_torchs(dtype: torch.dtype, apart: float) -> None:
    parts, mask = inputs(dtype), bias(dtype)
    ours = attend(torch.nn.Identity(), *parts, mask)[0]
    theirs = scaled_dot_product_attention(*parts, mask).transpose(1, 2)
    gradient = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs, atol=apart, rtol=0)
    for own, other in zip(
        torch.autograd.grad(ours, parts, gradient), torch.autograd.grad(theirs, parts, gradient), strict=True
    ):
        torch.testing.assert_close(own, other, atol=apart, rtol=0)


def test_gradients_are_right_where_shares_are_dropped() -> None:
    def dropped(*parts: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return attend(torch.nn.Identity(), *parts, None, dropout=0.3, scaling=0.7)[0]

    assert torch.autograd.gradcheck(dropped, inputs(torch.float64))


def test_shares_are_dropped_and_the_rest_is_scaled() -> None:
    query = key = torch.zeros(2, 2, 500, 4)
    found = attend(torch.nn.Identity(), query, key, torch.ones(2, 2, 500, 4), None, dropout=0.25)[0]
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    assert float(found.std()) == pytest.approx((0.25 / 0.75 / 500) ** 0.5, rel=0.1)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    found = Dropout(0.1)(torch.ones(1001, 999))
    assert float((found == 0).float().mean()) == pytest.approx(0.1, abs=1e-3)
    assert float(found.mean()) == pytest.approx(1, abs=1e-3)


def test_dropout_is_a_function_of_torchs_random_state() -> None:
    ones, dropout = torch.ones(100), Dropout(0.5)
    torch.manual_seed(7)
    first, second = dropout(ones), dropout(ones)
    torch.manual_seed(7)
    assert torch.equal(dropout(ones), first)
    assert not torch.equal(first, second)
    dropout.train(False)
    assert torch.equal(dropout(ones), ones)


@pytest.fixture
def classifier(encoder: Path, frame: pd.DataFrame, snapshot: Snapshot) -> TextClassifier:
    torch.manual_seed(0)
    return new_classifier(
        encoder, fit_preprocessing(frame, snapshot.features, DOMAIN, 32, hashed_words=512, prior_labels=10)
    )


def test_a_router_answers_as_it_did_with_torchs(classifier: TextClassifier, frame: pd.DataFrame, encoder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    fitted = fit_preprocessing(frame, classifier_features(frame), DOMAIN, 32, hashed_words=512, prior_labels=10)
    rows = fitted.encode(frame[:8], tokenizer)
    batch = collate(rows, rows.lengths.argsort(), classifier.padding)
    classifier.eval()
    before = classifier(**batch)
    use_cpu_kernels(classifier, classifier.encoder)
    classifier.eval()
    torch.testing.assert_close(classifier(**batch), before, atol=1e-5, rtol=1e-4)
    assert all(layer.attend is attend for layer in classifier.encoder.layers)
    assert isinstance(classifier.dropout, Dropout)


def classifier_features(frame: pd.DataFrame) -> tuple[str, ...]:
    return tuple(name for name in frame.columns if name.startswith("company_") or name == "text_length")
