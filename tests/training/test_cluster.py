"""Which launcher a run gets, what comes of its job on a cluster, and each refusal in one line."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from assets.cluster import jobs
from assets.cluster.driver import FAILURE
from assets.cluster.exchange import Exchange, files_under
from assets.cluster.jobs import Job
from assets.exceptions import ClusterError, SettingsError, TrainingError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file
from assets.lake import Lake
from assets.settings import TrainingSettings, load_environment
from assets.training.launchers.cluster import BUNDLE, Cluster
from assets.training.launchers.launch import launcher_of, override, plan_training, train
from assets.training.launchers.processes import Processes

ROOT = Path(__file__).parents[2]
HEAD = "http://head.example:8265"


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a team with a Ray cluster."""
    places = {"RAY": HEAD, "OBJECTS": "s3://team/home", "MLFLOW": "http://127.0.0.1:1"}
    for name, value in (places | {"DATABASE": "postgresql://nobody@127.0.0.1:1/none"}).items():
        monkeypatch.setenv(f"EVERGREEN_{name}", value)
    monkeypatch.setattr(jobs, "find_spec", lambda _: object())
    assert load_environment().ray == HEAD


def test_the_environment_and_the_settings_say_where_ranks_run(
    settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launcher_of(settings) == Processes(None)
    assert launcher_of(override(settings, {"hostfile": "hosts"})) == Processes(Path("hosts"))


def test_an_environment_with_a_cluster_trains_there(settings: TrainingSettings, on_ray: None) -> None:
    assert launcher_of(settings) == Cluster(HEAD, "s3://team/home")


@pytest.mark.parametrize("missing", ["ray", "dagster_ray"])
def test_without_ray_a_run_says_how_to_install_it(
    snapshot: Snapshot,
    settings: TrainingSettings,
    tmp_path: Path,
    on_ray: None,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(
        SettingsError, match=rf"^ray: {HEAD}, but {missing} is not here: pip install 'evergreen\[ray\]'$"
    ):
        plan_training(snapshot, settings, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hostfile": "hosts"}, "training.hardware.hostfile: the environment trains on a Ray cluster"),
        ({"ranks": 2, "fewest_ranks": 3}, "training.cluster.fewest_ranks: 3, of 2 ranks"),
        ({"deepspeed": "zero-3-nvme"}, "zero-3-nvme saves no checkpoints, which a Ray cluster needs"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"ranks": 3}, "16 rows cannot be shared by 3 ranks"),
    ],
)
def test_what_a_cluster_cannot_train_stops_before_a_job_starts(
    snapshot: Snapshot,
    settings: TrainingSettings,
    tmp_path: Path,
    on_ray: None,
    change: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(SettingsError, match=message):
        plan_training(snapshot, override(settings, change), tmp_path, tmp_path)


def test_ranks_that_take_gpus_compute_in_bf16_whatever_this_machine_has(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, on_ray: None
) -> None:
    on_gpus = override(settings, {"ranks": 2, "rank_gpus": 1, "precision": "auto"})
    assert plan_training(snapshot, on_gpus, tmp_path, tmp_path).settings.hardware.precision == "bf16"
    half = override(on_gpus, {"precision": "fp16"})
    assert plan_training(snapshot, half, tmp_path, tmp_path).world_size == 2


def test_the_place_of_the_ranks_changes_nothing_but_where_checkpoints_are(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_ray: None
) -> None:
    there = plan_training(snapshot, override(settings, {"rank_cpus": 4, "silence_seconds": 9}), tmp_path, tmp_path)
    own = plan_training(snapshot, override(settings, {"checkpoints": "s3://other/place"}), tmp_path, tmp_path)
    monkeypatch.delenv("EVERGREEN_RAY")
    here = plan_training(snapshot, settings, tmp_path, tmp_path)
    assert there.training_id == own.training_id == here.training_id
    assert there.settings.storage.checkpoints == "s3://team/home/checkpoints"
    assert own.settings.storage.checkpoints == "s3://other/place"


def test_why_a_job_failed_is_the_run_s_line(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, s3: ThreadedMotoServer, on_ray: None
) -> None:
    def fail(job: Job) -> None:
        Exchange(job.command[-1]).write(FAILURE, "the loss is nan; lower it")
        raise ClusterError("job 1 ended as FAILED")

    with pytest.raises(TrainingError, match=r"^the loss is nan; lower it$"):
        train(Lake(tmp_path / "lake"), "2024-01-01", snapshot, settings, fail)  # type: ignore[arg-type]


def test_a_bundle_that_a_dead_run_s_job_has_made_is_taken(
    lake: Lake,
    snapshot: Snapshot,
    settings: TrainingSettings,
    bundle_path: Path,
    s3: ThreadedMotoServer,
    tmp_path: Path,
    on_ray: None,
) -> None:
    def die(job: Job) -> None:
        """The job goes on to its end, the run does not."""
        Exchange(job.command[-1]).put(BUNDLE, files_under(bundle_path))
        raise TrainingError("the run was killed")

    def never(job: Job) -> None:
        raise AssertionError(job)

    there = Lake(tmp_path / "lake")
    with pytest.raises(TrainingError, match="the run was killed"):
        train(there, "2024-01-01", snapshot, settings, die)  # type: ignore[arg-type]
    made = train(there, "2024-01-01", snapshot, settings, never)
    assert hash_file(made.path / "model.safetensors") == hash_file(bundle_path / "model.safetensors")
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="team")


@pytest.fixture
def program() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a Python program whose stderr is read."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> "subprocess.Popen[str]":
        started.append(subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_program_that_says_nothing_for_too_long_is_noticed(
    program: Callable[..., "subprocess.Popen[str]"],
) -> None:
    import queue

    from assets.training.launchers.rank import _lines

    process = program("import sys, time; print('step 1', file=sys.stderr, flush=True); time.sleep(1e6)")
    lines = _lines(process, 60.0, 2.0)
    assert next(lines) == "step 1"
    since = time.monotonic()
    with pytest.raises(queue.Empty):
        next(lines)
    assert time.monotonic() - since >= 2.0


def test_a_program_s_lines_end_with_it(program: Callable[..., "subprocess.Popen[str]"]) -> None:
    from assets.training.launchers.rank import _lines

    process = program("import sys; print('one\\ntwo', file=sys.stderr)")
    assert list(_lines(process, 60.0, 60.0)) == ["one", "two"]


@pytest.mark.parametrize(
    ("status", "why"),
    [(0, None), (143, "was told to stop, and is saved"), (-9, "was ended by SIGKILL"), (1, "ended with status 1; ")],
)
def test_an_ending_is_told_by_its_status(status: int, why: str | None) -> None:
    from assets.training.launchers.rank import _ending

    assert (_ending(status) or "").startswith(why or "")
    assert (_ending(status) is None) == (why is None)
    assert signal.SIGTERM == 143 - 128


@pytest.mark.parametrize(("workers", "ranks"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (16, 16), (40, 16)])
def test_workers_that_cannot_share_a_step_s_rows_are_left_out(workers: int, ranks: int) -> None:
    from assets.training.launchers.rank import _shareable

    assert _shareable(16, workers) == ranks


def test_of_a_program_s_lines_its_messages_to_dagster_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from assets.training.launchers.rank import _message

    said = {"__dagster_pipes_version": "0.1", "method": "log", "params": {"message": "step 1/2", "level": "INFO"}}
    lines = [json.dumps(said), json.dumps(said | {"method": "opened", "params": {}}), "a warning", "[1]", '"a"', "{}"]
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    assert [_message(line) for line in lines] == lines
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", "a run")
    assert [_message(line) for line in lines] == ["step 1/2", None, None, None, None, None]


def test_the_default_imports_nothing_of_ray() -> None:
    code = "import sys, assets.training.definitions, pipelines.runs; print({'ray', 'dagster_ray'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
