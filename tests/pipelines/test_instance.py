"""The home's Dagster instance: what its settings promise."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from assets.home import Home
from pipelines.instance import open_instance


# Dagster warns of the server that is away, which is what is tested.
@pytest.mark.filterwarnings("ignore:Error loading repository location:UserWarning")
def test_a_queued_run_waits_for_a_code_server_that_restarts(home: Home, tmp_path: Path) -> None:
    gone = {"socket": str(tmp_path / "code.sock"), "location_name": "evergreen"}
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": gone}]}))
    origin = GrpcServerCodeLocationOrigin(host="localhost", socket=gone["socket"], location_name="evergreen")
    job = RemoteRepositoryOrigin(origin, "__repository__").get_job_origin("observe")
    with open_instance(home) as instance:
        run = create_run_for_test(instance, "observe", status=dg.DagsterRunStatus.NOT_STARTED, remote_job_origin=job)
        instance.report_dagster_event(dg.DagsterEvent.job_enqueue(run), run_id=run.run_id)
        with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(tmp_path / "workspace.yaml")])) as workspace:
            list(QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(workspace))
        waiting = instance.get_run_by_id(run.run_id)
        tried = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_STARTING).records
    assert tried
    assert waiting is not None
    assert waiting.status is dg.DagsterRunStatus.QUEUED
