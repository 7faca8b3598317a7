from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from assets.replay.frozen import TextTable, train_frozen
from assets.settings import TrainingSettings, load_domain, load_settings
from assets.training.base_model import resolve_base_model
from assets.training.launchers.launch import override
from assets.training.tasks.classification.collate import collate
from assets.training.tasks.classification.model import load_encoder, new_classifier

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

TOPICS = ("account", "card", "vehicle", "report", "collector", "transfer", "mortgage", "settlement", "student")
FEATURES = ("text_length",)


def rows(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    labels = random.integers(len(LABELS), size=count)
    filler = random.choice(["they", "never", "told", "me"], (count, 4))
    texts = [" ".join([*words, TOPICS[label]]) for label, words in zip(labels, filler, strict=True)]
    lengths = [float(len(text)) for text in texts]
    return pd.DataFrame(
        {
            "label": [LABELS[label] for label in labels],
            "text": texts,
            "company": "ACME",
            "state": "CA",
            "text_length": lengths,
        }
    )


@pytest.fixture(scope="module")
def settings() -> TrainingSettings:
    changes = {"max_tokens": 32, "hashed_words": 512, "epochs": 8.0, "batch_rows": 16}
    return override(load_settings("replay").training, changes)


@pytest.fixture(scope="module")
def texts(settings: TrainingSettings, tmp_path_factory: pytest.TempPathFactory) -> TextTable:
    return TextTable(settings, tmp_path_factory.mktemp("texts"))


def test_a_text_is_what_the_encoder_makes_of_it(texts: TextTable, settings: TrainingSettings) -> None:
    from tokenizers import Tokenizer

    base = resolve_base_model(settings.model.base_model).path
    told = ["a short one", "a text of a few more words than that"]
    places = [token.ids[0] for token in texts.encode_batch(told)]
    encoder, tokenizer = load_encoder(base, 32).eval(), Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    for text, place in zip(told, places, strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            whole = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(dim=1)[0]
        assert np.abs(texts.outputs[place] - whole.numpy()).max() < 0.05 * float(whole.abs().max())


def test_a_text_is_read_once(settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TextTable(settings, tmp_path)
    first.encode_batch(["one", "two", "one"])
    assert len(first.outputs) == 2

    def fail(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(TextTable, "_read", fail)
    (folder,) = tmp_path.iterdir()
    (folder / ".half.npz-x").write_bytes(b"half a file")
    again = TextTable(settings, tmp_path)
    (two,), (one,) = again.encode_batch(["two", "one"])
    assert np.array_equal(again.outputs[[*one, *two]], first.outputs[[0, 1]])
    with pytest.raises(AssertionError, match="read again"):
        again.encode_batch(["three"])
    assert TextTable(override(settings, {"max_tokens": 16}), tmp_path).outputs.shape == (0, 384)


def test_it_learns_and_is_the_same_every_time(texts: TextTable, settings: TrainingSettings) -> None:
    train, test = rows(256, seed=0), rows(64, seed=1)
    first, second = (train_frozen(train, FEATURES, DOMAIN, settings, texts).predict_proba(test) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.sum(axis=1) == pytest.approx(1.0)
    assert first.max(axis=1).mean() > 0.8  # without a temperature it is right far more often than it is sure
    assert (np.array(LABELS)[first.argmax(axis=1)] == test["label"]).mean() > 0.9


def test_it_is_the_router_around_the_encoder(texts: TextTable, settings: TrainingSettings) -> None:
    from tokenizers import Tokenizer

    frozen, test = train_frozen(rows(128, seed=0), FEATURES, DOMAIN, settings, texts), rows(20, seed=1)
    base = resolve_base_model(settings.model.base_model).path
    whole = new_classifier(base, frozen.preprocessing, word_share=settings.model.word_share).eval()
    whole.config.calibration_temperature = frozen.classifier.config.calibration_temperature
    lacking = whole.load_state_dict(frozen.classifier.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    assert all(name.startswith("encoder.") for name in lacking.missing_keys)
    encoded = frozen.preprocessing.encode(test, Tokenizer.from_file(str(base / "tokenizer.json")))
    with torch.inference_mode():
        found = whole(**collate(encoded, np.arange(len(test)), whole.padding)).softmax(dim=1).numpy()
    assert np.abs(found - frozen.predict_proba(test)).max() < 0.02
