"""What is measured of a mart's files is what would be measured of all of them anew."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from assets.validation.measures import Measures, Memory
from assets.warehouse.marts import partition_file, seal

NULLS, ROWS = "count(*) filter (label is null)", "count(*)"


def version(folder: Path, before: Path | None = None, **partitions: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    for partition, rows in partitions.items():
        pd.DataFrame(rows).to_parquet(partition_file(folder, "labels", partition), index=False)
    seal(folder, before)
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are asked for, in order."""
    asked: list[str] = []
    fetch = Measures._fetch

    def record(self: Measures, query: str, files: list[str]) -> list[tuple[Any, ...]]:
        asked.extend(Path(file).name for file in files)
        return fetch(self, query, files)

    monkeypatch.setattr(Measures, "_fetch", record)
    return asked


GOOD, BAD = {"id": "1", "label": "cards"}, {"id": "2", "label": None}


def figures(folder: Path, memory: Path, *aggregates: str) -> list[int]:
    opened = Memory.of(memory)
    found = Measures(folder, "labels", opened).by_file(aggregates)
    opened.save()
    return [sum(found[aggregate]) for aggregate in aggregates]


def test_only_files_with_another_content_are_read_again(tmp_path: Path, read: list[str]) -> None:
    first = version(tmp_path / "1", a=[GOOD], b=[GOOD, BAD], c=[GOOD])
    assert figures(first, tmp_path / "memory", NULLS, ROWS) == [1, 4]
    second = version(tmp_path / "2", first, a=[GOOD], b=[GOOD, BAD], c=[BAD, BAD], d=[GOOD, GOOD])
    read.clear()
    assert figures(second, tmp_path / "memory", NULLS, ROWS) == [3, 7]
    assert read == ["c.parquet", "d.parquet"]
    assert figures(second, tmp_path / "memory", ROWS, NULLS) == [7, 3]
    assert read == ["c.parquet", "d.parquet"]
    (tmp_path / "memory").unlink()
    assert figures(second, tmp_path / "memory", NULLS, ROWS) == [3, 7]


def test_another_question_is_asked_of_all_files(tmp_path: Path, read: list[str]) -> None:
    folder = version(tmp_path / "1", a=[GOOD], b=[BAD])
    assert figures(folder, tmp_path / "memory", ROWS) == [2]
    read.clear()
    assert figures(folder, tmp_path / "memory", NULLS) == [1]
    assert read == ["a.parquet", "b.parquet"]


def test_what_is_not_asked_for_any_more_is_forgotten(tmp_path: Path) -> None:
    first = version(tmp_path / "1", a=[GOOD], b=[BAD])
    figures(first, tmp_path / "memory", ROWS)
    figures(version(tmp_path / "2", first, b=[BAD]), tmp_path / "memory", ROWS)
    assert [list(of.values()) for of in json.loads((tmp_path / "memory").read_text()).values()] == [[[1]]]


def test_rows_of_two_files_may_be_the_same(tmp_path: Path) -> None:
    first = version(tmp_path / "1", a=[GOOD])
    folder = version(tmp_path / "2", first, a=[GOOD], b=[BAD, GOOD])
    assert repeated(folder, tmp_path / "memory", "id") == 2


def repeated(folder: Path, memory: Path, *columns: str) -> int:
    opened = Memory.of(memory)
    found = Measures(folder, "labels", opened).repeated(columns)
    opened.save()
    return found


def known(id_: str, *days: str) -> list[dict[str, Any]]:
    return [{"id": id_, "known_at": pd.Timestamp(day) if day else pd.NaT} for day in days]


def test_files_of_different_times_are_searched_for_repeated_rows_once(tmp_path: Path, read: list[str]) -> None:
    a, b = known("1", "2024-01-01", "2024-01-03", "2024-01-03"), known("1", "2024-01-08", "2024-01-14")
    first = version(tmp_path / "1", a=a, b=b)
    assert repeated(first, tmp_path / "memory", "id", "known_at") == 2
    second = version(tmp_path / "2", first, a=a, b=b, c=known("1", "2024-01-15", "2024-01-15", "2024-01-15"))
    read.clear()
    assert repeated(second, tmp_path / "memory", "id", "known_at") == 5
    assert read == ["c.parquet"]


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (["2024-01-01", "2024-01-08"], ["2024-01-08", "2024-01-09"], 2),  # the last of one is the first of another
        (["2024-01-01", "2024-01-31"], ["2024-01-08", "2024-01-31"], 2),  # one within another
        (["2024-01-01", "2024-01-31"], ["2024-01-08", "2024-01-09"], 0),
        (["2024-01-01", ""], ["2024-01-08", ""], 2),
        (["2024-01-01", "2024-01-02"], ["2024-01-01", "2024-01-02"], 4),  # the same content
    ],
)
def test_files_that_share_a_time_are_compared(tmp_path: Path, a: list[str], b: list[str], found: int) -> None:
    folder = version(tmp_path / "1", a=known("1", *a), b=known("1", *b), c=known("2", "2024-03-01"))
    assert repeated(folder, tmp_path / "memory", "id", "known_at") == found


def test_a_column_that_not_every_file_has_is_named_with_its_file(tmp_path: Path) -> None:
    folder = version(tmp_path / "1", a=[GOOD], b=[{**GOOD, "issue": "fees"}], c=[{"id": "3"}])
    columns = Measures(folder, "labels", Memory.of(tmp_path / "memory")).columns()
    assert columns == ["id", "issue in labels/b.parquet", "label in labels/a.parquet"]


def test_rows_are_told_by_their_places(tmp_path: Path) -> None:
    folder = version(tmp_path / "1", a=[GOOD], b=[GOOD, BAD])
    places = Measures(folder, "labels", Memory.of(tmp_path / "memory")).places("label is null", 5)
    assert places == ["row 2 of labels/b.parquet"]


def test_a_file_without_rows_adds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    pd.DataFrame([GOOD]).head(0).to_parquet(partition_file(folder, "labels", "empty"), index=False)
    seal(folder, None)
    assert figures(folder, tmp_path / "memory", ROWS) == [0]
    assert figures(version(tmp_path / "2", folder, a=[GOOD]), tmp_path / "memory", ROWS) == [1]
