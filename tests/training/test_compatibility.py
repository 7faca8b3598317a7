"""Combinations of settings that are refused before a process starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from assets.exceptions import SettingsError
from assets.settings import CONFIGS, TrainingSettings, load_settings
from assets.training.launchers.compatibility import KEYS, ZERO_KEYS, Machine, check_training
from assets.training.launchers.launch import override

CPU = Machine(gpus=0, bf16=True, libaio=True, compiler=True)
BARE = Machine(gpus=0, bf16=False, libaio=False, compiler=False)
TWO_GPUS = Machine(gpus=2, bf16=True, libaio=True, compiler=True)
FILES = sorted(path.stem for path in (CONFIGS / "deepspeed").glob("*.json"))


def file(name: str = "zero-2", **zero: object) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CONFIGS / "deepspeed" / f"{name}.json").read_text())
    content["zero_optimization"] |= zero
    return content


@pytest.fixture(scope="module")
def plain() -> TrainingSettings:
    return load_settings("full").training


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_file_is_allowed(plain: TrainingSettings, name: str, precision: str) -> None:
    settings = override(plain, {"deepspeed": name, "precision": precision, "nvme": "/nvme"})
    check_training(settings, file(name), 2, CPU)
    with pytest.raises(SettingsError, match=f"^configs/deepspeed/{name}.json: train_batch_size"):
        check_training(settings, file(name) | {"train_batch_size": 8}, 2, CPU)


@pytest.mark.parametrize(
    ("deepspeed", "line"),
    [
        (
            file() | {"train_batch_size": 8},
            "train_batch_size is for configs/training.yaml .* training.optimizer.batch_rows",
        ),
        (file() | {"gradient_accumulation_steps": 2}, "gradient_accumulation_steps is for configs/training.yaml"),
        (
            file() | {"bf16": {"enabled": True}},
            "bf16 is for configs/training.yaml to say, as training.hardware.precision",
        ),
        (file() | {"scheduler": {"type": "WarmupLR"}}, "scheduler is for .* training.optimizer.schedule"),
        (file() | {"zero_optimisation": {}}, "unknown key 'zero_optimisation'"),
        (file(stag=1), "unknown key 'stag' in zero_optimization"),
        (file(stage=4), "stage is 4; there are 0, 1, 2 and 3"),
        (file() | {"optimizer": {"type": "OneBitAdam"}}, "optimizer.type is 'OneBitAdam', not Adam or AdamW"),
        (
            file() | {"optimizer": {"type": "AdamW", "params": {"lr": 1}}},
            "params.lr .* training.optimizer.learning_rate",
        ),
        (file(offload_param={"device": "cpu"}), "offload_param needs ZeRO stage 3 or above; stage 2 would ignore it"),
        (file(stage=0, offload_optimizer={"device": "cpu"}), "offload_optimizer needs ZeRO stage 1 or above"),
        (file(offload_optimizer={"device": "disk"}), "offload_optimizer.device is 'disk', not cpu or nvme"),
        (file(offload_optimizer={"device": "nvme"}), "offload_optimizer to nvme needs ZeRO stage 3, not 2"),
    ],
)
def test_a_file_that_cannot_be_is_one_line(plain: TrainingSettings, deepspeed: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError, match=f"^configs/deepspeed/zero-2.json: .*{line}") as error:
        check_training(plain, deepspeed, 1, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "ranks", "machine", "line"),
    [
        ({"precision": "fp16"}, 1, CPU, "training.hardware.precision: fp16 needs a GPU"),
        ({"batch_rows": 16}, 3, CPU, "training.optimizer.batch_rows: 16 rows cannot be shared by 3 ranks"),
        ({}, 4, TWO_GPUS, "training.hardware.ranks: 4, but this machine has 2 GPUs"),
        ({"compile": True}, 1, BARE, r"training.hardware.compile: torch.compile needs a C\+\+ compiler"),
        ({"patience": 3}, 1, CPU, "training.optimizer.patience: .* set training.optimizer.validation_share above 0"),
        ({"deepspeed": "zero-0", "gradient_precision": "fp32"}, 1, CPU, "gradient_precision: fp32 needs ZeRO stage 1"),
        ({"deepspeed": "zero-3-nvme"}, 1, CPU, "training.storage.nvme: zero-3-nvme offloads to NVMe: name a folder"),
        ({"deepspeed": "zero-3-nvme", "nvme": "/nvme"}, 1, BARE, "needs libaio and a C"),
        (
            {"deepspeed": "zero-3-nvme", "nvme": "/nvme", "checkpoints": "s3://bucket"},
            *(1, CPU, "training.storage.checkpoints: .* what is there is not saved"),
        ),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(
    plain: TrainingSettings, change: dict[str, object], ranks: int, machine: Machine, line: str
) -> None:
    settings = override(plain, change)
    with pytest.raises(SettingsError, match=line) as error:
        check_training(settings, file(settings.hardware.deepspeed), ranks, machine)
    assert "\n" not in str(error.value)


def test_fp16_trains_on_gpus(plain: TrainingSettings) -> None:
    settings = override(plain, {"precision": "fp16"})
    check_training(settings, file(), 2, TWO_GPUS)
    with pytest.raises(SettingsError, match="fp16 needs a GPU"):
        check_training(settings, file(), 2, CPU)


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", "bf16"),
        ("flags\t\t: fpu amx_bf16 amx_tile", "bf16"),
        ("Features\t: fp asimd bf16", "bf16"),
        ("flags\t\t: fpu avx2 avx512f avx512bw", "fp32"),
        ("model name\t: bf16", "fp32"),
        (None, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_processor_computes_in_it(
    plain: TrainingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: str | None,
    precision: str,
) -> None:
    cpu = tmp_path / "cpuinfo"
    if flags is not None:
        cpu.write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr("assets.training.launchers.compatibility._CPU", cpu)
    caplog.set_level("WARNING", "evergreen")
    machine = Machine.here(0, file())
    assert machine.precision(override(plain, {"precision": "auto"})) == precision
    assert machine.precision(override(plain, {"precision": "auto", "hostfile": "hosts"})) == "bf16"
    assert not caplog.records
    assert machine.precision(override(plain, {"precision": "bf16"})) == "bf16"
    assert ("has no bf16" in caplog.text) == (precision == "fp32")


@pytest.mark.parametrize(("shown", "precision"), [("9.0\n9.0", "bf16"), ("8.0\n7.5", "fp32"), ("[N/A]", "bf16")])
def test_auto_on_gpus_goes_by_their_generation(
    plain: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, precision: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{shown}'\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert Machine.here(2, file()).precision(override(plain, {"precision": "auto"})) == precision


def test_an_unknown_schedule_names_those_there_are(plain: TrainingSettings) -> None:
    with pytest.raises(SettingsError, match=r"training.optimizer.schedule: .*'linear', 'cosine' or 'constant'"):
        override(plain, {"schedule": "triangle"})


def test_deepspeed_knows_every_key_that_a_file_may_have() -> None:
    import deepspeed
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    assert {*fields, *(field.alias for field in fields.values() if field.alias)} >= ZERO_KEYS
    package = (CONFIGS / deepspeed.__file__).parent
    places = ("config", "constants", "zero/config", "swap_tensor/constants")
    sources = [package / "runtime" / f"{name}.py" for name in places]
    sources += [package / folder / "constants.py" for folder in ("comm", "profiling")]
    text = "".join(source.read_text() for source in sources)
    assert not [key for key in KEYS if f'"{key}"' not in text and f"'{key}'" not in text]
