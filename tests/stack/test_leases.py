"""Leases, which take the place of locks on a disk."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from assets.database import Leases
from assets.exceptions import Superseded
from tests.stack.servers import OwnPostgres

HOLDING = """
import sys
from assets.database import Leases
leases = Leases(sys.argv[1], patience=float(sys.argv[2]))
with leases.hold("pool/training"):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""
BRIEF = 1.5
"""Seconds of patience, so that a test need not wait for a minute."""


@contextmanager
def holding(url: str, patience: float = 60) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDING, url, str(patience)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_lease_is_held_by_one_process_and_released_at_its_end(database: str) -> None:
    leases = Leases(database)
    with holding(database) as process:
        assert list(leases.held("pool/")) == ["pool/training"]
        assert leases.held("running/") == {}
        process.communicate("\n")
    assert process.returncode == 0
    assert leases.held("pool/") == {}
    with leases.hold("pool/training"):
        assert list(leases.held("pool/")) == ["pool/training"]


def test_who_waits_says_for_what(database: str, caplog: pytest.LogCaptureFixture) -> None:
    with holding(database, patience=BRIEF) as process:
        process.kill()
        process.wait()
        with Leases(database, patience=BRIEF).hold("pool/training", "training"):
            assert "waiting for another run to finish with training" in caplog.text


def test_a_lease_of_a_killed_process_is_given_up_and_can_be_taken(database: str) -> None:
    leases = Leases(database, patience=BRIEF)
    with holding(database, patience=BRIEF) as process:
        process.kill()
        process.wait()
    with leases.hold("pool/training"):
        assert leases.given_up("pool/") == []


def test_a_lease_that_is_renewed_is_not_taken(database: str) -> None:
    leases = Leases(database, patience=BRIEF)
    with holding(database, patience=BRIEF), psycopg.connect(database, autocommit=True) as connection:
        first = connection.execute("select renewed from evergreen.leases").fetchone()
        for _ in range(3):  # renewals, by which the lease would be given up without them
            while connection.execute("select renewed from evergreen.leases").fetchone() == first:
                connection.execute("select pg_sleep(0.05)")
            first = connection.execute("select renewed from evergreen.leases").fetchone()
        assert leases.given_up("pool/") == []


def test_who_lost_a_lease_is_told(database: str) -> None:
    with (
        pytest.raises(Superseded, match="another process has taken over"),
        Leases(database).hold("registry"),
        psycopg.connect(database) as connection,
    ):
        connection.execute("update evergreen.leases set holder = gen_random_uuid()")


def test_a_lease_outlives_a_restart_of_the_database(own_postgres: OwnPostgres) -> None:
    leases = Leases(own_postgres.url)
    with holding(own_postgres.url) as process:
        own_postgres.crash()
        own_postgres.start()
        assert list(leases.held("pool/")) == ["pool/training"]
        output, errors = process.communicate("\n")
    assert (process.returncode, output) == (0, "released\n"), errors
