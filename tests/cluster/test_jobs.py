"""What a job of a cluster is called, who waits for whose, and each refusal in one line."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from assets.cluster.driver import FAILURE, driven, require_code, run_driver
from assets.cluster.exchange import Exchange
from assets.cluster.jobs import Job
from assets.exceptions import ClusterError

HEAD = "http://head.example:8265"


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
    from assets.cluster.jobs import job_client

    head.jobs = dict(jobs)
    assert job_client(head.address).submit_job(entrypoint="true", submission_id="t") == given
    assert head.submitted == submitted


def test_of_two_that_submit_at_once_one_adopts_the_other_s(head: Head) -> None:
    from assets.cluster.jobs import job_client

    head.taken_first = "t"
    assert job_client(head.address).submit_job(entrypoint="true", submission_id="t") == "t"
    assert head.submitted == []


def test_a_head_that_is_gone_is_one_line(head: Head) -> None:
    from assets.cluster.jobs import run_job

    head.shutdown()
    head.server_close()
    with pytest.raises(
        ClusterError, match=f"^the Ray cluster at {head.address} does not answer .*goes on from"
    ) as error:
        run_job(Job("t", head.address, ["true"]))
    assert "\n" not in str(error.value)


def job_of(address: str) -> Job:
    found: list[Job] = []
    run_driver("a.driver", "t", Exchange(address), HEAD, found.append)
    return found[0]


def test_a_job_is_named_by_its_work_and_its_home() -> None:
    one, again, other = map(job_of, ("s3://team/home/t", "s3://team/home/t", "s3://team/other/t"))
    assert one == again
    assert one.id != other.id
    assert one.id.startswith("t-")
    assert one.command == ["python", "-m", "a.driver", "s3://team/home/t"]


def test_why_a_driver_failed_is_the_run_s_line(bucket: Any) -> None:
    exchange, said = Exchange("s3://lake/home/t"), list[str]()
    exchange.write(FAILURE, "of the try before")

    def run(job: Job) -> None:
        assert driven(exchange, said.append, lambda: require_code("one", "other")) == 1
        raise ClusterError("job t ended as FAILED")

    with pytest.raises(ClusterError, match=r"^the cluster has another version of Evergreen than the machine") as error:
        run_driver("a.driver", "t", exchange, HEAD, run)
    assert said == [str(error.value)]


def test_a_driver_that_succeeds_leaves_no_line(bucket: Any) -> None:
    exchange = Exchange("s3://lake/home/t")
    exchange.write(FAILURE, "of the try before")
    assert driven(exchange, print, lambda: require_code("one", "one")) == 0
    assert exchange.read(FAILURE) is None


def test_a_job_that_fails_without_a_line_is_told_as_it_is(bucket: Any) -> None:
    def run(job: Job) -> None:
        raise ClusterError("job t ended as STOPPED")

    with pytest.raises(ClusterError, match=r"^job t ended as STOPPED$"):
        run_driver("a.driver", "t", Exchange("s3://lake/home/t"), HEAD, run)
