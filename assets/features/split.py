"""Splits rows into train and test by time, at the start of a day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from assets.exceptions import SnapshotError
from assets.settings import SnapshotSettings

__all__ = ["Split", "split_by_time"]


@dataclass(frozen=True)
class Split:
    """Test rows are those from `test_from` on; train rows are the newest `train_rows` before, from `train_from` on."""

    train_from: date
    train_rows: int
    test_from: date
    test_rows: int


def split_by_time(days: Sequence[tuple[date, int]], settings: SnapshotSettings, as_of: str) -> Split:
    """Split days, given with their numbers of usable rows, oldest first.

    Test is the shortest window of whole newest days that holds `settings.test_rows` rows, train the newest
    `settings.max_train_rows` rows before it. Raises SnapshotError when there are too few rows of either.
    """
    assert all(earlier < later for (earlier, _), (later, _) in pairwise(days))
    first_test, test_rows = _newest(days, settings.test_rows)
    first_train, before = _newest(days[:first_test], settings.max_train_rows)
    train_rows = min(before, settings.max_train_rows)
    if test_rows < settings.test_rows or train_rows < settings.min_train_rows:
        total = sum(rows for _, rows in days)
        parts = f", {test_rows} from {days[first_test][0]} on to test on and {before} before" if days else ""
        raise SnapshotError(
            f"{total} records have a text and a label known as of {as_of}{parts}; a training set needs "
            f"snapshot.test_rows = {settings.test_rows} to test on and, from earlier days, snapshot.min_train_rows "
            f"= {settings.min_train_rows} to train on: ingest more, choose a later as-of, lower the settings or, if "
            "old history has landed as if it were new, run with --history"
        )
    return Split(days[first_train][0], train_rows, days[first_test][0], test_rows)


def _newest(days: Sequence[tuple[date, int]], wanted: int) -> tuple[int, int]:
    """The index of the last day from which on there are `wanted` rows, or 0, and the number of rows from there on."""
    rows = 0
    for place in range(len(days) - 1, -1, -1):
        rows += days[place][1]
        if rows >= wanted:
            return place, rows
    return 0, rows
