"""The classifier around a pretrained encoder."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from assets.exceptions import BaseModelError, SettingsError
from assets.features.snapshot import Snapshot
from assets.settings import load_domain
from assets.training.tasks.classification.collate import collate
from assets.training.tasks.classification.model import TextClassifier, freeze, new_classifier
from assets.training.tasks.classification.preprocessing import Preprocessing, fit_preprocessing

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame, snapshot: Snapshot) -> Preprocessing:
    return fit_preprocessing(frame, snapshot.features, DOMAIN, max_tokens=32, hashed_words=512, prior_labels=10)


@pytest.fixture
def classifier(encoder: Path, fitted: Preprocessing) -> TextClassifier:
    return new_classifier(encoder, fitted)


def trained(classifier: TextClassifier) -> set[str]:
    return {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}


def test_the_encoder_starts_from_its_pretrained_weights(encoder: Path, classifier: TextClassifier) -> None:
    pretrained, own = load_file(encoder / "model.safetensors"), classifier.encoder.state_dict()
    assert own
    assert all(torch.equal(own[name], pretrained[name]) for name in own)


def test_the_linear_branch_has_its_share_of_the_answer_and_none_in_training(
    encoder: Path, fitted: Preprocessing, frame: pd.DataFrame
) -> None:
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    weights = np.random.default_rng(0).normal(size=(512, len(LABELS))).astype(np.float32)
    rows = collate(fitted.encode(frame[:8], tokenizer), np.arange(8), 0)
    answers = {}
    for share in (0.0, 0.25, 1.0):
        torch.manual_seed(0)
        classifier = new_classifier(encoder, fitted, weights, share)
        answers[share] = classifier.train(False)(**rows)
        torch.manual_seed(1)
        answers[share, "training"] = classifier.train()(**rows)
    assert torch.allclose(answers[0.25], 0.75 * answers[0.0] + 0.25 * answers[1.0], atol=1e-5)
    assert not torch.allclose(answers[0.0], answers[1.0])
    assert torch.equal(answers[0.0, "training"], answers[1.0, "training"])


def test_layers_are_frozen_from_the_bottom(classifier: TextClassifier) -> None:
    freeze(classifier, trainable_layers=1, train_embeddings=True)
    names = trained(classifier)
    assert not [name for name in names if "embeddings" in name or "layer.0." in name]
    assert [name for name in names if "layer.1." in name]
    assert "words.weight" not in names


def test_no_layer_trained_leaves_the_head(classifier: TextClassifier) -> None:
    freeze(classifier, trainable_layers=0, train_embeddings=False)
    assert not [name for name in trained(classifier) if name.startswith("encoder.")]
    assert "output.weight" in trained(classifier)


def test_word_embeddings_can_stay_as_they_are(classifier: TextClassifier) -> None:
    freeze(classifier, trainable_layers=None, train_embeddings=False)
    assert "encoder.embeddings.word_embeddings.weight" not in trained(classifier)
    assert "encoder.embeddings.position_embeddings.weight" in trained(classifier)


def test_what_is_frozen_drops_nothing(classifier: TextClassifier) -> None:
    freeze(classifier, trainable_layers=1, train_embeddings=False)
    classifier.train()
    dropping = {
        name for name, module in classifier.named_modules() if isinstance(module, torch.nn.Dropout) and module.training
    }
    assert not [name for name in dropping if "embeddings" in name or "layer.0." in name]
    assert [name for name in dropping if "layer.1." in name]


def test_more_layers_than_there_are_is_a_mistake(classifier: TextClassifier) -> None:
    with pytest.raises(SettingsError, match="trainable_layers: 3, but the base model has 2"):
        freeze(classifier, trainable_layers=3, train_embeddings=False)


def test_more_tokens_than_the_encoder_takes_is_a_mistake(encoder: Path, frame: pd.DataFrame) -> None:
    fitted = fit_preprocessing(frame, [], DOMAIN, max_tokens=1024, hashed_words=0, prior_labels=10)
    with pytest.raises(BaseModelError, match="takes at most 512"):
        new_classifier(encoder, fitted)


def test_without_words_and_features_there_is_still_a_model(encoder: Path, frame: pd.DataFrame) -> None:
    classifier = new_classifier(
        encoder, fit_preprocessing(frame, [], DOMAIN, max_tokens=32, hashed_words=0, prior_labels=10)
    )
    assert classifier.words is None
    assert classifier.feature_network is None
    assert classifier.prior_scale.shape == (0,)
