"""Chunks that a cluster's workers answer: each once, whoever is lost on the way, and without Ray here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.cluster import chunks
from assets.cluster.chunks import ANSWERS, Needs, Worker, answer_chunks, answers, put_chunks
from assets.cluster.driver import FAILURE
from assets.cluster.exchange import Exchange
from assets.exceptions import ClusterError, ObjectsError, RegistryError


@pytest.fixture
def exchange(bucket: Any) -> Exchange:
    """With three chunks of two numbers each."""
    exchange = Exchange("s3://lake/home/scoring/one")
    put_chunks(exchange, range(3), table)
    return exchange


def table(number: int) -> pa.Table:
    return pa.table({"n": [2 * number, 2 * number + 1]})


class Doubling:
    """Answers each number with its double, and remembers what it was asked."""

    def __init__(self) -> None:
        self.made, self.asked = 0, list[int]()

    def make(self, exchange: Exchange) -> Callable[[pa.Table, Path], None]:
        self.made += 1
        return self.answer

    def answer(self, rows: pa.Table, folder: Path) -> None:
        numbers = rows["n"].to_pylist()
        self.asked += numbers
        pq.write_table(pa.table({"n": [2 * number for number in numbers]}), folder / "rows.parquet")


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> Doubling:
    """What workers do; two of them share the chunks, in this process, and end in another order."""

    def distribute(numbers: list[int], exchange: Exchange, make: Any, needs: Needs) -> Iterator[int]:
        workers = [Worker(exchange.address, make) for _ in range(2)]
        for number in reversed(numbers):
            yield from workers[number % 2]({"item": [number]})["item"]

    monkeypatch.setattr(chunks, "_distribute", distribute)
    return Doubling()


def found(exchange: Exchange) -> list[list[int]]:
    return [pq.read_table(folder / "rows.parquet")["n"].to_pylist() for folder in answers(exchange)]


def test_chunks_are_answered_once_and_come_back_in_order(exchange: Exchange, doubling: Doubling) -> None:
    said: list[str] = []
    answer_chunks(exchange, doubling.make, Needs(1), said.append)
    assert found(exchange) == [[0, 2], [4, 6], [8, 10]]
    assert doubling.made == 2
    assert said == ["1 of 3 chunks are done", "2 of 3 chunks are done", "3 of 3 chunks are done"]
    answer_chunks(exchange, doubling.make, Needs(1), said.append)
    assert len(doubling.asked) == 6
    assert len(said) == 3


def test_a_driver_that_is_launched_again_goes_on(exchange: Exchange, doubling: Doubling) -> None:
    Worker(exchange.address, doubling.make)({"item": [1]})
    said: list[str] = []
    answer_chunks(exchange, doubling.make, Needs(1), said.append)
    assert sorted(doubling.asked) == [0, 1, 2, 3, 4, 5]
    assert said == ["2 of 3 chunks are done", "3 of 3 chunks are done"]


def test_a_chunk_that_is_there_is_not_made_again(exchange: Exchange) -> None:
    made: list[int] = []
    put_chunks(exchange, range(4), lambda number: (made.append(number), table(number))[1])
    assert made == [3]


def test_half_an_answer_is_none(exchange: Exchange, doubling: Doubling, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Exchange, "write", die)
        Worker(exchange.address, doubling.make)({"item": [0]})
    assert exchange.folders(ANSWERS) == []
    answer_chunks(exchange, doubling.make, Needs(1), print)
    assert found(exchange) == [[0, 2], [4, 6], [8, 10]]


def test_a_worker_that_counted_as_lost_spoils_no_answer(
    exchange: Exchange, doubling: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had seen no answer before, and answers with other bits."""

    def other(rows: pa.Table, folder: Path) -> None:
        pq.write_table(pa.table({"n": [-1]}), folder / "rows.parquet")

    Worker(exchange.address, doubling.make)({"item": [0]})
    monkeypatch.setattr("assets.objects._WAITS", ())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Exchange, "has", lambda *_: False)
        patch.setattr(Exchange, "write", die)
        Worker(exchange.address, lambda _: other)({"item": [0]})
    assert found(exchange) == [[0, 2]]


def die(exchange: Exchange, name: str, text: str) -> None:
    """Before the answer is named."""
    if name.endswith(".json"):
        raise KeyboardInterrupt
    exchange._objects.write(name, text.encode())


def test_a_chunk_that_kills_its_workers_is_given_up(exchange: Exchange, doubling: Doubling) -> None:
    def killed(rows: pa.Table, folder: Path) -> None:
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            Worker(exchange.address, lambda _: killed)({"item": [1]})
    with pytest.raises(ClusterError):
        Worker(exchange.address, doubling.make)({"item": [1]})
    assert exchange.read(FAILURE) == "chunk 1: 4 workers were lost with it, as when memory runs out"
    answer_chunks(exchange, doubling.make, Needs(1), print)
    assert found(exchange) == [[0, 2], [4, 6], [8, 10]]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RegistryError("a worker gives other answers"), "a worker gives other answers"),
        (ValueError("Mr. Smith of 1 Main Street"), "chunk 2: ValueError, as the worker's log says"),
    ],
)
def test_why_a_chunk_has_no_answer_is_one_line_without_its_rows(
    exchange: Exchange, error: Exception, line: str
) -> None:
    def make(_: Exchange) -> Any:
        raise error

    with pytest.raises(type(error)):
        Worker(exchange.address, make)({"item": [2]})
    assert exchange.read(FAILURE) == line


def test_a_chunk_that_is_not_as_it_was_cut_is_not_answered(
    exchange: Exchange, doubling: Doubling, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.objects._WAITS", ())
    bucket.Object("home/scoring/one/inputs/000000000/rows.parquet").put(Body=b"other")
    with pytest.raises(ObjectsError, match=r"inputs/000000000/rows\.parquet: its content is not what was written"):
        Worker(exchange.address, doubling.make)({"item": [0]})
    assert doubling.asked == []


def test_a_worker_takes_as_many_threads_as_cores_and_no_gpu_unasked() -> None:
    cpu, gpu = chunks._variables(Needs(3)), chunks._variables(Needs(3, 1))
    assert cpu["OMP_NUM_THREADS"] == cpu["RAYON_NUM_THREADS"] == "3"
    assert cpu["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in gpu
