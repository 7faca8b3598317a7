"""What a run will need, against what it is made of; docs/training.md has the estimate against measured memory."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assets.exceptions import SettingsError
from assets.features.snapshot import Snapshot
from assets.lake import Lake
from assets.settings import TrainingSettings, load_domain, load_settings
from assets.training.base_model import resolve_base_model
from assets.training.launchers import processes
from assets.training.launchers.compatibility import Machine, check_training
from assets.training.launchers.estimate import Free, check_memory, estimate_memory, free_memory
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import _deepspeed_config, override, train
from assets.training.model_size import ModelSize, model_flops
from assets.training.program import usage
from assets.training.program.usage import cost, expected, matmul_peak, peak_memory
from assets.training.tasks.classification.model import freeze, new_classifier
from assets.training.tasks.classification.preprocessing import fit_preprocessing
from assets.training.tasks.classification.size import measure_model

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

LARGE = ModelSize(
    trained=1_000_000_000,
    frozen=0,
    layers=24,
    trained_layers=24,
    layer_parameters=40_000_000,
    hidden=2048,
    intermediate=8192,
    heads=16,
    largest=40_000_000,
)
GB = 1_000_000_000


@pytest.mark.parametrize("layers", [None, 0, 1, 2])
@pytest.mark.parametrize("train_embeddings", [True, False])
def test_parameters_are_those_of_the_classifier(
    encoder: Path, snapshot: Snapshot, settings: TrainingSettings, layers: int | None, train_embeddings: bool
) -> None:
    chosen = override(settings, {"trainable_layers": layers, "train_embeddings": train_embeddings})
    fitted = fit_preprocessing(
        snapshot.train(), snapshot.features, DOMAIN, 32, chosen.model.hashed_words, chosen.model.prior_labels
    )
    classifier = new_classifier(encoder, fitted)
    freeze(classifier, layers, train_embeddings)
    trained = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    size = measure_model(encoder, len(snapshot.features), len(LABELS), chosen)
    assert size.frozen == sum(p.numel() for p in classifier.parameters() if not p.requires_grad)
    # Indicators of absence are not known yet, and the scale of the priors is left out.
    assert trained - 2 <= size.trained <= trained + 64 * len(snapshot.features)
    assert size.layer_parameters == sum(p.numel() for p in classifier.encoder.encoder.layer[0].parameters())


def test_a_file_that_is_no_safetensors_is_named(encoder: Path, settings: TrainingSettings, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((encoder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"no header at all")
    with pytest.raises(ValueError, match=r"model.safetensors is not a safetensors file"):
        measure_model(tmp_path, 0, len(LABELS), settings)


def states(settings: TrainingSettings, name: str, ranks: int) -> tuple[int, int, int]:
    """Gigabytes of weights, gradients and optimizer states on a GPU."""
    device = estimate_memory(LARGE, settings, _deepspeed_config(name), ranks, has_gpu=True).device
    return tuple(round(device.get(part, 0) / GB) for part in ("weights", "gradients", "optimizer"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("zero-0", (2, 2, 12)),
        ("zero-1", (2, 2, 3)),
        ("zero-2", (2, 0, 3)),  # a quarter of two
        ("zero-3", (0, 0, 3)),
        ("zero-2-offload", (2, 0, 0)),
        ("zero-3-offload", (0, 0, 0)),
    ],
)
def test_a_stage_shares_what_the_paper_says(
    settings: TrainingSettings, name: str, gigabytes: tuple[int, int, int]
) -> None:
    assert states(settings, name, ranks=4) == gigabytes


def test_what_is_offloaded_is_somewhere_else(settings: TrainingSettings) -> None:
    nvme = override(settings, {"nvme": "/nvme"})
    memory = estimate_memory(LARGE, nvme, _deepspeed_config("zero-3-nvme"), 1, has_gpu=True)
    assert set(memory.nvme) == {"weights", "optimizer", "step"}
    assert set(memory.host) == {"process", "buffers", "copies", "gradients"}
    offloaded = estimate_memory(LARGE, settings, _deepspeed_config("zero-3-offload"), 1, has_gpu=True)
    assert set(offloaded.host) == {"process", "weights", "gradients", "optimizer", "step", "copies"}


def test_gradients_follow_the_optimizer_unless_stage_2_sums_them_in_float32(settings: TrainingSettings) -> None:
    def on_device(name: str, **change: object) -> int:
        chosen = override(settings, change)
        return estimate_memory(LARGE, chosen, _deepspeed_config(name), 4, has_gpu=True).device.get("gradients", 0)

    precise = {"precision": "bf16", "gradient_precision": "fp32"}
    assert on_device("zero-2-offload", precision="bf16") == on_device("zero-3-offload", **precise) == 0
    assert on_device("zero-2-offload", **precise) == on_device("zero-2", **precise) == GB


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("zero-0", 14), ("zero-1", 2 + 3), ("zero-2", 2 + 3), ("zero-3", 0.5 + 3)],
)
def test_a_checkpoint_is_copied_to_main_memory(settings: TrainingSettings, name: str, gigabytes: float) -> None:
    memory = estimate_memory(LARGE, settings, _deepspeed_config(name), 4, has_gpu=True)
    assert memory.host["copies"] / GB == gigabytes
    frozen = replace(LARGE, trained=0, frozen=LARGE.trained)
    read = estimate_memory(frozen, settings, _deepspeed_config(name), 4, has_gpu=True).host["copies"]
    assert read / GB == (0 if name == "zero-3" else 4)
    assert "copies" not in estimate_memory(LARGE, settings, _deepspeed_config(name), 4, has_gpu=False).host


def test_checkpointed_activations_are_fewer(settings: TrainingSettings) -> None:
    def activations(**change: object) -> int:
        chosen = override(settings, change)
        return estimate_memory(LARGE, chosen, _deepspeed_config("zero-2"), 1, has_gpu=True).device["activations"]

    assert activations(activation_checkpointing=True) < activations() / 5
    assert activations(precision="fp32") > 1.8 * activations()


@pytest.mark.parametrize(
    ("free", "billions", "line"),
    [
        (Free(host=100 * GB, device=11 * GB), 1, "zero-0 needs 21.4 GB on each GPU, of 11.0 GB free; zero-1 would fit"),
        (Free(host=100 * GB, device=9 * GB), 1, "zero-2 would fit"),
        (Free(host=500 * GB, device=50 * GB), 8, "zero-3 would fit"),
        (Free(host=100 * GB, device=6 * GB), 1, "zero-2-offload would fit"),
        (Free(host=1 * GB, device=1 * GB), 1, "no file in configs/deepspeed would fit"),
        (Free(host=1 * GB, device=None), 1, r"zero-0 needs \d+.\d GB on 4 ranks, of 1.0 GB free"),
    ],
)
def test_too_large_names_the_smallest_that_fits(
    settings: TrainingSettings, free: Free, billions: int, line: str
) -> None:
    chosen = override(settings, {"deepspeed": "zero-0", "batch_rows": 128})
    with pytest.raises(SettingsError, match=line):
        check_memory(replace(LARGE, trained=billions * GB), chosen, _deepspeed_config("zero-0"), 4, free)


def test_what_fits_is_not_refused(settings: TrainingSettings) -> None:
    free = Free(host=100 * GB, device=80 * GB)
    memory = check_memory(LARGE, settings, _deepspeed_config("zero-2"), 4, free)
    assert sum(memory.device.values()) < 80 * GB


@pytest.mark.parametrize(("profile", "gpus"), [("gpu", 1), ("gpu-8", 8)])
def test_a_profile_for_gpus_fits_them_in_one_micro_batch_a_step(profile: str, gpus: int) -> None:
    chosen = load_settings(profile).training
    deepspeed = _deepspeed_config(chosen.hardware.deepspeed)
    check_training(chosen, deepspeed, gpus, Machine(gpus, bf16=True, libaio=False, compiler=False))
    size = measure_model(resolve_base_model(chosen.model.base_model).path, 40, len(LABELS), chosen)
    check_memory(size, chosen, deepspeed, gpus, Free(host=64 * GB, device=16 * GB))
    assert chosen.optimizer.batch_rows // gpus * chosen.model.max_tokens <= chosen.hardware.batch_tokens
    assert deepspeed["zero_optimization"].get("overlap_comm", False) == (gpus > 1)


@pytest.mark.parametrize(
    ("megabytes", "change"),
    [
        (978, {"batch_rows": 8}),
        (1179, {"batch_rows": 16}),
        (1856, {"batch_rows": 32}),
        (1440, {"batch_rows": 16, "precision": "fp32"}),
        (1299, {"batch_rows": 16, "deepspeed": "zero-3"}),
        (1183, {"batch_rows": 32, "activation_checkpointing": True}),
    ],
)
def test_the_estimate_is_within_15_percent_of_peaks_that_were_measured(
    megabytes: int, change: dict[str, object]
) -> None:
    chosen = override(load_settings("full").training, change)
    size = measure_model(resolve_base_model(chosen.model.base_model).path, 0, len(LABELS), chosen)
    found = estimate_memory(size, chosen, _deepspeed_config(chosen.hardware.deepspeed), 1, has_gpu=False).total
    assert found / (megabytes * 1e6) == pytest.approx(1, abs=0.15)


BASE = ModelSize(
    trained=10_835_419,
    frozen=12_314_622,
    layers=6,
    trained_layers=6,
    layer_parameters=1_774_464,
    hidden=384,
    intermediate=1536,
    heads=12,
    largest=11_720_448,
)
LARGE_BERT = replace(
    BASE,
    trained=302_841_177,
    frozen=31_844_352,
    layers=24,
    trained_layers=24,
    layer_parameters=12_596_224,
    hidden=1024,
    intermediate=4096,
    heads=16,
    largest=31_254_528,
)


@pytest.mark.parametrize(
    ("megabytes", "size", "stage", "change"),
    [
        (1601, BASE, "zero-0", {}),
        (1765, BASE, "zero-1", {}),
        (1695, BASE, "zero-2", {}),
        (1798, BASE, "zero-2-overlap", {}),
        (1718, BASE, "zero-3", {}),
        (1567, BASE, "zero-2-offload", {}),
        (2884, BASE, "zero-0", {"precision": "fp32"}),
        (8592, LARGE_BERT, "zero-1", {"batch_tokens": 4096}),
        (18370, LARGE_BERT, "zero-0", {}),
        (18473, LARGE_BERT, "zero-2", {}),
        (14845, LARGE_BERT, "zero-2-offload", {}),
    ],
)
def test_the_estimate_is_within_5_percent_of_a_gpus_peaks_that_were_measured(
    megabytes: int, size: ModelSize, stage: str, change: dict[str, object]
) -> None:
    chosen = override(load_settings("gpu").training, {"batch_rows": 128, **change})
    device = estimate_memory(size, chosen, _deepspeed_config(stage), 1, has_gpu=True).device
    assert (sum(device.values()) - device["process"]) / (megabytes * 1e6) == pytest.approx(1, abs=0.05)


def test_gradients_of_further_micro_batches_are_there_beside_activations(settings: TrainingSettings) -> None:
    def total(batch_tokens: int) -> int:
        chosen = override(load_settings("gpu").training, {"batch_rows": 128, "batch_tokens": batch_tokens})
        device = estimate_memory(LARGE_BERT, chosen, _deepspeed_config("zero-2"), 1, has_gpu=True).device
        return sum(device.values()) - device["activations"]

    assert total(8192) - total(16384) == 2 * LARGE_BERT.trained


def test_a_run_that_is_too_large_never_starts(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(command: list[str]) -> None:
        raise AssertionError(command)

    start: Run = never
    monkeypatch.setattr(processes, "free_memory", lambda gpus: Free(host=1000, device=None))
    with pytest.raises(SettingsError, match=r"of 0.0 GB free"):
        train(lake, "2024-08-09", snapshot, override(settings, {"seed": 99}), start)
    assert lake.version("challenger/2024-08-09") is None


def test_a_micro_batch_is_bounded_by_its_tokens(settings: TrainingSettings) -> None:
    def activations(**change: int) -> int:
        chosen = override(settings, {"max_tokens": 256, **change})
        return estimate_memory(LARGE, chosen, _deepspeed_config("zero-2"), 4, has_gpu=True).device["activations"]

    bounded = activations(batch_rows=512, batch_tokens=8192)
    assert activations(batch_rows=2048, batch_tokens=8192) == bounded
    assert activations(batch_rows=512, batch_tokens=8191) == bounded * 31 // 32
    assert activations(batch_rows=64, batch_tokens=8192) == bounded // 2
    assert activations(batch_rows=512, batch_tokens=1) == bounded // 32


FAKE_TORCH = """
import os

class cuda:
    free = [8_000, 2_000, 4_000]
    seen = [int(number) for number in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
    device_count = lambda: len(cuda.seen)
    mem_get_info = lambda gpu: (cuda.free[cuda.seen[gpu]], 80_000)
"""


def test_the_gpus_that_are_asked_are_those_that_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for visible, least in (("0", 8_000), ("0,2", 4_000), ("2,1", 2_000)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert free_memory(gpus=1).device == least
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(SettingsError, match=r"training.hardware.ranks: the GPUs do not tell .*IndexError"):
        free_memory(gpus=1)


def test_this_machine_has_memory() -> None:
    assert free_memory(gpus=0).host > 0
    assert peak_memory()["host"] > 10_000_000


def test_seconds_and_money() -> None:
    assert expected([3.0, 1.0, 1.0], steps=10) == 3.0 + 9 * 1.0
    assert expected([2.0], steps=10) == 20.0
    assert cost(1800, ranks=4, price_per_hour=2.5) == 5.0


def test_flops_are_six_per_parameter_and_token_and_twelve_for_attention() -> None:
    lengths = np.array([512, 100])
    tokens, squares = int(lengths.sum()), int((lengths**2).sum())
    layers = LARGE.layers * LARGE.layer_parameters
    assert model_flops(LARGE, tokens, squares) == 6 * layers * tokens + 12 * LARGE.layers * LARGE.hidden * squares


def test_the_peak_of_this_machine_is_a_speed() -> None:
    assert matmul_peak("fp32", seconds=0.05) > 1e8


def test_what_the_first_product_loads_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    product, made = torch.mm, []

    def slow_at_first(*matrices: torch.Tensor) -> torch.Tensor:
        made.append(0)
        if len(made) == 1:
            deadline = time.perf_counter() + 0.5
            while time.perf_counter() < deadline:
                product(*matrices)
        return product(*matrices)

    monkeypatch.setitem(usage._WIDTHS, "cpu", 64)
    monkeypatch.setattr(torch, "mm", slow_at_first)
    assert matmul_peak("fp32", seconds=0.1) > 2 * 64**3 / 0.5


def test_the_products_are_not_part_of_a_gpus_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    cpu, called = torch.device("cpu"), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "device", lambda _: cpu)
    monkeypatch.setitem(usage._WIDTHS, "cuda", 64)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: called.append(name))
    assert matmul_peak("fp32", seconds=0.001) > 0
    assert called[-2:] == ["empty_cache", "reset_peak_memory_stats"]
    assert called.count("reset_peak_memory_stats") == 1


def test_the_linear_branch_has_a_weight_for_every_label_and_is_not_trained(
    encoder: Path, settings: TrainingSettings
) -> None:
    without, with_words = (
        measure_model(encoder, 0, len(LABELS), override(settings, {"hashed_words": words})) for words in (0, 100)
    )
    assert with_words.frozen - without.frozen == 100 * len(LABELS)
    assert with_words.trained == without.trained
