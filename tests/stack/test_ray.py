"""Training on a Ray cluster of two nodes: the same weights as here, whatever dies on the way."""
# ruff: noqa: F811

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pytest

from assets.cluster.jobs import Job, run_job
from assets.exceptions import TrainingError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file
from assets.home import Home
from assets.lake import Lake
from assets.settings import TrainingSettings, load_environment
from assets.training.bundle import read_json
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import Training, override, train
from tests.stack.cluster import Nodes, eventually, keys
from tests.training.conftest import AS_OF, encoder, lake, run, settings, snapshot  # noqa: F401 - fixtures, which tests name again

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")]

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'evergreen[ray]'")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def measured(record_testsuite_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Notes a figure in the report of --junitxml."""
    return record_testsuite_property


@pytest.fixture
def home(nodes: Nodes, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The prefix of a home whose trainings run on the cluster."""
    objects = f"team-{secrets.token_hex(4)}"
    places = {"RAY": nodes.address, "OBJECTS": f"s3://team/{objects}", "MLFLOW": "http://127.0.0.1:1"}
    for name, value in (places | {"DATABASE": database}).items():
        monkeypatch.setenv(f"EVERGREEN_{name}", value)
    return objects


@pytest.fixture(scope="module")
def two(settings: TrainingSettings) -> TrainingSettings:
    return override(
        settings,
        {"ranks": 2, "trainable_layers": 2, "epochs": 32.0, "checkpoint_seconds": 2.0, "silence_seconds": 120.0},
    )


@dataclass(frozen=True)
class Made:
    """The weights of a training, and the seconds that it took besides its steps: start, exchange, end."""

    weights: str
    overhead: float


def made_by(train_it: Callable[[], Training]) -> Made:
    since = time.monotonic()
    made = train_it()
    return Made(hash_file(made.path / "model.safetensors"), time.monotonic() - since - made.report["seconds"])


@pytest.fixture(scope="module")
def here(
    snapshot: Snapshot,
    two: TrainingSettings,
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    """Two ranks of this machine, with a thread each."""
    assert "EVERGREEN_RAY" not in os.environ
    folder = tmp_path_factory.mktemp("here")
    return made_by(lambda: train(Lake(folder / "lake"), AS_OF, snapshot, two, run))


def saved(home: str) -> int:
    """The step of the newest checkpoint in S3; 0 without one."""
    s3, names = boto3.client("s3"), [key for key in keys(f"{home}/checkpoints/") if key.endswith("/CURRENT")]
    with suppress(s3.exceptions.NoSuchKey):  # the training has just ended
        return int(s3.get_object(Bucket="team", Key=names[0])["Body"].read()[5:]) if names else 0
    return 0


def rank(number: int) -> psutil.Process | None:
    """The process of a rank."""
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            is_rank = "assets.training.program.worker" in (process.info["cmdline"] or [])
            if is_rank and process.environ().get("RANK") == str(number):
                return process
    return None


def lose(home: str, lose_it: Callable[[], None]) -> float:
    """Lose something once there is a checkpoint; the seconds until there is a further one after that."""
    step = eventually(lambda: saved(home), "a checkpoint")
    lose_it()
    since = time.monotonic()
    eventually(lambda: saved(home) != step, "a checkpoint after the loss")
    return time.monotonic() - since


@pytest.fixture
def team(home: str, snapshot: Snapshot, tmp_path: Path) -> Lake:
    """The lake of a home whose trainings run on the cluster, with a training set."""
    shared = Home(tmp_path / "team", load_environment()).lake
    with shared.staging(f"training_set/{AS_OF}") as staged:
        shutil.copytree(snapshot.path, staged, dirs_exist_ok=True)
        shared.publish(f"training_set/{AS_OF}", snapshot.id, staged)
    return shared


@pytest.fixture
def dagster_run(
    team: Lake, two: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts a Dagster run of the training, in a process of its own."""
    monkeypatch.setenv("EVERGREEN_HOME", str(team.root.parent))
    config = {name: value for group in two.model_dump().values() for name, value in group.items() if value is not None}
    command = [sys.executable, "-m", "tests.stack.ray_run", AS_OF, json.dumps(config)]
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_killed_run_and_a_killed_rank_cost_nothing_but_time(
    dagster_run: Callable[[], "subprocess.Popen[str]"],
    here: Made,
    nodes: Nodes,
    home: str,
    team: Lake,
    measured: Callable[[str, object], None],
) -> None:
    """The run that is launched again adopts the job, and ends in the weights of two ranks of this machine.

    It waits for the lease of the killed one first, so that the job may have ended by then.
    """
    before = nodes.states().keys()
    since, first = time.monotonic(), dagster_run()
    eventually(lambda: "step " in nodes.said(before), "the first step")
    measured("seconds besides the steps", {"here": here.overhead, "there": time.monotonic() - since})
    eventually(lambda: saved(home), "a checkpoint")
    first.kill()
    first.communicate()
    second = dagster_run()
    measured("seconds after the kill of a rank", lose(home, lambda: rank(1).send_signal(signal.SIGKILL)))
    shown = second.communicate()[0]
    assert second.returncode == 0, shown[-3000:]
    assert len(nodes.states().keys() - before) == 1
    made = team.current(f"challenger/{AS_OF}")
    assert read_json(made / "training.json")["resumed"] == "exact"
    assert hash_file(made / "model.safetensors") == here.weights
    assert not keys(f"{home}/checkpoints/")
    assert not keys(f"{home}/training/")


def test_a_hung_rank_is_noticed_and_terminating_the_run_ends_its_job(
    dagster_run: Callable[[], "subprocess.Popen[str]"],
    nodes: Nodes,
    home: str,
    measured: Callable[[str, object], None],
) -> None:
    before = nodes.states().keys()
    run = dagster_run()
    eventually(lambda: "tokens/s" in nodes.said(before), "the first step")
    measured("seconds after the stop of a rank", lose(home, lambda: rank(1).send_signal(signal.SIGSTOP)))
    assert "the ranks hang" in nodes.said(before)
    run.terminate()
    shown = run.communicate()[0]
    assert run.returncode != 0, shown[-3000:]
    assert "tokens/s" in shown
    (job,) = nodes.states().keys() - before
    eventually(lambda: nodes.states()[job] == "STOPPED", "the end of the job")
    eventually(lambda: not rank(0) and not rank(1), "the end of the ranks")


def test_after_the_loss_of_a_node_and_of_the_head_a_training_goes_on_elsewhere(
    snapshot: Snapshot,
    two: TrainingSettings,
    nodes: Nodes,
    home: str,
    tmp_path: Path,
    measured: Callable[[str, object], None],
) -> None:
    there, elastic = Lake(tmp_path / "lake"), override(two, {"fewest_ranks": 1})

    def lose_both(job: Job) -> None:
        with ThreadPoolExecutor(1) as other:
            running = other.submit(run_job, job)
            measured("seconds after the kill of a node", lose(home, nodes.kill_second))
            nodes.kill_head()
            running.result()

    with pytest.raises(TrainingError, match=rf"^the Ray cluster at {nodes.address} does not answer") as error:
        train(there, AS_OF, snapshot, elastic, lose_both)
    assert "\n" not in str(error.value)
    nodes.cluster.shutdown()
    eventually(lambda: not rank(0) and not rank(1), "the end of the ranks")
    nodes.start()
    made = train(there, AS_OF, snapshot, two, run_job)
    assert made.report["resumed"] == "equivalent"
    assert made.report["steps"] == 512
    assert read_json(made.path / "provenance.json")["world_sizes"] == [2, 1, 2]


def test_a_node_that_gives_notice_is_left_with_what_was_learned(
    snapshot: Snapshot, two: TrainingSettings, nodes: Nodes, home: str, tmp_path: Path
) -> None:
    """No checkpoint is due: the one that there is was made on notice."""

    before = nodes.states().keys()

    def give_notice(job: Job) -> None:
        with ThreadPoolExecutor(1) as other:
            running = other.submit(run_job, job)
            eventually(lambda: "step " in nodes.said(before), "the first step")
            nodes.drain_second()
            running.result()

    rarely = override(two, {"fewest_ranks": 1, "checkpoint_seconds": 1e6})
    made = train(Lake(tmp_path / "lake"), AS_OF, snapshot, rarely, give_notice)
    assert read_json(made.path / "provenance.json")["world_sizes"] == [2, 1]
