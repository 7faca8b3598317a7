"""The router around a pretrained encoder."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from assets.exceptions import BaseModelError, SettingsError
from assets.features.snapshot import Snapshot
from assets.settings import QUEUES
from assets.training.batches import collate
from assets.training.model import ComplaintRouter, freeze, new_router
from assets.training.preprocessing import Preprocessing, fit_preprocessing


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame, snapshot: Snapshot) -> Preprocessing:
    return fit_preprocessing(frame, snapshot.features, max_tokens=32, hashed_words=512, prior_labels=10)


@pytest.fixture
def router(encoder: Path, fitted: Preprocessing) -> ComplaintRouter:
    return new_router(encoder, fitted)


def trained(router: ComplaintRouter) -> set[str]:
    return {name for name, parameter in router.named_parameters() if parameter.requires_grad}


def test_the_encoder_starts_from_its_pretrained_weights(encoder: Path, router: ComplaintRouter) -> None:
    pretrained, own = load_file(encoder / "model.safetensors"), router.encoder.state_dict()
    assert own
    assert all(torch.equal(own[name], pretrained[name]) for name in own)


def test_the_linear_branch_has_its_share_of_the_answer_and_none_in_training(
    encoder: Path, fitted: Preprocessing, frame: pd.DataFrame
) -> None:
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    weights = np.random.default_rng(0).normal(size=(512, len(QUEUES))).astype(np.float32)
    rows = collate(fitted.encode(frame[:8], tokenizer), np.arange(8), 0)
    answers = {}
    for share in (0.0, 0.25, 1.0):
        torch.manual_seed(0)
        router = new_router(encoder, fitted, weights, share)
        answers[share] = router.train(False)(**rows)
        torch.manual_seed(1)
        answers[share, "training"] = router.train()(**rows)
    assert torch.allclose(answers[0.25], 0.75 * answers[0.0] + 0.25 * answers[1.0], atol=1e-5)
    assert not torch.allclose(answers[0.0], answers[1.0])
    assert torch.equal(answers[0.0, "training"], answers[1.0, "training"])


def test_layers_are_frozen_from_the_bottom(router: ComplaintRouter) -> None:
    freeze(router, trainable_layers=1, train_embeddings=True)
    names = trained(router)
    assert not [name for name in names if "embeddings" in name or "layer.0." in name]
    assert [name for name in names if "layer.1." in name]
    assert "words.weight" not in names


def test_no_layer_trained_leaves_the_head(router: ComplaintRouter) -> None:
    freeze(router, trainable_layers=0, train_embeddings=False)
    assert not [name for name in trained(router) if name.startswith("encoder.")]
    assert "output.weight" in trained(router)


def test_word_embeddings_can_stay_as_they_are(router: ComplaintRouter) -> None:
    freeze(router, trainable_layers=None, train_embeddings=False)
    assert "encoder.embeddings.word_embeddings.weight" not in trained(router)
    assert "encoder.embeddings.position_embeddings.weight" in trained(router)


def test_what_is_frozen_drops_nothing(router: ComplaintRouter) -> None:
    freeze(router, trainable_layers=1, train_embeddings=False)
    router.train()
    dropping = {
        name for name, module in router.named_modules() if isinstance(module, torch.nn.Dropout) and module.training
    }
    assert not [name for name in dropping if "embeddings" in name or "layer.0." in name]
    assert [name for name in dropping if "layer.1." in name]


def test_more_layers_than_there_are_is_a_mistake(router: ComplaintRouter) -> None:
    with pytest.raises(SettingsError, match="trainable_layers: 3, but the base model has 2"):
        freeze(router, trainable_layers=3, train_embeddings=False)


def test_more_tokens_than_the_encoder_takes_is_a_mistake(encoder: Path, frame: pd.DataFrame) -> None:
    fitted = fit_preprocessing(frame, [], max_tokens=1024, hashed_words=0, prior_labels=10)
    with pytest.raises(BaseModelError, match="takes at most 512"):
        new_router(encoder, fitted)


def test_without_words_and_features_there_is_still_a_model(encoder: Path, frame: pd.DataFrame) -> None:
    router = new_router(encoder, fit_preprocessing(frame, [], max_tokens=32, hashed_words=0, prior_labels=10))
    assert router.words is None
    assert router.feature_network is None
    assert router.prior_scale.shape == (0,)
