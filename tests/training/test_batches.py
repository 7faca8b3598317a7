"""Which rows make which step, on which rank, in which micro-batch."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from assets.training.program.batches import Sampler, count_steps, token_batches
from assets.training.tasks.classification.collate import collate
from assets.training.tasks.classification.objective import CrossEntropy
from assets.training.tasks.classification.preprocessing import Encoded


def lengths(rows: int, window: int) -> NDArray[np.int64]:
    """Tokens of texts as long as records are: log-normal, a fifth of them longer than 256, cut at the window."""
    drawn = np.random.default_rng(0).lognormal(mean=4.9, sigma=0.8, size=rows)
    return np.clip(drawn.astype(np.int64), 8, window)


def sampler(rows: int = 2003, window: int = 128, **changes: int) -> Sampler:
    given = {"batch_rows": 32, "batch_tokens": 1024, "seed": 0, "world_size": 1} | changes
    return Sampler(lengths=lengths(rows, window), epochs=1.0, window=window, **given)


def width(longest: int, window: int) -> int:
    """Tokens of a training batch whose longest row has so many."""
    return min(window, (longest + 15) // 16 * 16)


def epoch(of: Sampler, number: int = 0) -> list[NDArray[np.int64]]:
    steps = len(of.lengths) // of.batch_rows
    return [of.rows(step) for step in range(number * steps, (number + 1) * steps)]


def test_an_epoch_has_every_row_at_most_once_and_leaves_out_less_than_a_batch() -> None:
    for number in (0, 1):
        seen = np.concatenate(epoch(sampler(), number))
        assert len(set(seen.tolist())) == len(seen) == 2003 // 32 * 32


def test_steps_hold_rows_of_like_length_in_random_order() -> None:
    found = sampler()
    means = np.array([found.lengths[rows].mean() for rows in epoch(found)])
    spreads = np.array([np.ptp(found.lengths[rows]) for rows in epoch(found)])
    assert np.median(spreads) < 10
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_the_rows_of_a_step_are_a_function_of_seed_and_epoch() -> None:
    def order(number: int = 0, **changes: int) -> list[int]:
        return np.concatenate(epoch(sampler(**changes), number)).tolist()

    assert order() == order() == order(world_size=4, batch_tokens=64)
    assert order() != order(seed=1)
    assert order() != order(number=1)


def test_a_sampler_made_at_any_step_goes_on_as_the_first_one_would_have() -> None:
    first = sampler(world_size=2)
    passed = [first.micro_batches(step, rank=1) for step in range(150)]
    for step in (149, 0, 61, 62, 63):
        found = sampler(world_size=2).micro_batches(step, rank=1)
        assert [rows.tolist() for rows in found] == [rows.tolist() for rows in passed[step]]


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_a_step_is_dealt_out_whole_and_cut_alike_on_every_rank(world_size: int) -> None:
    found = sampler(world_size=world_size, batch_rows=64)
    for step in range(found.steps):
        ranks = [found.micro_batches(step, rank) for rank in range(world_size)]
        dealt = np.concatenate([rows for rank in ranks for rows in rank])
        assert sorted(dealt.tolist()) == sorted(found.rows(step).tolist())
        assert len({tuple(len(rows) for rows in rank) for rank in ranks}) == 1


def test_no_micro_batch_is_above_the_token_budget() -> None:
    found = sampler(batch_rows=64, batch_tokens=1000)
    batches = [rows for step in range(found.steps) for rows in found.micro_batches(step, 0)]
    padded = np.array([width(found.lengths[rows].max(), 128) * len(rows) for rows in batches])
    assert padded.max() <= 1000
    assert np.median(padded) > 700


def test_a_row_above_the_token_budget_is_alone() -> None:
    batches = token_batches(np.arange(5), np.array([9, 2, 8, 2, 3]), batch_tokens=6, rank=0, world_size=1)
    assert [rows.tolist() for rows in batches] == [[1], [3, 4], [2], [0]]


@pytest.mark.parametrize(
    ("window", "world_size", "batch_rows"), [(128, 1, 32), (512, 1, 32), (128, 8, 256), (512, 8, 256), (512, 2, 1024)]
)
def test_an_epoch_is_less_than_a_tenth_padding(window: int, world_size: int, batch_rows: int) -> None:
    found = sampler(rows=6000, window=window, batch_rows=batch_rows, world_size=world_size, batch_tokens=8192)
    useful = padded = 0
    for step, rank in product(range(found.steps), range(world_size)):
        for rows in found.micro_batches(step, rank):
            useful += found.lengths[rows].sum()
            padded += width(found.lengths[rows].max(), window) * len(rows)
    assert useful / padded > 0.9


def test_ranks_get_like_work() -> None:
    found = sampler(rows=6000, window=512, batch_rows=512, world_size=4)
    for step in range(found.steps):
        lengths = found.lengths[found.rows(step)]
        tokens = [found.lengths[np.concatenate(found.micro_batches(step, rank))].sum() for rank in range(4)]
        assert max(tokens) - min(tokens) <= np.ptp(lengths)


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(320, 1.0, 10), (330, 2.0, 20), (320, 0.25, 2), (320, 0.01, 1)])
def test_steps_are_whole_batches(rows: int, epochs: float, steps: int) -> None:
    assert count_steps(rows, epochs, 32) == steps


@pytest.mark.parametrize(("world_size", "batch_tokens"), [(1, 10_000), (1, 300), (2, 10_000), (2, 200), (4, 1)])
def test_gradients_do_not_depend_on_how_a_step_is_cut(world_size: int, batch_tokens: int) -> None:
    found = sampler(rows=64, world_size=world_size, batch_tokens=batch_tokens)
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    inputs, labels = torch.randn(64, 5), torch.randint(3, (64,))
    weights = torch.tensor([0.2, 1.0, 3.0])
    whole = torch.from_numpy(found.rows(0))
    torch.nn.functional.cross_entropy(model(inputs[whole]), labels[whole], weight=weights).backward()
    expected = model.weight.grad.clone()
    model.zero_grad()
    objective, rank_weight = CrossEntropy(weights.numpy()), float(weights[labels[whole]].sum()) / world_size
    for rank in range(world_size):
        for rows in map(torch.from_numpy, found.micro_batches(0, rank)):
            loss = objective(model(inputs[rows]), labels[rows]) / rank_weight
            (loss / world_size).backward()  # what averaging over the ranks does
    torch.testing.assert_close(model.weight.grad, expected)


def test_collate_pads_tokens_and_joins_words() -> None:
    rows = Encoded(
        tokens=np.array([1, 2, 3, 4, 5, 6], np.int32),
        lengths=np.array([3, 1, 2]),
        buckets=np.array([7, 8, 9], np.int32),
        weights=np.array([0.1, 0.2, 0.3], np.float32),
        words=np.array([2, 0, 1]),
        features=np.arange(6, dtype=np.float32).reshape(3, 2),
        priors=np.zeros((3, 1, 9), np.float32),
    )
    batch = collate(rows, np.array([2, 1, 0]), pad=99)
    assert batch["input_ids"].tolist() == [[5, 6, 99], [4, 99, 99], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert batch["buckets"].tolist() == [9, 7, 8]
    assert batch["bucket_weights"].tolist() == pytest.approx([0.3, 0.1, 0.2])
    assert batch["bucket_offsets"].tolist() == [0, 1, 1]
    assert batch["features"].tolist() == [[4, 5], [2, 3], [0, 1]]
    assert collate(rows, np.array([2, 1, 0]), pad=99, window=128)["input_ids"].shape == (3, 16)
    within = collate(rows, np.array([0]), pad=99, window=5)
    assert within["input_ids"].tolist() == [[1, 2, 3, 99, 99]]
    assert within["attention_mask"].tolist() == [[1, 1, 1, 0, 0]]
