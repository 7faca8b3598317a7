"""Learning rates by group and step, and what the engine is told."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from deepspeed.runtime.zero import stage_1_and_2
from deepspeed.utils import safe_get_full_grad
from tokenizers import Tokenizer

from assets.exceptions import SettingsError
from assets.features.snapshot import Snapshot
from assets.lake import Lake
from assets.settings import TrainingSettings, load_domain
from assets.training.bundle import load_bundle
from assets.training.launchers.compatibility import Machine
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import _deepspeed_config, override, plan_training, train
from assets.training.plan import TrainingPlan
from assets.training.program.checkpoints import Checkpoints
from assets.training.program.engine import consolidated_weights, engine_config, make_model, start_engine
from assets.training.program.optimization import rate_factor
from assets.training.program.progress import Progress
from assets.training.program.saving import Saver
from assets.training.tasks import TASKS
from assets.training.tasks.classification.collate import collate
from assets.training.tasks.classification.data import TrainingData
from assets.training.tasks.classification.groups import parameter_groups
from assets.training.tasks.classification.model import TextClassifier, freeze, new_classifier
from assets.training.tasks.classification.preprocessing import fit_preprocessing
from assets.training.tasks.classification.tuning import tune
from assets.training.tasks.classification.words import one_thread

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)
TASK = TASKS["classification"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def classifier(encoder: Path, frame: pd.DataFrame, snapshot: Snapshot) -> TextClassifier:
    return new_classifier(
        encoder, fit_preprocessing(frame, snapshot.features, DOMAIN, 32, hashed_words=512, prior_labels=10)
    )


def rates(classifier: TextClassifier, settings: TrainingSettings) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by parameter."""
    groups = parameter_groups(classifier, settings)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)
    return {name: found[id(p)] for name, p in classifier.named_parameters() if id(p) in found}


def test_each_layer_learns_more_slowly_than_the_one_above(
    classifier: TextClassifier, settings: TrainingSettings
) -> None:
    found = rates(classifier, override(settings, {"layer_rate_decay": 0.5, "learning_rate": 0.1, "weight_decay": 0.02}))
    assert found["encoder.encoder.layer.1.output.dense.weight"] == (0.1, 0.02)
    assert found["encoder.encoder.layer.0.output.dense.weight"] == (0.05, 0.02)
    assert found["encoder.embeddings.position_embeddings.weight"] == (0.025, 0.02)
    assert found["output.weight"] == (settings.optimizer.head_learning_rate, 0.02)
    assert "words.weight" not in found
    assert found["encoder.encoder.layer.0.output.dense.bias"] == (0.05, 0.0)
    assert found["encoder.embeddings.LayerNorm.weight"] == (0.025, 0.0)


def test_what_is_frozen_is_in_no_group(classifier: TextClassifier, settings: TrainingSettings) -> None:
    freeze(classifier, trainable_layers=1, train_embeddings=False)
    assert not [name for name in rates(classifier, settings) if "layer.0." in name or "embeddings" in name]


@pytest.mark.parametrize(
    ("schedule", "first", "half", "last"),
    [("linear", 0.1, 50 / 91, 1 / 91), ("cosine", 0.1, 0.578, 0.0003), ("constant", 0.1, 1.0, 1.0)],
)
def test_a_schedule_rises_and_goes_on(
    settings: TrainingSettings, schedule: str, first: float, half: float, last: float
) -> None:
    factor = rate_factor(100, override(settings, {"schedule": schedule, "warmup_share": 0.1}))
    assert factor(0) == pytest.approx(first)
    assert factor(9) == 1.0
    assert factor(50) == pytest.approx(half, abs=1e-3)
    assert factor(99) == pytest.approx(last, abs=1e-3)
    assert all(0 <= factor(step) <= 1 for step in range(101))


class Trial:
    """An engine of one rank in this process, without dropout, over the training rows."""

    def __init__(self, plan: TrainingPlan, frame: pd.DataFrame, tokenizer: Tokenizer):
        self.fitted = fit_preprocessing(frame, plan.features, DOMAIN, 32, hashed_words=512, prior_labels=10)
        self.rows = self.fitted.encode(frame, tokenizer)
        torch.manual_seed(0)
        data = cast(TrainingData, SimpleNamespace(preprocessing=self.fitted, word_weights=None))
        self.engine = start_engine(TASK, make_model(TASK, plan, data), plan, rows=256)
        self.engine.eval()

    def backward(self, first: int, last: int, micro_batches: int) -> None:
        """The gradients of the mean over some rows."""
        parts = np.array_split(np.arange(first, last), micro_batches)
        for part in parts:
            self.engine.set_gradient_accumulation_boundary(part is parts[-1])
            logits = self.engine(**collate(self.rows, part, self.engine.module.padding))
            self.engine.backward(logits.sum() / (last - first))


@pytest.fixture
def trial(
    alone: None,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Snapshot,
    settings: TrainingSettings,
    frame: pd.DataFrame,
    encoder: Path,
    tmp_path: Path,
) -> Iterator[Callable[..., Trial]]:
    """Starts an engine under changed settings, with the snapshot's features or others."""
    monkeypatch.setenv("LOCAL_RANK", "0")

    def start(features: tuple[str, ...] = snapshot.features, **changes: object) -> Trial:
        plan = plan_training(snapshot, override(settings, changes), tmp_path, tmp_path)
        tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
        return Trial(plan.model_copy(update={"features": features}), frame, tokenizer)

    with one_thread():
        yield start


def test_the_first_update_is_adams_at_every_stage(trial: Callable[..., Trial]) -> None:
    def moved(stage: str) -> torch.Tensor:
        one = trial(deepspeed=stage, schedule="constant", warmup_share=0.0)
        before = consolidated_weights(one.engine)["output.weight"].float()
        one.backward(0, 16, micro_batches=1)
        one.engine.step()
        return consolidated_weights(one.engine)["output.weight"].float() - before

    torch.testing.assert_close(moved("zero-0"), moved("zero-1"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("stage", ["zero-1", "zero-2"])
def test_no_norm_is_looked_at_by_deepspeed(
    trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """On a GPU each look waits for all that it has to do."""

    def looks(*_: object) -> bool:
        raise AssertionError("it waits for the device")

    monkeypatch.setattr(stage_1_and_2.DeepSpeedZeroOptimizer, "has_overflow", looks)
    one = trial(deepspeed=stage)
    one.backward(0, 16, micro_batches=1)
    monkeypatch.setattr(torch.Tensor, "__bool__", looks)
    monkeypatch.setattr(torch.Tensor, "item", looks)
    one.engine.step()
    assert one.engine.global_steps == 1


def test_a_model_without_entities_trains_under_zero_3(trial: Callable[..., Trial]) -> None:
    one = trial(features=(), deepspeed="zero-3")
    before = consolidated_weights(one.engine)["output.weight"]
    one.backward(0, 16, micro_batches=1)
    one.engine.step()
    assert not torch.equal(consolidated_weights(one.engine)["output.weight"], before)


@pytest.mark.parametrize("stage", ["zero-3", "zero-3-offload"])
def test_a_model_that_is_dealt_out_is_the_same_model(trial: Callable[..., Trial], stage: str) -> None:
    def decays(one: Trial) -> dict[str, float]:
        groups = one.engine.optimizer.param_groups
        return {str(number): group["weight_decay"] for number, group in enumerate(groups)}

    dealt_out, whole = trial(deepspeed=stage), trial(deepspeed="zero-2")
    assert all(hasattr(weight, "ds_id") for weight in dealt_out.engine.module.parameters())
    expected = consolidated_weights(whole.engine)
    found = consolidated_weights(dealt_out.engine)
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]
    assert decays(dealt_out) == decays(whole)
    assert set(decays(whole).values()) == {0.0, 0.01}


def test_nothing_frozen_is_saved(trial: Callable[..., Trial], tmp_path: Path) -> None:
    for stage in ("zero-2", "zero-3"):
        one = trial(deepspeed=stage, trainable_layers=1)
        frozen = {name for name, weight in one.engine.module.named_parameters() if not weight.requires_grad}
        assert "encoder.embeddings.word_embeddings.weight" in frozen
        saver = Saver(one.engine, Checkpoints(tmp_path / stage, 1), 0.0, print)
        saver._begin(Progress(1, print))
        saver.close()
        (saved,) = (torch.load(file, weights_only=True) for file in tmp_path.glob(f"{stage}/*/*model_states.pt"))
        assert saved["module"]
        assert not frozen & {*saved["module"], *(saved["frozen_param_fragments"] or {})}


@pytest.mark.parametrize("stage", ["zero-1", "zero-2", pytest.param("zero-3", marks=pytest.mark.slow)])
def test_gradients_of_many_micro_batches_can_be_added_up_in_float32(trial: Callable[..., Trial], stage: str) -> None:
    def gradient(**changes: object) -> torch.Tensor:
        one = trial(**{"gradient_clipping": 0.0, "precision": "bf16"} | changes)
        one.backward(0, 32, micro_batches=32)
        found: torch.Tensor = safe_get_full_grad(one.engine.module.output.weight)
        return found.float()

    right = gradient(precision="fp32", deepspeed="zero-2")
    rough, fine = (
        (gradient(deepspeed=stage, gradient_precision=precision) - right).norm() for precision in (None, "fp32")
    )
    assert fine < rough / 2


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_the_engine_is_told_what_the_settings_say(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, precision: str
) -> None:
    plan = plan_training(snapshot, override(settings, {"gradient_clipping": 0.5}), tmp_path, tmp_path)
    plan = plan.model_copy(update={"settings": override(plan.settings, {"precision": precision})})
    config = engine_config(plan)
    assert [name for name in ("bf16", "fp16") if config[name]["enabled"]] == [precision] * (precision != "fp32")
    assert config["gradient_clipping"] == 0.5
    assert config["train_batch_size"] == 16


def test_an_encoder_that_keeps_its_activations_says_so(classifier: TextClassifier, settings: TrainingSettings) -> None:
    chosen = override(settings, {"activation_checkpointing": True})
    tune(classifier, chosen)
    assert classifier.encoder.is_activation_checkpointing
    classifier.encoder.supports_gradient_checkpointing = False
    with pytest.raises(SettingsError, match="activation_checkpointing: Bert does not support it"):
        tune(classifier, chosen)


def test_activations_computed_again_change_no_gradient(classifier: TextClassifier, settings: TrainingSettings) -> None:
    def gradient() -> torch.Tensor:
        torch.manual_seed(0)
        classifier.encoder.zero_grad()
        classifier.encoder(torch.arange(8)[None]).last_hidden_state.square().sum().backward()
        return classifier.encoder.encoder.layer[0].output.dense.weight.grad.clone()

    tune(classifier, settings)
    classifier.train()
    kept = gradient()
    tune(classifier, override(settings, {"activation_checkpointing": True}))
    assert torch.equal(gradient(), kept)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"precision": "fp32", "schedule": "cosine", "deepspeed": "zero-0"}),
        pytest.param({"activation_checkpointing": True, "layer_rate_decay": 0.8}, marks=pytest.mark.slow),
        pytest.param({"activation_checkpointing": True, "deepspeed": "zero-3"}, marks=pytest.mark.slow),
        pytest.param({"precision": "fp32", "deepspeed": "zero-3"}, marks=pytest.mark.slow),
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=lambda change: "-".join(map(str, change.values())),
)
def test_settings_of_the_engine_train_a_bundle(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run, change: dict[str, object]
) -> None:
    training = train(lake, "2024-09-09", snapshot, override(settings, change), run)
    curve = [loss for _, loss in training.report["loss_curve"]]
    assert curve[-1] < curve[0]
    names = load_bundle(training.path).predictor.classifier.state_dict()
    assert not [name for name in names if "_orig_mod" in name]


def test_the_checks_before_a_run_import_no_torch() -> None:
    code = "import sys, assets.training.launchers.launch; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_what_is_offloaded_to_nvme_trains_a_bundle(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run, tmp_path: Path
) -> None:
    chosen = override(settings, {"deepspeed": "zero-3-nvme", "nvme": str(tmp_path), "checkpoint_seconds": 0.01})
    if not Machine.here(0, _deepspeed_config("zero-3-nvme")).libaio:
        pytest.skip("libaio-dev and g++ are not installed")
    training = train(lake, "2024-10-10", snapshot, chosen, run)
    curve = [loss for _, loss in training.report["loss_curve"]]
    assert curve[-1] < curve[0]
    assert load_bundle(training.path).predict_proba(snapshot.test()).std() > 0.01
