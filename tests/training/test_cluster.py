"""Which launcher a run gets, what a job of a cluster is called, who waits for whose, and each refusal in one line."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from assets.exceptions import SettingsError, TrainingError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file
from assets.lake import Lake
from assets.settings import TrainingSettings, load_environment
from assets.training.launchers import cluster
from assets.training.launchers.cluster import BUNDLE, FAILURE, Cluster
from assets.training.launchers.exchange import Exchange, files_under
from assets.training.launchers.interface import Job
from assets.training.launchers.launch import launcher_of, override, plan_training, train
from assets.training.launchers.processes import Processes
from assets.training.plan import TrainingPlan

ROOT = Path(__file__).parents[2]
HEAD = "http://head.example:8265"


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a team with a Ray cluster."""
    places = {"RAY": HEAD, "OBJECTS": "s3://team/home", "MLFLOW": "http://127.0.0.1:1"}
    for name, value in (places | {"DATABASE": "postgresql://nobody@127.0.0.1:1/none"}).items():
        monkeypatch.setenv(f"EVERGREEN_{name}", value)
    monkeypatch.setattr(cluster, "find_spec", lambda _: object())
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
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == missing else object())
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


def jobs_of(plan: TrainingPlan, *homes: str) -> list[Job]:
    found: list[Job] = []
    for home in homes:
        launcher = Cluster(HEAD, home)
        launcher._run(launcher._exchange(plan), plan, found.append)  # type: ignore[arg-type]
    return found


def test_a_job_is_named_by_its_training_and_its_home(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path
) -> None:
    plan = plan_training(snapshot, settings, tmp_path, tmp_path)
    one, again, other = jobs_of(plan, "s3://team/home", "s3://team/home", "s3://team/other")
    assert one == again
    assert one.id != other.id
    assert one.id.startswith(plan.training_id)
    assert one.command[-1] == f"s3://team/home/training/{plan.training_id}"


def test_why_a_job_failed_is_the_run_s_line(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, s3: ThreadedMotoServer, on_ray: None
) -> None:
    def fail(job: Job) -> None:
        Exchange(job.command[-1]).write(FAILURE, "the loss is nan; lower it")
        raise TrainingError("job 1 ended as FAILED")

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


class Head(ThreadingHTTPServer):
    """The part of a Ray dashboard that takes jobs."""

    daemon_threads = True

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.submitted: list[str] = []
        self.taken_first = ""
        super().__init__(("127.0.0.1", 0), Answers)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Head

    def do_GET(self) -> None:
        if self.path == "/api/version":
            return self.tell(200, {"version": "4", "ray_version": "2.60.0", "ray_commit": ""})
        listed = [{"type": "SUBMISSION", "submission_id": n, "status": s} for n, s in self.server.jobs.items()]
        return self.tell(200, [job | {"entrypoint": "", "message": ""} for job in listed])

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["submission_id"]
        if name == self.server.taken_first:  # somebody else was faster
            self.server.jobs[name] = "PENDING"
        if name in self.server.jobs:
            return self.tell(500, "it exists")
        self.server.submitted.append(name)
        self.server.jobs[name] = "PENDING"
        return self.tell(200, {"job_id": name, "submission_id": name})

    def tell(self, status: int, what: Any) -> None:
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def head() -> Iterator[Head]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'evergreen[ray]'")
    with Head() as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("jobs", "given", "submitted"),
    [
        ({}, "t", ["t"]),
        ({"t": "RUNNING"}, "t", []),
        ({"t": "PENDING", "other": "FAILED"}, "t", []),
        ({"t": "STOPPED"}, "t-2", ["t-2"]),
        ({"t": "FAILED", "t-2": "RUNNING"}, "t-2", []),
        ({"t": "FAILED", "t-2": "SUCCEEDED"}, "t-3", ["t-3"]),
    ],
)
def test_a_job_that_runs_is_adopted_and_one_that_has_ended_is_followed_by_another(
    head: Head, jobs: dict[str, str], given: str, submitted: list[str]
) -> None:
    from assets.training.launchers.jobs import job_client

    head.jobs = dict(jobs)
    assert job_client(head.address).submit_job(entrypoint="true", submission_id="t") == given
    assert head.submitted == submitted


def test_of_two_that_submit_at_once_one_adopts_the_other_s(head: Head) -> None:
    from assets.training.launchers.jobs import job_client

    head.taken_first = "t"
    assert job_client(head.address).submit_job(entrypoint="true", submission_id="t") == "t"
    assert head.submitted == []


def test_a_head_that_is_gone_is_one_line(head: Head) -> None:
    from assets.training.launchers.jobs import run_job

    head.shutdown()
    head.server_close()
    with pytest.raises(
        TrainingError, match=f"^the Ray cluster at {head.address} does not answer .*goes on from"
    ) as error:
        run_job(Job("t", head.address, ["true"]))
    assert "\n" not in str(error.value)


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
