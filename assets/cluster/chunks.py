"""Rows that the workers of a cluster answer in numbered chunks, by Ray Data.

<exchange>/inputs/<number>/...     a chunk's rows, cut before they are distributed
<exchange>/answers/<number>/...    what a worker has made of them, in a folder of its try
<exchange>/tries/<number>/<try>    that a worker has begun with a chunk, since the driver began
<exchange>/failure.txt             a line that says why a chunk has no answer

Ray hands out numbers; everything else goes through S3, and what is there is not made again.
"""

import secrets
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from assets.cluster.driver import FAILURE
from assets.cluster.exchange import Exchange, files_under
from assets.exceptions import ClusterError, EvergreenError, ObjectsError, describe

__all__ = ["ANSWERS", "Answer", "Needs", "Worker", "answer_chunks", "answers", "put_chunks"]

INPUTS, ANSWERS, _TRIES = "inputs", "answers", "tries"
_ROWS = "rows.parquet"
_MOST_TRIES = 4
"""How often a chunk is tried whose worker's process or node is lost each time; Ray would never stop."""

Chunk = TypeVar("Chunk")
Answer = Callable[[pa.Table, Path], None]
"""Writes what it makes of a chunk's rows as files into an empty folder."""


@dataclass(frozen=True)
class Needs:
    """What each worker takes of a cluster: processor cores, as many as its threads, and GPUs."""

    cpus: int
    gpus: int = 0


def put_chunks(exchange: Exchange, chunks: Iterable[Chunk], rows: Callable[[Chunk], pa.Table]) -> None:
    """Put the rows of every chunk that is not there yet, one after the other."""
    there = set(exchange.folders(INPUTS))
    with TemporaryDirectory(prefix="evergreen-") as folder:
        file = Path(folder) / _ROWS
        for number, chunk in enumerate(chunks):
            if (name := _name(number)) not in there:
                pq.write_table(rows(chunk), file, compression="zstd")
                exchange.put(f"{INPUTS}/{name}", {_ROWS: file})


def answer_chunks(
    exchange: Exchange, make: Callable[[Exchange], Answer], needs: Needs, say: Callable[[str], None]
) -> None:
    """Have the workers of the cluster that this process is connected to answer every chunk without an answer.

    make: a function of a module, which each worker calls once. Raises ClusterError when a chunk cannot be answered.
    """
    exchange.remove(FAILURE)
    exchange.clear(_TRIES)
    chunks, done = exchange.folders(INPUTS), set(exchange.folders(ANSWERS))
    if missing := [int(name) for name in chunks if name not in done]:
        for count, _ in enumerate(_distribute(missing, exchange, make, needs), start=len(done) + 1):
            say(f"{count} of {len(chunks)} chunks are done")


def answers(exchange: Exchange) -> Iterator[Path]:
    """A folder with the answer to each chunk, in order; it is gone when the next one comes."""
    for name in exchange.folders(ANSWERS):
        with TemporaryDirectory(prefix="evergreen-") as folder:
            exchange.get(f"{ANSWERS}/{name}", Path(folder))
            yield next(Path(folder).iterdir())


class Worker:
    """Answers the chunks that a process of the cluster is given."""

    def __init__(self, address: str, make: Callable[[Exchange], Answer]) -> None:
        self._exchange, self._make = Exchange(address), make

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answer chunks by their numbers in the column `item`."""
        for number in batch["item"]:
            with self._told(int(number)):
                self._answer_chunk(_name(int(number)))
        return batch

    def _answer_chunk(self, name: str) -> None:
        if self._exchange.has(f"{ANSWERS}/{name}"):  # from a worker that was lost after it
            return
        attempt = self._begin(name)
        with TemporaryDirectory(prefix="evergreen-") as folder:
            rows, own = Path(folder) / "rows", Path(folder) / "answer"
            self._exchange.get(f"{INPUTS}/{name}", rows)
            # One that counts as lost may go on: of what two have written one whole answer has to be named.
            answer = own / attempt
            answer.mkdir(parents=True)
            self._answer(pq.read_table(rows / _ROWS), answer)
            self._exchange.put(f"{ANSWERS}/{name}", files_under(own))

    def _begin(self, name: str) -> str:
        """A name for this try."""
        if (tries := len(self._exchange.texts(f"{_TRIES}/{name}"))) >= _MOST_TRIES:
            raise ClusterError(f"chunk {int(name)}: {tries} workers were lost with it, as when memory runs out")
        attempt = secrets.token_hex(4)
        self._exchange.write(f"{_TRIES}/{name}/{attempt}", "")
        return attempt

    @cached_property
    def _answer(self) -> Answer:
        """Not made with the worker, so that what is wrong with it fails once and is told like all else."""
        return self._make(self._exchange)

    @contextmanager
    def _told(self, number: int) -> Iterator[None]:
        """An error of a library may quote a row, so only its class is told; all of it is in the worker's log."""
        try:
            yield
        except Exception as error:
            ours = isinstance(error, EvergreenError)
            why = str(error) if ours else f"chunk {number}: {type(error).__name__}, as the worker's log says"
            with suppress(ObjectsError):
                self._exchange.write(FAILURE, why)
            raise


def _distribute(
    numbers: list[int], exchange: Exchange, make: Callable[[Exchange], Answer], needs: Needs
) -> Iterator[int]:
    """Have workers answer chunks; gives the number of each when it is done. Raises ClusterError."""
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # A chunk takes minutes: none waits for a busy worker while there could be another.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=len(numbers), max_tasks_in_flight_per_actor=1)
    answered = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
        Worker,
        fn_constructor_args=(exchange.address, make),
        batch_size=1,
        compute=pool,
        num_cpus=needs.cpus,
        num_gpus=needs.gpus or None,
        runtime_env={"env_vars": _variables(needs)},
    )
    try:
        for batch in answered.iter_batches(batch_size=None, prefetch_batches=0):
            yield from map(int, batch["item"])
    except (RayError, ExecutionTimeoutError) as error:
        traceback.print_exc()  # in the job's log
        raise ClusterError(exchange.read(FAILURE) or f"the workers gave up: {describe(error)}") from None


def _variables(needs: Needs) -> dict[str, str]:
    """As many threads as cores, and no GPU that was not asked for, which Ray would not hide."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(needs.cpus))
    hidden = {} if needs.gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return threads | hidden | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "true"}


def _name(number: int) -> str:
    return f"{number:09}"
