"""Split by time: the shortest window of whole newest days that is large enough."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.exceptions import SnapshotError
from assets.features.split import split_by_time
from assets.settings import SnapshotSettings, load_settings

START = date(2020, 1, 1)
NEXT = START + timedelta(days=1)


def settings(test_rows: int, max_train_rows: int = 10**6, min_train_rows: int = 1) -> SnapshotSettings:
    rows = {"test_rows": test_rows, "min_train_rows": min_train_rows, "max_train_rows": max_train_rows}
    return load_settings("quick").snapshot.model_copy(update=rows)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 50)), min_size=2, max_size=40), st.data())
def test_split_is_the_shortest_window_that_holds_the_rows(gaps: list[tuple[int, int]], data: st.DataObject) -> None:
    days = [(START + timedelta(days=sum(gap for gap, _ in gaps[: i + 1])), rows) for i, (_, rows) in enumerate(gaps)]
    after_first = sum(rows for _, rows in days[1:])
    wanted, most = data.draw(st.integers(1, after_first)), data.draw(st.integers(1, 500))
    split = split_by_time(days, settings(wanted, most), "2030-01-01")
    within = [rows for day, rows in days if day >= split.test_from]
    assert sum(within) == split.test_rows >= wanted
    assert sum(within[1:]) < wanted
    before = [rows for day, rows in days if split.train_from <= day < split.test_from]
    assert split.train_rows == min(most, sum(rows for day, rows in days if day < split.test_from))
    assert sum(before) >= split.train_rows > sum(before[1:])


@pytest.mark.parametrize(
    ("days", "wanted", "there"),
    [
        ([], settings(1), ""),
        ([(START, 10)], settings(11), ", 10 from {0} on to test on and 0 before"),
        ([(START, 10)], settings(5), ", 10 from {0} on to test on and 0 before"),
        ([(START, 4), (NEXT, 10)], settings(5, min_train_rows=5), ", 10 from {1} on to test on and 4 before"),
    ],
)
def test_too_few_rows_are_one_clear_line(days: list[tuple[date, int]], wanted: SnapshotSettings, there: str) -> None:
    parts = there.format(START, NEXT)
    with pytest.raises(SnapshotError, match=rf"as of 2021-02-03{parts};.*snapshot\.test_rows") as error:
        split_by_time(days, wanted, "2021-02-03")
    assert "\n" not in str(error.value)
