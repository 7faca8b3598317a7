"""Training processes: every ZeRO stage, the same weights twice, a clear end when something is wrong."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from assets.exceptions import TrainingError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file
from assets.lake import Lake
from assets.settings import TrainingSettings
from assets.training.bundle import load_bundle
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import override, plan_training, train
from assets.training.launchers.processes import worker_command

ROOT = Path(__file__).parents[2]


def test_the_worker_imports_neither_dagster_nor_boto3_nor_transformers() -> None:
    rooms = {
        "program": ["worker", "engine", "output", "saving", "mirror"],
        "tasks.classification": ["data", "model"],
        "launchers": ["launcher"],
    }
    modules = "; ".join(f"from assets.training.{room} import {', '.join(names)}" for room, names in rooms.items())
    start = "import sys; from assets.training.program.process import lean_imports; lean_imports()"
    heavy = "{'dagster', 'boto3', 'transformers'}"
    code = f"{start}; {modules}; print({heavy} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_run_imports_no_compiler(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, on_gpu: bool
) -> None:
    """Where there is a GPU, DeepSpeed supports a compiler of its own, and imports torch's for it."""
    (tmp_path / "out").mkdir()
    short = override(settings, {"epochs": 0.1})
    (tmp_path / "plan.json").write_text(plan_training(snapshot, short, tmp_path / "out", tmp_path).model_dump_json())
    code = (
        "import sys; from pathlib import Path; from assets.training.program.worker import main\n"
        "from assets.training.program.process import lean_imports; lean_imports()\n"
        f"import deepspeed.runtime.engine as engine; engine.is_deepcompile_supported = lambda: {on_gpu}\n"
        "print(main(Path(sys.argv[1])), {'sympy', 'torch._dynamo', 'transformers'} & {*sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "plan.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 set()", done.stderr[-2000:]


def test_the_same_inputs_are_the_same_weights(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run, bundle_path: Path
) -> None:
    again = train(lake, "2024-04-04", snapshot, settings, run)
    assert not again.reused
    for name in ("model.safetensors", "config.json", "tokenizer.json", "preprocessing.json", "provenance.json"):
        assert hash_file(again.path / name) == hash_file(bundle_path / name), name


@pytest.mark.parametrize(
    "change",
    [
        {"deepspeed": "zero-3"},
        pytest.param({"deepspeed": "zero-0"}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": "zero-1"}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": "zero-2-offload"}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": "zero-3-offload"}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": "zero-2", "ranks": 2}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": "zero-2-overlap", "ranks": 2}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": "zero-3", "ranks": 2}, marks=pytest.mark.slow),
    ],
    ids=lambda change: "-".join(map(str, change.values())),
)
def test_every_stage_trains_a_bundle(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run, change: dict[str, object]
) -> None:
    training = train(lake, "2024-05-05", snapshot, override(settings, change), run)
    curve = [loss for _, loss in training.report["loss_curve"]]
    assert curve[-1] < curve[0]
    assert training.report["steps"] == 64
    answers = load_bundle(training.path).predict_proba(snapshot.test())
    assert answers.std() > 0.01


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run
) -> None:
    wild = override(settings, {"learning_rate": 1e30, "head_learning_rate": 1e30})
    with pytest.raises(TrainingError, match="the loss is nan; lower") as error:
        train(lake, "2024-06-06", snapshot, wild, run)
    assert "\n" not in str(error.value)
    assert lake.version("challenger/2024-06-06") is None


def test_training_stops_early_and_keeps_the_best_weights(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run
) -> None:
    changes = {"epochs": 200.0, "validation_share": 0.2, "evaluate_every": 8, "patience": 2, "price_per_hour": 3600.0}
    training = train(lake, "2024-09-09", snapshot, override(settings, changes), run)
    losses = [loss for _, loss in training.report["validation_loss"]]
    assert losses.index(min(losses)) == len(losses) - 3
    assert training.report["steps"] == 8 * len(losses) < 200 * 204 // 16
    classifier = load_bundle(training.path).predictor.classifier
    assert classifier.config.calibration_temperature == training.report["temperature"]
    assert training.report["cost"] == pytest.approx(training.report["seconds"], rel=0.05)
    assert 0 < training.report["utilisation"] < 1
    assert training.report["peak_memory"]["host"] > 100 << 20


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_ends_in_the_same_weights(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, bundle_path: Path
) -> None:
    saving = override(settings, {"checkpoint_seconds": 0.05})
    saved = lake.root.parent / "checkpoints"
    shown: list[str] = []

    def killed(command: list[str]) -> None:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(saved.glob("*/CURRENT")):
            assert process.poll() is None, "the run ended before it was saved"
            time.sleep(0.005)
        process.kill()
        process.wait()
        raise TrainingError("killed")

    def finished(command: list[str]) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        shown.extend(line for line in done.stderr.splitlines() if line.startswith("resumed at step"))

    with pytest.raises(TrainingError, match="killed"):
        train(lake, "2024-08-08", snapshot, saving, killed)
    again = train(lake, "2024-08-08", snapshot, saving, finished)
    assert len(shown) == 1
    assert hash_file(again.path / "model.safetensors") == hash_file(bundle_path / "model.safetensors")
    assert again.report["steps"] == 64
    assert not list(saved.iterdir())


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_is_told_to_stop_saves_itself_and_goes_on_from_there(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run, bundle_path: Path, ranks: int
) -> None:
    chosen = override(settings, {"ranks": ranks, "checkpoint_seconds": 1e6})
    expected = bundle_path if ranks == 1 else train(lake, "2024-11-11", snapshot, chosen, run).path
    shown: list[str] = []

    def noticed(command: list[str]) -> None:
        """One rank alone gets the notice."""
        told = [word.replace("assets.training.program.worker", "tests.training.noticed_worker") for word in command]
        done = subprocess.run(told, cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 143
        raise TrainingError("ended early")

    def finished(command: list[str]) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        shown.extend(line for line in done.stderr.splitlines() if line.startswith("resumed at step"))

    with pytest.raises(TrainingError, match="told to stop, and has after step 22; started again, it goes on") as error:
        train(lake, "2024-11-12", snapshot, chosen, noticed)
    assert "\n" not in str(error.value)
    again = train(lake, "2024-11-12", snapshot, chosen, finished)
    assert shown == ["resumed at step 22"]
    assert hash_file(again.path / "model.safetensors") == hash_file(expected / "model.safetensors")


@pytest.mark.slow
def test_a_disk_that_takes_no_checkpoint_does_not_stop_the_run(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path
) -> None:
    saving = override(settings, {"checkpoint_seconds": 0.05, "ranks": 2})
    full = plan_training(snapshot, saving, tmp_path, tmp_path).checkpoints
    full.parent.mkdir()
    full.write_text("a file, in which no folder can be made")
    shown: list[str] = []

    def run(command: list[str]) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        shown.extend(line for line in done.stderr.splitlines() if "could not be written; the one before it" in line)

    assert train(Lake(tmp_path / "lake"), "2024-08-08", snapshot, saving, run).report["steps"] == 64
    assert shown


@pytest.mark.parametrize(
    ("kills", "stages", "ranks"),
    [(4, "zero-2", "1"), pytest.param(40, "zero-0 zero-1 zero-2 zero-3", "1 2", marks=pytest.mark.slow)],
)
def test_runs_killed_at_random_instants_end_bitwise_equal(kills: int, stages: str, ranks: str) -> None:
    command = ["bench/kill_resume.py", "--kills", str(kills), "--stages", *stages.split(), "--ranks", *ranks.split()]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.fixture
def hostfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One host with two slots, and an ssh that stays on this machine."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(
        '#!/bin/sh\nwhile [ "$1" != localhost ]; do shift; done; shift; [ "$2" = -I ] && echo 127.0.0.1; exit 0\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    return tmp_path / "hosts"


@pytest.mark.slow
def test_a_hostfile_goes_through_deepspeeds_launcher(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run, hostfile: Path
) -> None:
    training = train(lake, "2024-07-07", snapshot, override(settings, {"hostfile": str(hostfile)}), run)
    assert load_bundle(training.path).provenance["world_size"] == 2


@pytest.fixture
def endless(snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path) -> list[str]:
    """The command of a run on two ranks that ends only when it is ended."""
    (tmp_path / "out").mkdir()
    plan = plan_training(snapshot, override(settings, {"ranks": 2, "epochs": 1e6}), tmp_path / "out", tmp_path)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    return worker_command(tmp_path / "plan.json", 2, None)


@pytest.fixture
def endless_by_deepspeed(endless: list[str], hostfile: Path) -> list[str]:
    return worker_command(Path(endless[-1]), 2, str(hostfile))


def family(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    return [psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)]


def wait_for_training(process: subprocess.Popen[str]) -> list[psutil.Process]:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step "):
            return family(process)
    raise AssertionError("the worker ended before its first step")


@pytest.mark.parametrize(
    ("launcher", "how"),
    [
        ("endless", signal.SIGTERM),
        pytest.param("endless", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("endless_by_deepspeed", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_every_rank(request: pytest.FixtureRequest, launcher: str, how: signal.Signals) -> None:
    process = subprocess.Popen(request.getfixturevalue(launcher), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    processes = wait_for_training(process)
    assert len(processes) >= 3
    process.send_signal(how)
    process.wait()
    psutil.wait_procs(processes[1:])  # an endless training ends by nothing else


def test_ranks_die_with_a_parent_that_is_killed(endless: list[str]) -> None:
    parent = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", parent, *endless], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    processes = wait_for_training(process)
    assert len(processes) >= 4
    process.kill()
    process.wait()
    psutil.wait_procs(processes[1:])  # an endless training ends by nothing else
