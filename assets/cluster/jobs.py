"""Jobs of a Ray cluster: one is submitted once, and found again by its id by whoever asks for it later."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Any

from assets.exceptions import ClusterError, SettingsError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

__all__ = ["Job", "RunJob", "answered", "entrypoint", "job_client", "require_ray", "run_job"]

_PACKAGES = ("ray", "dagster_ray")

_PATIENCE = 120
"""Seconds that the head may take to answer, which it does once its agents have started; Ray's own client waits for
ever."""


@dataclass(frozen=True)
class Job:
    """A program for a Ray cluster: the address of its dashboard, and an id by which it runs at most once at a time."""

    id: str
    cluster: str
    command: list[str]


RunJob = Callable[[Job], None]
"""Runs a job, shows its reports, and returns when it has succeeded; raises ClusterError when it fails."""


def require_ray(address: str) -> None:
    """Raises SettingsError when what a cluster needs is not installed here."""
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise SettingsError(f"ray: {address}, but {missing[0]} is not here: pip install 'evergreen[ray]'")


def job_client(address: str) -> "JobSubmissionClient":
    """A client of a cluster's jobs whose `submit_job` gives a job that runs already rather than a second one.

    Ray keeps the ids of jobs that have ended: a further try of one has its number after the id. Call it inside
    `answered`.
    """
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def submit_job(self, *, submission_id: str, **how: Any) -> str:
            while True:
                name, runs = _free(submission_id, {job.submission_id: job.status for job in self.list_jobs()})
                if runs:
                    return name
                try:
                    return str(super().submit_job(submission_id=name, **how))
                except RuntimeError:
                    if name not in {job.submission_id for job in self.list_jobs()}:
                        raise  # it was not submitted by somebody else in the meantime

        def _do_request(self, *request: Any, **how: Any) -> Any:
            return super()._do_request(*request, **{"timeout": _PATIENCE} | how)

    return Client(address)


def run_job(job: Job) -> None:
    """Run a job, or wait for it if it runs already. Raises ClusterError when it fails, or its cluster is gone."""
    with answered(job):
        client = job_client(job.cluster)
        name = client.submit_job(entrypoint=entrypoint(job), submission_id=job.id)
        while not (status := client.get_job_status(name)).is_terminal():
            time.sleep(1)
    if status.value != "SUCCEEDED":
        raise ClusterError(f"job {name} of {job.cluster} ended as {status.value}")


def entrypoint(job: Job) -> str:
    """A job's command for the shell that Ray starts it in."""
    return shlex.join(job.command)


@contextmanager
def answered(job: Job) -> Iterator[None]:
    """Turn the errors of a cluster that does not answer, and of a job that fails, into a ClusterError of one line."""
    import requests

    again = "once it is back, the same run, launched again, goes on from what there is"
    try:
        yield
    except (ConnectionError, requests.RequestException) as error:
        name = type(error).__name__
        raise ClusterError(f"the Ray cluster at {job.cluster} does not answer ({name}): {again}") from None
    except RuntimeError as error:
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ClusterError(f"job {job.id} of {job.cluster}: {why}") from None


def _free(job: str, states: dict[str | None, Any]) -> tuple[str, bool]:
    """The first name of a job that no ended job has, and whether it runs."""
    names = (job if number == 1 else f"{job}-{number}" for number in count(1))
    name = next(name for name in names if name not in states or not states[name].is_terminal())
    return name, name in states
