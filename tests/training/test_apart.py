"""Ranks that share no folder: each has one of its own, and S3 has their checkpoints."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from assets.exceptions import SourceError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file
from assets.settings import TrainingSettings
from assets.training.bundle import read_json
from assets.training.launchers.launch import override, plan_training
from assets.training.plan import TrainingPlan
from assets.training.program.checkpoints import Checkpoints
from assets.training.program.mirror import Mirror

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mirror(s3: ThreadedMotoServer) -> Mirror:
    return Mirror("team", "run", kept=2)


@pytest.fixture
def part(mirror: Mirror, tmp_path: Path) -> Callable[[str, int], None]:
    """Copies what one rank has of a checkpoint."""

    def copy(name: str, rank: int) -> None:
        file, listed = tmp_path / f"rank-{rank}.pt", tmp_path / f"rank-{rank}.json"
        file.write_bytes(f"{name} {rank}".encode())
        listed.write_text(f'{{"{file.name}": "{hash_file(file)}"}}')
        with file.open("rb") as first, listed.open("rb") as last:
            mirror.put_part(name, {file.name: first, listed.name: last})

    return copy


def test_parts_become_a_checkpoint_by_its_manifest_alone(
    mirror: Mirror, part: Callable[[str, int], None], tmp_path: Path
) -> None:
    here = Checkpoints(tmp_path / "here", kept=2)
    for rank in range(2):
        part("step-00000010", rank)
        assert mirror.fetch(here) is None
        assert mirror.newest() is None
    mirror.put_manifest("step-00000010", ["rank-0.json", "rank-1.json"])
    assert mirror.newest() == "step-00000010"
    mirror.fetch_step(10, here)
    assert {path.name for path in here.path(10).iterdir()} == {"MANIFEST.json", "rank-0.pt", "rank-1.pt"}
    with pytest.raises(SourceError, match="step-00000020 is no longer complete"):
        mirror.fetch_step(20, here)


def test_a_missing_part_makes_no_checkpoint(mirror: Mirror, part: Callable[[str, int], None]) -> None:
    for name in ("step-00000010", "step-00000020"):
        part(name, 0)
    mirror.put_manifest("step-00000010", ["rank-0.json"])
    with pytest.raises(SourceError, match="s3://team/run"):
        mirror.put_manifest("step-00000020", ["rank-0.json", "rank-1.json"])
    boto3.client("s3").delete_object(Bucket="team", Key="run/step-00000020/rank-0.pt")
    with pytest.raises(SourceError, match=r"step-00000020 has no rank-0.pt"):
        mirror.put_manifest("step-00000020", ["rank-0.json"])
    assert mirror.newest() == "step-00000010"


def test_what_ranks_copy_meanwhile_is_kept_and_what_is_outdated_is_not(
    mirror: Mirror, part: Callable[[str, int], None]
) -> None:
    for step in (10, 20, 30, 40):
        part(f"step-000000{step}", 0)
    for step in (10, 20, 30):
        mirror.put_manifest(f"step-000000{step}", ["rank-0.json"])
    assert sorted(name for name in mirror._list() if name) == ["step-00000020", "step-00000030", "step-00000040"]


@pytest.fixture
def plan(snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, s3: ThreadedMotoServer) -> TrainingPlan:
    chosen = override(settings, {"ranks": 2, "checkpoint_seconds": 0.05, "checkpoints": "s3://team/checkpoints"})
    return plan_training(snapshot, chosen, tmp_path, tmp_path).model_copy(update={"apart": True})


def start(
    plan: TrainingPlan, folder: Path, ranks: int, program: str = "program.worker"
) -> "list[subprocess.Popen[str]]":
    """The ranks of a plan, each on a machine of its own, as far as folders go."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(ranks):
        own = folder / f"machine-{rank}"
        (own / "output").mkdir(parents=True)
        places = {"checkpoints": own / plan.checkpoints.name, "cache": own / "cache", "output": own / "output"}
        (own / "plan.json").write_text(plan.model_copy(update=places | {"world_size": ranks}).model_dump_json())
        told = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in told.items()} | {"EVERGREEN_THREADS": "1"}
        command = [sys.executable, "-m", "assets.training.program.worker", str(own / "plan.json")]
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
        )
    return started


def finish(processes: "list[subprocess.Popen[str]]") -> list[str]:
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said[0].splitlines()


def end(processes: "list[subprocess.Popen[str]]") -> None:
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "then"), [("zero-2", 2), ("zero-2", 1), ("zero-3", 1)])
def test_ranks_without_a_common_folder_go_on_from_s3_on_other_machines(
    plan: TrainingPlan, tmp_path: Path, stage: str, then: int, snapshot: Snapshot
) -> None:
    settings = override(plan.settings, {"deepspeed": stage})
    plan = plan_training(snapshot, settings, tmp_path, tmp_path).model_copy(update={"apart": True})
    mirror = Mirror.of(plan)
    assert mirror is not None
    first = start(plan, tmp_path / "first", 2)
    try:
        while mirror.newest() is None:
            assert all(process.poll() is None for process in first), "the run ended before it was saved"
            time.sleep(0.01)
    finally:
        end(first)
    said = finish(start(plan, tmp_path / "then", then))
    assert [line for line in said if line.startswith("resumed at step")]
    assert [line for line in said if line.endswith(f"is saved in s3://team/checkpoints/{plan.checkpoints.name}")]
    made = tmp_path / "then" / "machine-0" / "output"
    assert read_json(made / "provenance.json")["world_sizes"] == ([2] if then == 2 else [2, 1])
    if then == 2:
        mirror.clear()
        finish(start(plan, tmp_path / "alone", 2))
        alone = tmp_path / "alone" / "machine-0" / "output"
        assert hash_file(made / "model.safetensors") == hash_file(alone / "model.safetensors")


@pytest.mark.slow
def test_an_s3_that_does_not_answer_ends_a_rank_as_what_can_go_on(
    plan: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        (process,) = start(plan, tmp_path, 1)
        process.communicate()
    assert process.returncode == os.EX_TEMPFAIL
    assert "no answer" in (tmp_path / "machine-0" / "output" / "failure.txt").read_text()
