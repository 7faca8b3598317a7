"""Ranks that watch each other, as processes without torch: the end of one is the end of all, unless it was in order."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANK = """
import os, sys
from assets.training.program.companions import together

rank = int(sys.argv[1])

def tell(port, token):
    if rank == 0:
        print(port, token, flush=True)
    return (port, token) if rank == 0 else (int(sys.argv[2]), int(sys.argv[3]))

def lost(other):
    print(f"lost {other}", flush=True)
    os._exit(1)

with together("127.0.0.1", rank, tell, lost):
    print("joined", flush=True)
    sys.stdin.readline()
"""


class Ranks:
    """Three ranks; each goes on when it is told to, and ends when it does not wait for anything else."""

    def __init__(self) -> None:
        first = self._start("0")
        self.port, self.token = first.stdout.readline().split()  # type: ignore[union-attr]
        self.all = [first, *(self._start(rank, self.port, self.token) for rank in ("1", "2"))]
        for rank in self.all:
            assert rank.stdout is not None
            assert rank.stdout.readline() == "joined\n"

    def _start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", RANK, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def leave(self, rank: int) -> tuple[str, int]:
        """Let a rank come to its end: what it says last, and its exit code."""
        said, _ = self.all[rank].communicate()
        return said, self.all[rank].returncode

    def last_words(self, rank: int) -> tuple[str, int]:
        """The same of a rank that ends by itself."""
        said = self.all[rank].stdout
        assert said is not None
        return said.read(), self.all[rank].wait()


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    started = Ranks()
    yield started
    for rank in started.all:
        rank.kill()
        rank.communicate()


@pytest.mark.parametrize(
    ("killed", "said"),
    [(0, {1: "lost 0\n", 2: "lost 0\n"}), (2, {0: "lost 2\n", 1: "lost 0\n"})],
)
def test_the_end_of_one_is_the_end_of_all(ranks: Ranks, killed: int, said: dict[int, str]) -> None:
    os.kill(ranks.all[killed].pid, signal.SIGKILL)
    assert {rank: ranks.last_words(rank) for rank in said} == {rank: (line, 1) for rank, line in said.items()}


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2)])
def test_who_leaves_in_order_is_not_lost(ranks: Ranks, order: tuple[int, ...]) -> None:
    assert [ranks.leave(rank) for rank in order] == [("", 0)] * 3


def test_a_stranger_changes_nothing(ranks: Ranks) -> None:
    for said in (b"", b"?", bytes(12)):
        with socket.create_connection(("127.0.0.1", int(ranks.port))) as stranger:
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(1) == b""
    assert [ranks.leave(rank) for rank in (1, 2, 0)] == [("", 0)] * 3
