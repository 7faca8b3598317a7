"""The exporter: figures in Prometheus' format for whoever has the token, from a home as it is."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from typer.testing import CliRunner

from assets.home import Home
from pipelines import cli, front
from pipelines.guard import Guard
from pipelines.instance import open_instance
from pipelines.metrics import Metrics, application
from pipelines.runs import ORIGIN

EVERGREEN = Path(sys.executable).with_name("evergreen")
DAY = "2024-07-01"


@pytest.fixture
def metrics(home: Home) -> Iterator[Metrics]:
    home.claim()
    with Metrics(home) as metrics:
        yield metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Values by name and labels, as Prometheus reads them."""
    families = text_string_to_metric_families(metrics.answer().body.decode())
    found = [sample for family in families for sample in family.samples]
    return {" ".join([one.name, *(one.labels[label] for label in sorted(one.labels))]): one.value for one in found}


def run(instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    origin, tags = ORIGIN.get_job_origin(job), {"dagster/partition": DAY}
    return instance.add_run(dg.DagsterRun(job_name=job, status=status, tags=tags, remote_job_origin=origin))


def test_runs_are_counted_as_they_are_and_the_last_one_is_named(home: Home, metrics: Metrics) -> None:
    assert "evergreen_runs refresh success" in samples(metrics)
    assert not home.dagster.exists(), "a home that is only looked at gets no databases"
    with open_instance(home) as instance:
        run(instance, "observe", dg.DagsterRunStatus.SUCCESS)
        failed = run(instance, "observe", dg.DagsterRunStatus.STARTED)
        assert samples(metrics)["evergreen_runs_running"] == 1
        instance.report_run_failed(failed)
        run(instance, "retrain", dg.DagsterRunStatus.QUEUED)
        run(instance, "somebody's", dg.DagsterRunStatus.SUCCESS)
    found = samples(metrics)
    assert (found["evergreen_runs observe success"], found["evergreen_runs observe failure"]) == (1, 1)
    assert (found["evergreen_runs_queued"], found["evergreen_runs_running"]) == (1, 0)
    assert found[f"evergreen_last_run_info {DAY} observe {failed.run_id} failure"] == 1
    assert found["evergreen_run_end_timestamp_seconds observe failure"] > 1.7e9
    assert not [name for name in found if "somebody" in name]


def test_a_scrape_needs_the_token(metrics: Metrics) -> None:
    client = TestClient(application(metrics, "secret"))
    for given in (None, "Bearer ", "Bearer wrong", "Bearer sécret".encode()):
        answer = client.get("/metrics", headers={"Authorization": given} if given else {})  # type: ignore[dict-item]
        assert (answer.status_code, "evergreen_" in answer.text) == (401, False), given
    answer = client.get("/metrics", headers={"Authorization": "Bearer secret"})
    assert (answer.status_code, answer.headers["content-type"][:26]) == (200, "text/plain; version=1.0.0;")
    assert client.post("/metrics", headers={"Authorization": "Bearer secret"}).status_code == 405
    assert client.get("/", headers={"Authorization": "Bearer secret"}).status_code == 404


def test_the_front_door_has_them_behind_its_guard(home: Home) -> None:
    home.claim()
    with front.application(home) as app:
        client = TestClient(Guard(app, 3001, "token", "evergreen"), "http://127.0.0.1:3001")
        assert client.get("/metrics").status_code == 401
        assert "evergreen_info" in client.get("/metrics", headers={"Authorization": "Bearer token"}).text


def test_the_command_serves_until_it_is_stopped(home: Home) -> None:
    command = [EVERGREEN, "metrics", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        address = served.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", address)
        file = home.root / "metrics-token"
        assert oct(file.stat().st_mode & 0o777) == "0o600"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address)
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {file.read_text()}"})
        with urllib.request.urlopen(request) as answer:
            assert b"evergreen_disk_free_bytes" in answer.read()
        served.send_signal(signal.SIGTERM)
        _, said = served.communicate(timeout=60)
    assert served.returncode == 143
    assert file.read_text() not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--token-file", "none"), "--token-file: none is no file with a token"),
        (("--host", "192.0.2.1"), "port 9464 on 192.0.2.1 cannot be used"),
    ],
)
def test_what_cannot_be_served_is_said(home: Home, arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(cli.app, ["metrics", *arguments])
    assert done.exit_code == 1
    assert words in str(done.exception)
    assert os.environ["EVERGREEN_HOME"] == str(home.root)
