"""The marts' files: a function of their rows, and shared with the version before where they did not change."""

from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from assets.exceptions import NotPublished
from assets.home import Home
from assets.settings import load_domain
from assets.warehouse import marts as marts_module
from assets.warehouse import staging as staging_module
from assets.warehouse.marts import content, mart, partition_file, seal, write_partitions
from assets.warehouse.project import building
from assets.warehouse.staging import stage


def write(folder: Path, rows: int, shuffled: bool = False, changed: str = "null::timestamp") -> Path:
    """A folder with the labels of as many records, ten of them known on a day."""
    folder.mkdir()
    with duckdb.connect() as connection:
        connection.execute(f"""
            create table labels as
            select i::varchar as record_id, timestamp '2024-01-01' + interval 1 day * (i // 10) as known_at,
                case when i = 3 then {changed} end as known_until from range({rows}) as t(i)
            order by {"md5(i::varchar)" if shuffled else "i"}
        """)
        write_partitions(connection, "labels", folder)
    return folder


def new_files(folder: Path, before: Path | None = None) -> list[str]:
    """The files of the labels that are not links of another version's."""
    files = sorted((folder / "labels").iterdir())
    return [file.name for file in files if not before or file.stat().st_ino not in inodes(before)]


def inodes(folder: Path) -> set[int]:
    return {file.stat().st_ino for file in (folder / "labels").iterdir()}


def test_a_partition_is_a_week_and_its_rows_are_in_order(tmp_path: Path) -> None:
    folder = write(tmp_path / "v", 150)
    assert new_files(folder) == [
        "2024-01-01.parquet",
        "2024-01-08.parquet",
        "2024-01-15.parquet",
    ]
    week = pq.read_table(folder / "labels" / "2024-01-08.parquet")
    assert week.column_names == ["record_id", "known_at", "known_until"]
    assert week["record_id"].to_pylist() == sorted(str(i) for i in range(70, 140))
    assert duckdb.sql(f"select count(*) from read_parquet('{mart(folder, 'labels')}')").fetchall() == [(150,)]


def test_weeks_that_follow_each_other_are_read_at_once_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions: list[str] = []
    write_rows = marts_module._write_rows

    def record(database: duckdb.DuckDBPyConnection, name: str, folder: Path, condition: str) -> None:
        conditions.append(condition)
        write_rows(database, name, folder, condition)

    whole, some = write(tmp_path / "whole", 500), tmp_path / "some"
    some.mkdir()
    monkeypatch.setattr(marts_module, "_write_rows", record)
    with duckdb.connect() as connection:
        connection.execute("create table labels as from read_parquet(?)", [mart(whole, "labels")])
        weeks = ["2024-02-05", "2024-01-15", "2024-01-08", "2024-01-29", "undated"]
        write_partitions(connection, "labels", some, weeks)
    assert conditions == [
        "known_at is null",
        "known_at >= '2024-01-08' and known_at < '2024-01-22'",
        "known_at >= '2024-01-29' and known_at < '2024-02-12'",
    ]
    assert new_files(some) == [f"{week}.parquet" for week in sorted(weeks[:-1])]
    assert all(file.read_bytes() == (whole / "labels" / file.name).read_bytes() for file in (some / "labels").iterdir())


def test_a_mart_without_rows_can_be_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "v", 0)
    assert duckdb.sql(f"select record_id from read_parquet('{mart(folder, 'labels')}')").fetchall() == []


def test_the_next_build_puts_marts_that_were_a_file_each_where_marts_are_read(home: Home, tmp_path: Path) -> None:
    old = home.lake.path("marts", "v1")
    old.mkdir(parents=True)
    pq.write_table(pq.read_table(write(tmp_path / "v", 150) / "labels"), old / "labels.parquet")
    for _ in "twice":
        with pytest.raises(NotPublished), building(home):
            pass  # it comes before the raw records are looked for
        assert duckdb.sql(f"select count(*) from read_parquet('{mart(old, 'labels')}')").fetchall() == [(150,)]
    assert [path.name for path in old.iterdir()] == ["labels"]


def test_the_same_rows_are_the_same_version_however_they_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marts_module, "_ROW_GROUP", 16)
    one, other = write(tmp_path / "one", 150), write(tmp_path / "other", 150, shuffled=True)
    assert content(one) == content(other)
    assert content(write(tmp_path / "more", 151)) != content(one)
    assert pq.read_metadata(one / "labels" / "2024-01-08.parquet").num_row_groups == 5


def test_what_did_not_change_is_the_file_of_the_version_before(tmp_path: Path) -> None:
    first = write(tmp_path / "first", 150)
    seal(first, None)
    second = write(tmp_path / "second", 160, changed="timestamp '2024-01-09'")
    assert seal(second, first) == content(second)
    assert new_files(second, first) == ["2024-01-01.parquet", "2024-01-15.parquet"]
    assert seal(write(tmp_path / "alone", 160, changed="timestamp '2024-01-09'"), None) == content(second)


def test_what_was_written_again_does_not_become_a_link_of_a_damaged_file(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", 150), write(tmp_path / "second", 150)
    version = seal(first, None)
    partition_file(first, "labels", "2024-01-08").write_bytes(b"damaged")
    assert seal(second, first) == version == content(second)
    assert new_files(second, first) == ["2024-01-08.parquet"]


def test_a_file_that_rots_is_written_again_when_its_turn_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, database = write(tmp_path / "first", 1000), tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute(f"create table labels as from '{mart(first, 'labels')}'")
    version = seal(first, None)
    rotten = partition_file(first, "labels", "2024-02-05")
    rotten.write_bytes(rotten.read_bytes()[:-9] + b"?" + rotten.read_bytes()[-8:])
    monkeypatch.setattr(staging_module, "_changed", lambda *_: {"labels": set()})

    def night(place: int) -> list[str]:
        folder = tmp_path / f"night-{place}"
        folder.mkdir()
        stage(load_domain(), database, folder, first, [None, (date(2024, 3, 1) + timedelta(weeks=place)).isoformat()])
        assert seal(folder, first) == version
        return new_files(folder, first)

    mended = [found for place in range(29) if (found := night(place))]
    assert mended == [["2024-02-05.parquet"]]
    assert "2024-02-05.parquet is not what was written" in caplog.text


def test_a_new_file_is_read_for_the_version(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", 150), write(tmp_path / "second", 160)
    seal(first, None)
    version = seal(second, first)
    assert content(second, first) == version
    pq.write_table(pq.read_table(first / "labels").slice(1), partition_file(second, "labels", "2024-01-15"))
    assert content(second, first) != version
