"""Assigns rows to steps, ranks and micro-batches."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from assets.settings import TrainingSettings
from assets.training.task import Data

__all__ = ["Integers", "Sampler", "ahead", "count_steps", "token_batches", "validation_batches", "widths"]

Integers = NDArray[np.int64]

_POOL = 50
"""Batches over which rows are grouped by length: 50 leave about 2% padding and keep batches random."""


_AHEAD = 2
"""Steps whose batches are prepared before they are needed, so that a slow one delays no step."""

_WIDTH = 16

Number = TypeVar("Number")
Made = TypeVar("Made")


def ahead(make: Callable[[Number], Made], numbers: Iterable[Number]) -> Iterator[Made]:
    """The results of `make` for each number, in order; a thread prepares them before they are needed."""
    with ThreadPoolExecutor(1) as thread:
        made: deque[Future[Made]] = deque()
        for number in numbers:
            made.append(thread.submit(make, number))
            if len(made) > _AHEAD:
                yield made.popleft().result()
        while made:
            yield made.popleft().result()


def count_steps(rows: int, epochs: float, batch_rows: int) -> int:
    """Optimizer steps of a run: whole batches only, at least one."""
    return max(1, round(epochs * (rows // batch_rows)))


@dataclass(frozen=True)
class Sampler:
    """The rows of every step of a run, determined by the step's number alone.

    lengths: tokens of each row; batch_rows: rows of a step over all ranks, a multiple of world_size; batch_tokens:
    padded tokens of a micro-batch on one rank, as `widths` has them.

    The rows of a step are a function of the seed and the epoch, and the same for every number of ranks; their
    distribution over ranks and micro-batches also depends on the world size. All ranks have the same number of
    micro-batches in a step, because each of them is a collective operation.

    A step's loss does not depend on how it is cut if each micro-batch contributes as in `fit.take_step`, and gradients
    are summed over a rank's micro-batches and averaged over the ranks.
    """

    lengths: Integers
    epochs: float
    batch_rows: int
    batch_tokens: int
    seed: int
    world_size: int
    window: int | None = None
    _epoch: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, data: Data, settings: TrainingSettings, world_size: int) -> "Sampler":
        """The rows of every step of a run over some data, as indices into it."""
        return cls(
            lengths=data.lengths[: data.trained],
            epochs=settings.optimizer.epochs,
            batch_rows=settings.optimizer.batch_rows,
            batch_tokens=settings.hardware.batch_tokens,
            seed=settings.optimizer.seed,
            world_size=world_size,
            window=data.window,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return count_steps(len(self.lengths), self.epochs, self.batch_rows)

    def rows(self, step: int) -> Integers:
        """The rows of a step over all ranks, shortest first: of similar length, and none of them twice in an epoch."""
        epoch, index = divmod(step, len(self.lengths) // self.batch_rows)
        if epoch not in self._epoch:
            self._epoch.clear()
            self._epoch[epoch] = _shuffle(self.lengths, self.batch_rows, self.seed, epoch)
        batch: Integers = self._epoch[epoch][index]
        return batch

    def micro_batches(self, step: int, rank: int) -> list[Integers]:
        """A rank's rows of a step, micro-batch by micro-batch."""
        rows = self.rows(step)
        return token_batches(rows, self.lengths, self.batch_tokens, rank, self.world_size, self.window)


def token_batches(
    rows: Integers, lengths: Integers, batch_tokens: int, rank: int, world_size: int, window: int | None = None
) -> list[Integers]:
    """A rank's part of some rows, cut into batches of at most `batch_tokens` tokens, or of a single row.

    Padding counts, by `widths`.

    Every rank gets the same number of batches, with the same numbers of rows, of similar length: rows are distributed
    one by one in order of length, so that ranks never differ by more tokens than one row has. Their number must be a
    multiple of `world_size`.
    """
    dealt = rows[np.argsort(lengths[rows], kind="stable")].reshape(-1, world_size)
    return np.split(dealt[:, rank], _cuts(widths(lengths[dealt[:, -1]], window), batch_tokens))


def validation_batches(data: Data, batch_tokens: int, rank: int, world_size: int) -> list[Integers]:
    """A rank's part of the rows held back, in the same number of batches as on every other rank.

    Rows that cannot be shared evenly, fewer than there are ranks, are left out: the oldest.
    """
    held = np.arange(data.trained, len(data.lengths))
    shared = held[len(held) % world_size :]
    return token_batches(shared, data.lengths, batch_tokens, rank, world_size, data.window) if len(shared) else []


def widths(longest: Integers, window: int | None) -> Integers:
    """The padded widths of batches, by the tokens of their longest rows: multiples of 16 within a window."""
    return longest if window is None else np.minimum(-(-longest // _WIDTH) * _WIDTH, window)


def _shuffle(lengths: Integers, batch_rows: int, seed: int, epoch: int) -> Integers:
    """The rows of an epoch [steps, batch_rows]: rows of similar length together, the batches in random order.

    The rows that do not fill a batch are left out; which ones changes from epoch to epoch.
    """
    random = np.random.default_rng([seed, epoch])
    count = len(lengths) // batch_rows
    order = random.permutation(len(lengths))[: count * batch_rows].reshape(count, batch_rows)
    pools = [pool.ravel() for pool in np.array_split(order, -(-count // _POOL))]
    batches = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    return batches.reshape(count, batch_rows)[random.permutation(count)]


def _cuts(longest: Integers, batch_tokens: int) -> list[int]:
    """Where to cut rows of rising length: starting from the longest, so that the rest is short."""
    cuts = [len(longest)]
    while cuts[-1] > 0:
        cuts.append(max(0, cuts[-1] - max(1, batch_tokens // int(longest[cuts[-1] - 1]))))
    return cuts[-2:0:-1]
