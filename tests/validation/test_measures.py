"""What is measured of a mart's files is what would be measured of all of them anew."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from assets.validation import measures
from assets.validation.measures import Measures, Memory
from assets.warehouse.marts import partition_file, seal

NULLS, ROWS = "count(*) filter (queue is null)", "count(*)"
TWICE = "count(*) filter (id in (select id from read_parquet($files) group by id having count(*) > 1))"


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
    fetch = measures._fetch

    def record(query: str, files: list[str]) -> list[tuple[Any, ...]]:
        asked.extend(Path(file).name for file in files)
        return fetch(query, files)

    monkeypatch.setattr(measures, "_fetch", record)
    return asked


GOOD, BAD = {"id": "1", "queue": "cards"}, {"id": "2", "queue": None}


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
    assert Measures(folder, "labels", Memory.of(tmp_path / "memory")).of_all(TWICE) == 2


def test_a_column_that_not_every_file_has_is_named_with_its_file(tmp_path: Path) -> None:
    folder = version(tmp_path / "1", a=[GOOD], b=[{**GOOD, "issue": "fees"}], c=[{"id": "3"}])
    columns = Measures(folder, "labels", Memory.of(tmp_path / "memory")).columns()
    assert columns == ["id", "issue in labels/b.parquet", "queue in labels/a.parquet"]


def test_rows_are_told_by_their_places(tmp_path: Path) -> None:
    folder = version(tmp_path / "1", a=[GOOD], b=[GOOD, BAD])
    places = Measures(folder, "labels", Memory.of(tmp_path / "memory")).places("queue is null", 5)
    assert places == ["row 2 of labels/b.parquet"]


def test_a_file_without_rows_adds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    pd.DataFrame([GOOD]).head(0).to_parquet(partition_file(folder, "labels", "empty"), index=False)
    seal(folder, None)
    assert figures(folder, tmp_path / "memory", ROWS) == [0]
    assert figures(version(tmp_path / "2", folder, a=[GOOD]), tmp_path / "memory", ROWS) == [1]
