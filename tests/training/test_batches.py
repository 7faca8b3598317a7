"""Which rows make which step."""

from itertools import islice

import numpy as np
import pytest

from assets.training.batches import collate, count_steps, epoch_batches, training_batches
from assets.training.preprocessing import Encoded

LENGTHS = np.random.default_rng(0).integers(5, 128, size=2003)


def test_an_epoch_has_every_row_at_most_once_and_leaves_out_less_than_a_batch() -> None:
    seen = np.concatenate(epoch_batches(LENGTHS, 32, seed=0, epoch=0))
    assert len(set(seen.tolist())) == len(seen) == 2003 // 32 * 32


def test_batches_hold_rows_of_like_length_in_random_order() -> None:
    batches = [LENGTHS[batch] for batch in epoch_batches(LENGTHS, 32, seed=0, epoch=0)]
    padded = sum(lengths.max() * 32 for lengths in batches)
    assert sum(lengths.sum() for lengths in batches) / padded > 0.95
    means = np.array([lengths.mean() for lengths in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(LENGTHS, 32, seed, epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


def test_a_run_goes_through_the_epochs_one_after_the_other() -> None:
    a_pass = 2003 // 32
    batches = list(training_batches(LENGTHS, 32, steps=a_pass + 3, seed=5))
    second = epoch_batches(LENGTHS, 32, seed=5, epoch=1)
    assert [b.tolist() for b in islice(batches, a_pass, None)] == [b.tolist() for b in second[:3]]


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(320, 1.0, 10), (330, 2.0, 20), (320, 0.25, 2), (320, 0.01, 1)])
def test_steps_are_whole_batches(rows: int, epochs: float, steps: int) -> None:
    assert count_steps(rows, epochs, 32) == steps


def test_collate_pads_tokens_and_joins_words() -> None:
    rows = Encoded(
        tokens=[np.array([1, 2, 3], np.int32), np.array([4], np.int32), np.array([5, 6], np.int32)],
        buckets=[np.array([7, 8], np.int32), np.array([], np.int32), np.array([9], np.int32)],
        weights=[np.array([0.1, 0.2], np.float32), np.array([], np.float32), np.array([0.3], np.float32)],
        features=np.arange(6, dtype=np.float32).reshape(3, 2),
        priors=np.zeros((3, 1, 9), np.float32),
    )
    batch = collate(rows, np.array([2, 1, 0]), pad=99)
    assert batch["input_ids"].tolist() == [[5, 6, 99], [4, 99, 99], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert batch["buckets"].tolist() == [9, 7, 8]
    assert batch["bucket_offsets"].tolist() == [0, 1, 1]
    assert batch["features"].tolist() == [[4, 5], [2, 3], [0, 1]]
