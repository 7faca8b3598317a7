"""A Ray cluster of two nodes on this machine."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest

from assets.cluster.jobs import Job, answered, job_client, run_job
from assets.exceptions import ClusterError

__all__ = ["BUCKET", "Nodes", "eventually", "keys", "running_nodes"]

BUCKET = "team"
"""What the nodes and this process exchange is there."""

PATIENCE = 600
"""Seconds for what takes a quiet machine a tenth of that."""


def eventually(happened: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        time.sleep(0.1)
    return found


def keys(prefix: str) -> list[str]:
    """Those in the bucket."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def free_port() -> int:
    """Outside the ports of Ray's workers, from 10,002 to 19,999."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", 20_000 + secrets.randbelow(12_000)))
            return int(probe.getsockname()[1])


class Nodes:
    """Two nodes of this machine; the head runs the drivers, too."""

    def __init__(self, cores: int = 1) -> None:
        """`cores`: of each node."""
        self.port, self.cores = free_port(), cores
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": self.port}
        gcs = {"gcs_server_port": free_port()}
        self.cluster = Cluster(initialize_head=True, head_node_args=head | self._here() | gcs)
        self.second = self.cluster.add_node(**self._here())
        self.await_jobs()

    def _here(self) -> dict[str, Any]:
        """A node of this machine; its agent may not want the port of one that is about to end."""
        return {"num_cpus": self.cores, "node_ip_address": "127.0.0.1", "dashboard_agent_listen_port": free_port()}

    def kill_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)

    def drain_second(self) -> None:
        """Give notice that the second node will be taken away, as an autoscaler does."""
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "preempted"]
        which = ["--node-id", self.second.node_id, "--deadline-remaining-seconds", str(PATIENCE)]
        subprocess.run(["ray", "drain-node", "--address", self.cluster.address, *which, *reason], check=True)

    def kill_head(self) -> None:
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)

    def await_jobs(self) -> None:
        """The dashboard answers before it can take a job."""
        probe = Job(f"probe-{secrets.token_hex(4)}", self.address, ["true"])

        def taken() -> bool:
            with suppress(ClusterError):
                run_job(probe)
                return True
            return False

        eventually(taken, "the first job")

    def said(self, before: Collection[str | None] = ()) -> str:
        """What the last job has said so far that was not there before."""
        with answered(Job("", self.address, [])):
            client = job_client(self.address)
            jobs = [job for job in client.list_jobs() if job.submission_id not in before]
            last = max(jobs, key=lambda job: job.start_time or 0, default=None)
            return str(client.get_job_logs(last.submission_id)) if last else ""

    def states(self) -> dict[str | None, str]:
        with answered(Job("", self.address, [])):
            return {job.submission_id: job.status.value for job in job_client(self.address).list_jobs()}


@contextmanager
def running_nodes(cores: int = 1) -> Iterator[Nodes]:
    """Start two nodes, which inherit this process's variables, and stop them at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else 15: behind all that a shared machine does
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # 127.0.0.1 stays what it is
        started = Nodes(cores)
        try:
            yield started
        finally:
            started.cluster.shutdown()
