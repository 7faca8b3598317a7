"""Several machines, by a pdsh that starts them here: each has an environment of its own, and nothing in it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from assets.exceptions import TrainingError
from assets.features.snapshot import Snapshot
from assets.lake import Lake
from assets.settings import TrainingSettings
from assets.training.bundle import load_bundle
from assets.training.launchers.launch import override, train
from assets.training.launchers.processes import worker_command
from assets.training.program.process import hand_over_environment, take_environment

ROOT = Path(__file__).parents[2]
SECRET = "not to be seen"
PDSH = """#!{python}
import os, subprocess, sys
hosts = sys.argv[sys.argv.index("-w") + 1].split(",")
command = " ".join(sys.argv[sys.argv.index("-w") + 2:])
with open("{folder}/commands", "a") as file:
    file.write(command + "\\n")
if "deepspeed.launcher.launch" not in command or "pkill" in command:
    sys.exit()
bare = {{"PATH": os.environ["PATH"], "HOME": "{folder}"}}
machines = [
    subprocess.Popen(["sh", "-c", command.replace("%n", str(number))], env=bare) for number, _ in enumerate(hosts)
]
sys.exit(max(machine.wait() for machine in machines))
"""


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hostfile of two machines, and the pdsh and ssh that lead to them."""
    programs = {
        "pdsh": PDSH.format(python=sys.executable, folder=tmp_path),
        "ssh": "#!/bin/sh\necho 127.0.0.1\n",
    }
    (tmp_path / "bin").mkdir()
    for name, program in programs.items():
        (tmp_path / "bin" / name).write_text(program)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "hosts").write_text("one slots=1\ntwo slots=1\n")
    return tmp_path / "hosts"


@pytest.mark.slow
def test_every_machine_has_what_the_first_one_was_told_and_no_command_tells_secrets(
    machines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"AWS_SECRET_ACCESS_KEY": SECRET, "DAGSTER_PIPES_CONTEXT": "a run", "DAGSTER_PIPES_MESSAGES": "a file"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    command = [
        word.replace("assets.training.program.worker", "tests.training.environment_worker")
        for word in worker_command(tmp_path / "plan.json", 2, str(machines))
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert {name: found.get(name) for name in told} == told
    assert (tmp_path / "environment.json").stat().st_mode & 0o777 == 0o600
    assert SECRET not in (tmp_path / "commands").read_text() + done.stdout + done.stderr


def test_what_is_handed_over_is_private_and_no_more_than_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"AWS_SECRET_ACCESS_KEY": SECRET, "HOME": "/here"})
    hand_over_environment(tmp_path)
    (written,) = tmp_path.iterdir()
    assert written.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "environ", {"HOME": "/there"})
    take_environment(tmp_path)
    assert os.environ == {"AWS_SECRET_ACCESS_KEY": SECRET, "HOME": "/there"}


def test_the_plan_lies_in_the_home(snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path) -> None:
    told: list[Path] = []

    def stop(command: list[str]) -> None:
        told.append(Path(command[-1]))
        assert told[0].is_file()
        raise TrainingError("stopped")

    with pytest.raises(TrainingError, match="stopped"):
        train(Lake(tmp_path / "lake"), "2024-01-01", snapshot, settings, stop)
    assert told[0].is_relative_to(tmp_path / "lake")
    assert not told[0].exists()


@pytest.mark.slow
def test_two_machines_train_a_bundle(
    snapshot: Snapshot, settings: TrainingSettings, machines: Path, tmp_path: Path, run: Callable[[list[str]], None]
) -> None:
    chosen = override(settings, {"hostfile": str(machines)})
    training = train(Lake(tmp_path / "lake"), "2024-01-01", snapshot, chosen, run)
    assert load_bundle(training.path).provenance["world_size"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_dies_elsewhere_ends_the_run_in_one_line(
    snapshot: Snapshot, settings: TrainingSettings, machines: Path, tmp_path: Path, rank: str
) -> None:
    def kill_one(command: list[str]) -> None:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert any(line.startswith("step ") for line in process.stderr)
        workers = psutil.Process(process.pid).children(recursive=True)
        (killed,) = (one for one in workers if is_worker(one) and one.environ()["RANK"] == rank)
        os.kill(killed.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode != 0
        raise TrainingError("the processes ended early")

    chosen = override(settings, {"hostfile": str(machines), "epochs": 1e6})
    with pytest.raises(TrainingError, match=rf"^rank {rank} ended early"):
        train(Lake(tmp_path / "lake"), "2024-01-01", snapshot, chosen, kill_one)


def is_worker(process: psutil.Process) -> bool:
    command = process.cmdline()
    return "assets.training.program.worker" in command and "deepspeed.launcher.launch" not in command
