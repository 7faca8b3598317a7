"""The whole graph as its users run it: the command, in processes of its own, on simulated records."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import nbformat
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from nbclient import NotebookClient

from assets.hashing import hash_file
from assets.home import Home
from assets.ingestion.landing import ingest
from assets.ingestion.reading import read_rows
from assets.ingestion.records import Record
from assets.lake import Lake
from assets.locks import locked
from assets.retention.prune import prune
from assets.scoring.champion import Champion
from assets.settings import load_alert_settings, load_domain, load_settings
from assets.warehouse.marts import mart
from assets.watching.delivery import send_due
from assets.watching.progress import progress
from pipelines.guard import token_of
from tests.conftest import empty_bucket

Served = Callable[..., AbstractContextManager[dict[str, str]]]

EVERGREEN = Path(sys.executable).with_name("evergreen")
ROOT = Path(__file__).parent.parent
AS_OF = "2024-07-01"
AS_OFS = ("2024-05-01", "2024-06-01", AS_OF)
SIMULATION = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7"]
"""What `make run` simulates."""


def evergreen(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"EVERGREEN_HOME": str(home)} | environment
    return subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False, env=variables)


def run(home: Path, source: str, as_of: str = AS_OF, **environment: str) -> dict[str, Any]:
    done = evergreen(home, "run", "--source", source, "--as-of", as_of, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "source"
    assert evergreen(folder, "simulate", "--output", str(folder), *SIMULATION).returncode == 0
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "it's a home {x} 100%"


@pytest.fixture(scope="module")
def first(home: Path, source: Path) -> dict[str, Any]:
    return run(home, str(source))


@pytest.fixture(scope="module")
def second(home: Path, source: Path, first: dict[str, Any]) -> dict[str, Any]:
    return run(home, str(source))


def test_a_run_ends_with_a_champion_that_beats_the_baseline(first: dict[str, Any]) -> None:
    assert first["verdict"]["decision"] == "promote", first["verdict"]
    assert first["champion"]["version"] == first["challenger"]["version"] == "1"
    for metric in ("accuracy", "macro_f1"):
        assert first["challenger"]["metrics"][metric] > first["challenger"]["baseline"][metric]
    assert first["challenger"]["champion"] is None


def test_every_record_is_accounted_for(first: dict[str, Any], source: Path) -> None:
    records = first["records"]
    assert records["landed"] == records["valid"] + records["quarantined"] + records["duplicate"]
    assert records["quarantined"] > 0
    assert records["duplicate"] > 0
    assert 0 < records["known"] <= records["valid"]


def test_a_second_run_changes_nothing_and_says_why(home: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    assert second["snapshot"] == first["snapshot"]
    assert second["records"] == first["records"]
    assert second["challenger"]["version"] == first["challenger"]["version"]
    assert second["verdict"]["decision"] == "unchanged"
    assert "nothing it is made of has changed" in second["verdict"]["reasons"][0]
    trained = [re.findall("^(Trained|Reused) ", said(home, each["run_id"]), re.MULTILINE) for each in (first, second)]
    assert trained == [["Trained"], ["Reused"]]


def test_the_ledger_explains_the_champion(home: Path, second: dict[str, Any]) -> None:
    entries = json.loads(evergreen(home, "ledger", "--json").stdout)
    assert [e["body"]["decision"] for e in entries if e["kind"] == "verdict"] == ["promote"]
    assert [e["body"]["version"] for e in entries if e["kind"] == "alias"] == ["1"]
    assert [e["kind"] for e in entries].count("retraining") >= 1


def test_the_run_is_in_the_instance_that_the_ui_shows(home: Path, first: dict[str, Any]) -> None:
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        run = instance.get_run_by_id(first["run_id"])
    assert run is not None
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.job_name == "refresh"
    assert run.remote_job_origin is not None, "the timeline would leave it out"
    assert run.remote_job_origin.location_name == "evergreen"
    said = {name.removeprefix("evergreen/"): value for name, value in run.tags.items() if name[:10] == "evergreen/"}
    assert said == {"command": "run", "profile": "quick", "verdict": "promote", "retraining": "skip"}


def test_no_text_is_in_the_logs(home: Path, first: dict[str, Any]) -> None:
    marts = next(home.glob("lake/marts/[!.]*/"))
    query = "select text from read_parquet($1) where length(text) > 80 limit 200"
    texts = duckdb.execute(query, [mart(marts, "fct_records")]).fetchall()
    logs = "".join(path.read_text(errors="replace") for path in (home / "logs").iterdir())
    assert texts
    assert not [text for (text,) in texts if text[:60] in logs]


SERVED = {
    *(
        "evergreen_serving_requests_total",
        "evergreen_serving_request_seconds_bucket",
        "evergreen_serving_queued_records",
    ),
    *("evergreen_serving_batch_records_sum", "evergreen_serving_batch_records_count", "evergreen_serving_ready"),
    "evergreen_serving_answers_total",
}
"""What a server of answers exports, and no home."""
TRAINING = '{"method": "log", "params": {"message": "step 3/39  loss 1.5  900 tokens/s  9 s left"}}'


def test_what_alerts_and_panels_name_is_exported(home: Path, first: dict[str, Any], tmp_path: Path) -> None:
    scrape = "from assets.home import Home; from pipelines.metrics import Metrics; "
    scrape += "print(Metrics(Home.from_environment()).answer().body.decode())"
    command, variables = [sys.executable, "-c", scrape], os.environ | {"EVERGREEN_HOME": str(home)}
    url = tmp_path / "url"
    url.write_text("https://127.0.0.1:1/")
    settings = load_alert_settings().model_copy(update={"url_file": url})
    assert "alerts begin" in send_due(Home(home), settings, datetime.now(UTC))
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    exported = set(re.findall(r"^# TYPE (\w+)", done.stdout, re.M))
    assert 'evergreen_part_readable{part="data"} 1.0' in done.stdout
    assert not re.findall(r"^evergreen_part_readable.* 0\.0$", done.stdout, re.M)
    (last,) = re.findall(r"^evergreen_last_run_info.* 1\.0$", done.stdout, re.M)
    runs = {path.stem for path in (home / "logs").iterdir()}
    assert {first["run_id"], *re.findall(r'run_id="([^"]+)"', last)} <= runs
    (tmp_path / "training" / ".staging-x").mkdir(parents=True)
    (tmp_path / "training" / ".staging-x" / "messages").write_text(TRAINING)
    exported |= {figure.name for figure in progress(Lake(tmp_path), 0.0)}  # what only a running training has
    written = [ROOT / "configs" / "prometheus" / "alerts.yaml", ROOT / "configs" / "grafana" / "evergreen.json"]
    written.append(ROOT / "docs" / "monitoring.md")
    named = {name for path in written for name in re.findall(r"\bevergreen_[a-z_]+\b", path.read_text())}
    assert named > {"evergreen_drift_detected", "evergreen_training_now_step", *SERVED}
    assert named - SERVED <= exported


def test_a_file_is_scored_row_by_row(home: Path, source: Path, first: dict[str, Any], tmp_path: Path) -> None:
    file = min(source.glob("*.csv"))
    done = evergreen(home, "score", "--input", str(file), "--output", str(tmp_path / "routed.parquet"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^[\d,]+ rows, [\d,]+ scored by version 1: .*\n[\d,]+ not scored: .*\d no-text", done.stdout)
    columns = "record_id, predicted, confidence, model_version, reason"
    rows = duckdb.sql(f"select {columns} from '{tmp_path / 'routed.parquet'}'").df()
    assert (rows.predicted.isna() == rows.reason.notna()).all()
    assert (rows.reason == "no-text").any()
    assert rows.confidence.dropna().between(0, 1).all()
    assert set(rows.model_version.dropna()) == {"1"}


def test_the_notebook_loads_the_champion_scores_and_reads_the_ledger(
    home: Path, source: Path, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(ROOT / "examples" / "champion.ipynb", nbformat.NO_CONVERT)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]
    monkeypatch.setenv("EVERGREEN_HOME", str(home))
    (home / "source").symlink_to(source)
    try:
        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    finally:
        (home / "source").unlink()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert f"version 1, trained as of {AS_OF}" in said
    assert "models:/text-classifier@champion is version 1;" in said
    assert re.search(r"^\d+ entries, as they were written$", said, re.MULTILINE)
    assert "- there is no champion yet" in said
    (answers,) = [cell.outputs[0].data["text/plain"] for cell in notebook.cells if cell.source.endswith("\nanswers")]
    assert len(re.findall(r"0\.\d+ +1 +None", answers)) >= 3


_BY_ALIAS = """
import sys, mlflow, pandas as pd
champion = mlflow.pyfunc.load_model("models:/text-classifier@champion")
champion.predict(pd.read_json(sys.argv[1], dtype=False)).to_json(sys.argv[2])
"""


def test_mlflow_loads_the_champion_by_its_alias(
    home: Path, source: Path, first: dict[str, Any], served: Served, tmp_path: Path
) -> None:
    """As a notebook does that knows MLflow alone; the answers are those of `evergreen score`."""
    domain, settings = load_domain(), load_settings("quick")
    rows = list(islice(read_rows(min(source.glob("*.csv")), settings.ingestion, domain), 60))
    records = [row for row in rows if isinstance(row, Record)]
    pd.DataFrame([record.fields for record in records]).to_json(tmp_path / "records.json")
    with served(Home(home), "mlflow") as addresses:
        variables = {"MLFLOW_TRACKING_URI": addresses["mlflow"], "MLFLOW_TRACKING_TOKEN": token_of(Home(home))}
        program = [sys.executable, "-c", _BY_ALIAS, str(tmp_path / "records.json"), str(tmp_path / "answers.json")]
        environment = os.environ | {"EVERGREEN_HOME": str(home)} | variables
        done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = pd.read_json(tmp_path / "answers.json", dtype=False)
    expected = Champion.load(Home(home), settings.scoring).answer(records)
    assert answers["predicted"].notna().sum() > 5
    assert answers["predicted"].fillna("").tolist() == expected["predicted"].fillna("").tolist()
    assert answers["confidence"].tolist() == pytest.approx(expected["confidence"].tolist(), abs=1e-4, nan_ok=True)


@pytest.fixture
def simulated(source: Path, objects_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the simulated files on S3."""
    bucket = empty_bucket("simulated", objects_server, monkeypatch)
    for path in source.iterdir():
        bucket.upload_file(str(path), f"in/{path.name}")
    return "s3://simulated/in"


@pytest.mark.slow
def test_the_same_objects_in_s3_give_the_same_snapshot(simulated: str, first: dict[str, Any], tmp_path: Path) -> None:
    assert materialize_up_to_snapshot(tmp_path / "home", simulated) == first["snapshot"]["id"]


@pytest.mark.slow
def test_the_same_objects_in_s3_make_no_new_version(home: Path, simulated: str, second: dict[str, Any]) -> None:
    same_home = run(home, simulated)
    assert same_home["snapshot"] == second["snapshot"]
    assert same_home["records"]["landed"] == second["records"]["landed"]
    assert same_home["challenger"]["version"] == "1"


def materialize_up_to_snapshot(home: Path, source: str) -> str:
    """The snapshot id of a home of its own, by the graph's assets up to `training_set`."""
    code = f"""
import dagster as dg
from pipelines.definitions import defs
selection = dg.AssetSelection.assets("training_set").upstream().resolve(defs.resolve_asset_graph())
job = defs.resolve_job_def("refresh")
with dg.instance_for_test() as instance:
    instance.add_dynamic_partitions("as_of", [{AS_OF!r}])
    job.execute_in_process(
        instance=instance, partition_key={AS_OF!r}, asset_selection=list(selection),
        run_config={{"ops": {{"raw_records": {{"config": {{"sources": [{source!r}]}}}}}}}},
    )
"""
    environment = os.environ | {"EVERGREEN_HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    return (home / "lake" / "training_set" / AS_OF / "CURRENT").read_text()


def kill_at_random(home: Path, source: Path, within: float, dice: random.Random) -> None:
    """Start a run and kill its whole process group at a random moment of its first `within` seconds."""
    environment = os.environ | {"EVERGREEN_HOME": str(home)}
    command = [EVERGREEN, "run", "--source", str(source), "--as-of", AS_OF]
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(dice.uniform(0, within))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def assert_nothing_is_half_written(home: Path) -> None:
    """Every pointer names a version that is there, and every published Parquet file reads to its end."""
    for pointer in home.glob("lake/**/CURRENT"):
        version = pointer.parent / pointer.read_text()
        assert version.is_dir(), pointer
        for file in version.rglob("*.parquet"):
            duckdb.sql(f"select count(columns(*)) from '{file}'").fetchall()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_a_killed_run_ends_in_the_same_state(seed: int, source: Path, first: dict[str, Any], tmp_path: Path) -> None:
    home, dice = tmp_path / "home", random.Random(seed)
    kill_at_random(home, source, sum(first["seconds"].values()), dice)
    assert_nothing_is_half_written(home)
    again = run(home, str(source))
    assert again["snapshot"] == first["snapshot"]
    assert again["records"] == first["records"]
    assert again["champion"] == first["champion"]
    assert_nothing_is_half_written(home)


@pytest.fixture(scope="module")
def three(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three versions, trained as of three dates."""
    home = tmp_path_factory.mktemp("three")
    for number, as_of in enumerate(AS_OFS, start=1):
        assert run(home, str(source), as_of)["challenger"]["version"] == str(number)
    return home


def reproduced(home: Path, version: str = "1", cores: set[int] | None = None, **environment: str) -> tuple[str, str]:
    """What comes of making a version again, and why; on some of the cores, if they are given."""
    variables = os.environ | {"EVERGREEN_HOME": str(home)} | environment
    command = ["taskset", "--cpu-list", ",".join(map(str, cores or os.sched_getaffinity(0)))]
    command += [str(EVERGREEN), "reproduce", version, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    found: dict[str, str] = json.loads(done.stdout)
    assert done.returncode == {"bitwise": 0, "equivalent": 0, "changed": 1, "impossible": 1}[found["verdict"]]
    assert found["version"] == version
    return found["verdict"], found["reason"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_versions_are_made_again_to_the_bit(three: Path) -> None:
    for version in "123":
        assert reproduced(three, version) == ("bitwise", "the same training set and the same weights, to the bit")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_version_is_not_made_again_from_other_data_or_from_none(three: Path, tmp_path: Path) -> None:
    other = tmp_path / "home"
    shutil.copytree(three, other, symlinks=True)
    for records in other.glob("lake/marts/*/fct_records/*.parquet"):
        rows = duckdb.sql(f"from '{records}' where record_id not like '%7'").to_arrow_table()
        pq.write_table(rows, records)
    trained_on = other / "lake" / "training_set" / AS_OFS[0]
    snapshot = (trained_on / "CURRENT").read_text()
    verdict, reason = reproduced(other)
    assert (verdict, reason.partition(", and now")[0]) == ("changed", f"data: its training set is {snapshot}")
    shutil.rmtree(trained_on / snapshot)
    assert reproduced(other) == ("impossible", f"training_set/{AS_OFS[0]} has no version {snapshot} in this home")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_the_policy_keeps_is_whole_after_pruning(three: Path, source: Path, tmp_path: Path) -> None:
    """tests/registry/test_removed.py has each promise, on files without a model in them."""
    pruned = tmp_path / "home"
    shutil.copytree(three, pruned, symlinks=True)
    least = dict.fromkeys(("publications", "days", "page_days", "trainings", "rollbacks", "reproducible"), 1)
    done = prune(Home(pruned), load_settings("quick").retention.model_copy(update=least), now=True)
    assert {"days", "reproducible"} <= {item.setting for item in done.removed}
    assert [path.stem for path in (pruned / "reports/drift").iterdir()] == [AS_OF]  # each night is a month later
    champion = json.loads(evergreen(pruned, "status", "--json").stdout)["champion"]["version"]
    assert reproduced(pruned, champion)[0] == "bitwise"
    verdicts = {version: reproduced(pruned, version) for version in {"1", "2"} - {champion}}
    gone = [why for verdict, why in verdicts.values() if verdict == "impossible"]
    assert gone
    assert all("`evergreen prune` removed it on" in why and "configs/retention.yaml" in why for why in gone)
    assert evergreen(pruned, "ledger", "--verify").returncode == 0
    scored = evergreen(pruned, "score", "--input", str(min(source.glob("*.csv"))), "--output", str(tmp_path / "o.csv"))
    assert scored.returncode == 0, scored.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_other_code_makes_another_version(three: Path, tmp_path: Path) -> None:
    for room in ("assets", "configs", "dbt", "feature_repo", "pipelines"):
        shutil.copytree(ROOT / room, tmp_path / room)
    changed = tmp_path / "assets" / "training" / "optimization.py"
    before = changed.read_text()
    changed.write_text(before.replace("rate = settings.learning_rate if", "rate = 0.9 * settings.learning_rate if"))
    assert changed.read_text() != before
    verdict, reason = reproduced(three, PYTHONPATH=str(tmp_path))
    assert verdict == "changed"
    assert "weights differ" in reason
    assert "code: " in reason


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has one number of threads")
def test_other_threads_make_an_equal_version_and_other_packages_another_one(three: Path, tmp_path: Path) -> None:
    one = {min(os.sched_getaffinity(0))}
    verdict, reason = reproduced(three, cores=one)
    assert verdict == "equivalent"
    assert reason.startswith("weights differ; metrics by 0.0")
    assert reason.endswith(f"threads: {len(os.sched_getaffinity(0))}, now 1")
    newer = tmp_path / "deepspeed-99.0.dist-info"
    newer.mkdir()
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 99.0\n")
    here = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    verdict, reason = reproduced(three, cores=one, PYTHONPATH=here)
    assert verdict == "changed"
    assert "packages: " in reason
    assert "'deepspeed': '99.0'" in reason


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[DagsterGraphQLClient]:
    """What the pages of `evergreen ui` talk to, on a home of its own."""
    environment = os.environ | {"EVERGREEN_HOME": str(tmp_path / "home")}
    process = subprocess.Popen([EVERGREEN, "ui"], env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "Ctrl-C" not in (line := process.stderr.readline()):
        assert line, "evergreen ui ended before it was up"
    token = (tmp_path / "home" / "ui-token").read_text()
    yield DagsterGraphQLClient("127.0.0.1", port_number=3000, headers={"Authorization": f"Bearer {token}"})
    process.terminate()
    process.wait()


def launch(ui: DagsterGraphQLClient, job: str, source: Path, **config: dict[str, Any]) -> str:
    """Launch a job that begins with the sources; returns the id of its run."""
    operations = {"raw_records": {"sources": [str(source)]}} | config
    run_config = {
        "ops": {name: {"config": fields} for name, fields in operations.items()},
        "resources": {"evergreen": {"config": {"profile": "quick"}}},
    }
    while True:
        try:
            return ui.submit_job_execution(job, run_config=run_config, tags={"dagster/partition": AS_OF})
        except DagsterGraphQLClientError as error:  # the definitions are loaded after the pages are up
            if "JobNotFoundError" not in str(error):
                raise
            time.sleep(1)


def outcome(ui: DagsterGraphQLClient, run_id: str) -> str:
    """How a run has ended, once it has."""
    while (status := ui.get_run_status(run_id).value) not in ("SUCCESS", "FAILURE", "CANCELED"):
        time.sleep(1)
    return str(status)


def said(home: Path, run_id: str) -> str:
    """All that a run has said so far."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        return "\n".join(entry.user_message for entry in instance.all_logs(run_id))


def kill_in_training(home: Path) -> None:
    """When training has left a checkpoint, kill its worker and all that is above it, up to the server of the code."""
    while not list(home.glob("checkpoints/*/CURRENT")):
        time.sleep(0.1)
    workers = (
        p for p in psutil.process_iter(["cmdline"]) if "assets.training.program.worker" in (p.info["cmdline"] or [])
    )
    worker = next(process for process in workers if process.environ().get("EVERGREEN_HOME") == str(home))
    for process in (worker, *takewhile(lambda above: "grpc" not in above.cmdline(), worker.parents())):
        process.kill()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:Using variable_values:DeprecationWarning")
def test_a_run_killed_in_training_and_launched_again_from_the_ui_ends_in_the_same_version(
    ui: DagsterGraphQLClient, home: Path, first: dict[str, Any], source: Path, tmp_path: Path
) -> None:
    here = tmp_path / "home"
    killed = launch(ui, "refresh", source, challenger={"checkpoint_seconds": 0.5})
    kill_in_training(here)
    again = launch(ui, "refresh", source, challenger={"checkpoint_seconds": 0.5})
    assert outcome(ui, again) == "SUCCESS"
    assert ui.get_run_status(killed).value != "SUCCESS"
    bundles = [next(folder.glob("lake/challenger/*/*/training.json")).parent for folder in (home, here)]
    assert json.loads((bundles[1] / "training.json").read_text())["resumed"] == "exact"
    assert len({hash_file(bundle / "model.safetensors") for bundle in bundles}) == 1
    status = json.loads(evergreen(here, "status", "--json").stdout)
    assert status["champion"]["version"] == first["champion"]["version"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:Using variable_values:DeprecationWarning")
def test_three_runs_that_are_launched_at_once_train_once(
    ui: DagsterGraphQLClient, source: Path, tmp_path: Path
) -> None:
    here = tmp_path / "home"
    runs = [launch(ui, "refresh", source) for _ in range(3)]
    assert [outcome(ui, run) for run in runs] == ["SUCCESS"] * 3
    assert sorted(re.findall("^(Trained|Reused) ", said(here, run), re.MULTILINE) for run in runs) == [
        *(["Reused"], ["Reused"], ["Trained"])
    ]
    assert_nothing_is_half_written(here)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:Using variable_values:DeprecationWarning")
def test_a_run_of_the_command_and_a_job_of_the_daemon_end_as_one_after_the_other(
    ui: DagsterGraphQLClient, source: Path, tmp_path: Path
) -> None:
    """Both wait to write the raw table, which is then let go."""
    here, other, waits = tmp_path / "home", tmp_path / "other", "waiting for another run to finish with raw_records"
    # Of a day, records have the same ids in every simulated world.
    newest = ("--from", AS_OF, "--to", AS_OF, "--rate", "300")
    assert evergreen(here, "simulate", "--output", str(other), *newest).returncode == 0
    command = [str(EVERGREEN), "run", "--source", str(source), "--history", "--as-of", AS_OF]
    with locked(here / "lake/.writing/raw_records.lock", "it"):
        run_id = launch(ui, "ingest", other)
        beside = subprocess.Popen(
            command, env=os.environ | {"EVERGREEN_HOME": str(here)}, stderr=subprocess.PIPE, text=True
        )
        assert beside.stderr is not None
        while waits not in (line := beside.stderr.readline()):
            assert line, "it ended before"
        while waits not in said(here, run_id):
            time.sleep(0.3)
    errors = beside.communicate()[1]
    assert (beside.returncode, outcome(ui, run_id)) == (0, "SUCCESS"), errors
    objects = pq.read_table(Lake(here / "lake").current("raw_records") / "objects.parquet").to_pylist()
    assert sorted(row["seq"] for row in objects) == list(range(len([*source.iterdir(), *other.iterdir()])))
    orders = [[(source, True), (other, False)], [(other, False), (source, True)]]
    assert Lake(here / "lake").version("raw_records") in [
        one_after_the_other(Lake(tmp_path / name), order) for name, order in zip("ab", orders, strict=True)
    ]
    after = run(here, str(other))
    assert after["records"]["landed"] == sum(row["landed"] for row in objects)
    assert_nothing_is_half_written(here)


def one_after_the_other(lake: Lake, order: list[tuple[Path, bool]]) -> str | None:
    """The version of the raw table that comes of reading one source after the other, as history or not."""
    for source, history in order:
        ingest([str(source)], lake, load_settings("quick").ingestion, load_domain(), AS_OF, history=history)
    return lake.version("raw_records")
