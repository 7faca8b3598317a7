"""Our BERT against transformers'."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from assets.training.tasks.classification.attention import attend
from assets.training.tasks.classification.bert import Bert, BertSettings


@pytest.fixture
def ours(encoder: Path) -> Bert:
    settings = BertSettings.of(json.loads((encoder / "config.json").read_text()))
    assert settings is not None
    bert = Bert(settings)
    weights = load_file(encoder / "model.safetensors")
    bert.load_state_dict({name: weight for name, weight in weights.items() if not name.startswith("pooler.")})
    return bert


@pytest.fixture
def theirs(encoder: Path) -> torch.nn.Module:
    from transformers import AutoModel

    model: torch.nn.Module = AutoModel.from_pretrained(encoder, attn_implementation="eager")
    return model


def batch() -> dict[str, torch.Tensor]:
    """Rows of 9, 5 and 1 tokens."""
    mask = (torch.arange(9) < torch.tensor([[9], [5], [1]])).long()
    return {"input_ids": torch.arange(27).reshape(3, 9) % 50, "attention_mask": mask}


def test_answers_are_transformers(ours: Bert, theirs: torch.nn.Module) -> None:
    real = batch()["attention_mask"].bool()
    expected = theirs.eval()(**batch()).last_hidden_state[real]
    torch.testing.assert_close(ours.eval()(**batch()).last_hidden_state[real], expected, atol=1e-5, rtol=0)
    ours.set_attention(attend)
    torch.testing.assert_close(ours(**batch()).last_hidden_state[real], expected, atol=1e-5, rtol=0)


def test_gradients_are_transformers(ours: Bert, theirs: torch.nn.Module) -> None:
    real = batch()["attention_mask"].bool()
    for model in (ours.eval(), theirs.eval()):
        model(**batch()).last_hidden_state[real].square().sum().backward()
    expected = {name: weight.grad for name, weight in theirs.named_parameters() if not name.startswith("pooler.")}
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, expected.pop(name), atol=1e-4, rtol=1e-4)
    assert not expected


def test_it_drops_where_transformers_does(ours: Bert, theirs: torch.nn.Module) -> None:
    def dropped(model: torch.nn.Module) -> list[float]:
        return [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]

    # transformers keeps one more a layer, which its attention function reads the rate from
    assert len(dropped(ours)) == len(dropped(theirs)) - 2
    ours.train()
    torch.manual_seed(0)
    first, second = (ours(**batch()).last_hidden_state for _ in range(2))
    assert not torch.equal(first, second)


def test_activations_computed_again_change_nothing(ours: Bert) -> None:
    def gradient() -> torch.Tensor:
        torch.manual_seed(0)
        ours.zero_grad()
        ours(**batch()).last_hidden_state.square().sum().backward()
        found = ours.layers[0].output["dense"].weight.grad
        assert found is not None
        return found.clone()

    ours.train()
    kept = gradient()
    ours.activation_checkpointing_enable()
    assert torch.equal(gradient(), kept)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "roberta"},
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"add_cross_attention": True},
    ],
)
def test_what_is_no_plain_bert_is_left_to_transformers(encoder: Path, change: dict[str, object]) -> None:
    assert BertSettings.of(json.loads((encoder / "config.json").read_text()) | change) is None
