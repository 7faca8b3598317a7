"""Files of every format, whole and damaged."""

import datetime as dt
import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.exceptions import SourceError
from assets.ingestion.reading import read_object, read_rows
from assets.ingestion.records import COLUMNS, OUTCOMES, Record, Reject
from assets.settings import IngestionSettings

Complaint = Callable[..., list[str]]
WriteCsv = Callable[[Path, Iterable[list[str]]], Path]


def read(path: Path, settings: IngestionSettings) -> list[Record | Reject]:
    return [row for rows in read_object(path, path.name, settings) for row in rows]


def ids(rows: Iterable[Record | Reject]) -> list[str | None]:
    return [row.complaint_id if isinstance(row, Record) else row.reason for row in rows]


@pytest.fixture
def plain(tmp_path: Path, write_csv: WriteCsv, complaint: Complaint) -> Path:
    return write_csv(tmp_path / "plain.csv", (complaint(i, narrative=f'a "{i}"\n{i * 7919}') for i in range(5000)))


def test_gzip_of_several_members_reads_like_the_plain_file(plain: Path, settings: IngestionSettings) -> None:
    data, packed = plain.read_bytes(), plain.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(data[:1000]) + b"\0\0" + gzip.compress(data[1000:]))
    assert read(packed, settings) == read(plain, settings)
    assert len(read(plain, settings)) == 5000


def test_batches_are_bounded(plain: Path, settings: IngestionSettings) -> None:
    sizes = [len(rows) for rows in read_object(plain, plain.name, settings)]
    assert max(sizes) <= settings.batch_records
    assert sum(sizes) == 5000


def test_a_truncated_gzip_keeps_the_records_before_the_cut(plain: Path, settings: IngestionSettings) -> None:
    packed = plain.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes())[:-2000])
    *records, last = read(packed, settings)
    assert 3000 < len(records) < 5000
    assert records == read(plain, settings)[: len(records)]
    assert isinstance(last, Reject)
    assert (last.reason, last.of_object) == ("truncated-gzip", True)
    assert plain.read_text().splitlines()[last.line - 1].startswith(last.raw_text.split("\n")[0])


def test_a_gzip_that_lost_only_its_checksum_is_still_said_to_be_truncated(
    plain: Path, settings: IngestionSettings
) -> None:
    packed = plain.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes())[:-8])
    rows = read(packed, settings)
    assert len(rows) == 5001
    assert rows[-1] == Reject(10002, "truncated-gzip", "", of_object=True)


def test_a_corrupt_gzip_keeps_the_records_before_the_fault(plain: Path, settings: IngestionSettings) -> None:
    packed, data = plain.with_suffix(".csv.gz"), bytearray(gzip.compress(plain.read_bytes()))
    data[-8:-4] = b"\0\0\0\0"
    packed.write_bytes(data)
    rows = read(packed, settings)
    assert rows[:5000] == read(plain, settings)
    assert ids(rows[5000:]) == ["corrupt-gzip"]
    packed.write_bytes(b"this is no gzip")
    assert read(packed, settings) == [Reject(1, "corrupt-gzip", "", of_object=True)]


@pytest.mark.parametrize("name", ["empty.csv", "empty.csv.gz", "empty.parquet"])
def test_an_empty_object_is_one_reject(tmp_path: Path, settings: IngestionSettings, name: str) -> None:
    (tmp_path / name).touch()
    assert read(tmp_path / name, settings) == [Reject(1, "empty-object", "", of_object=True)]


def test_an_empty_gzip_is_an_empty_object(tmp_path: Path, settings: IngestionSettings) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b""))
    assert ids(read(tmp_path / "a.csv.gz", settings)) == ["empty-object"]


def table(complaints: list[list[str]]) -> pa.Table:
    return pa.table(dict(zip(COLUMNS, zip(*complaints, strict=True), strict=True)))


def test_parquet_gives_the_records_of_the_same_csv(
    tmp_path: Path, settings: IngestionSettings, complaint: Complaint, write_csv: WriteCsv
) -> None:
    complaints = [complaint(i, narrative="text" * (i % 2)) for i in range(30)]
    typed = table(complaints)
    for name, kind in (("Date received", pa.date32()), ("Date sent to company", pa.timestamp("us"))):
        days = [dt.date.fromisoformat(day) for day in typed[name].to_pylist()]
        typed = typed.set_column(typed.column_names.index(name), name, pa.array(days, pa.date32()).cast(kind))
    numbers = pa.array([int(number) for number in typed["Complaint ID"].to_pylist()])
    typed = typed.set_column(17, "Complaint ID", numbers).set_column(8, "State", typed["State"].dictionary_encode())
    pq.write_table(typed, tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet", settings)
    plain = read(write_csv(tmp_path / "a.csv", complaints), settings)
    assert [row[:18] for row in rows] == [row[:18] for row in plain]
    assert [row.line for row in rows] == list(range(1, 31))
    assert [row[19] for row in rows] == [row[19] for row in plain]


def test_parquet_rejects_single_rows_and_whole_objects(
    tmp_path: Path, settings: IngestionSettings, complaint: Complaint
) -> None:
    path, good = tmp_path / "a.parquet", table([complaint(1), complaint(2), complaint(3)])
    texts = pa.array([b"fine", b"caf\xe9", b"n\0l"])
    pq.write_table(good.set_column(5, "Consumer complaint narrative", texts), path)
    assert ids(read(path, settings)) == ["1", "not-utf-8", "nul-byte"]
    pq.write_table(good.drop_columns(["Company"]), path)
    assert ids(read(path, settings)) == ["missing-column: Company"]
    pq.write_table(good.drop_columns(["Consumer disputed?", "Timely response?"]), path)
    assert ids(read(path, settings)) == ["1", "2", "3"]
    pq.write_table(good.set_column(3, "Issue", pa.array([{"a": 1}] * 3)), path)
    assert ids(read(path, settings)) == ["unreadable-parquet"]
    path.write_bytes(b"this is no parquet")
    assert ids(read(path, settings)) == ["unreadable-parquet"]


def test_rows_to_score_keep_their_order_and_their_place(
    tmp_path: Path, settings: IngestionSettings, complaint: Complaint, write_csv: WriteCsv
) -> None:
    path = write_csv(tmp_path / "in.csv", [complaint(1), complaint(2)[:-1], complaint(3)])
    assert ids(read_rows(path, settings)) == ["1", "too-few-fields", "3"]
    names = [name for name in COLUMNS if name not in OUTCOMES]
    path.write_text(",".join(names) + "\n" + ",".join("x" * len(names)) + "\n")
    (row,) = read_rows(path, settings)
    assert isinstance(row, Record)
    assert (row.company, row.product) == ("x", None)


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_a_file_that_cannot_be_scored_is_one_clear_error(
    tmp_path: Path, settings: IngestionSettings, content: str | None
) -> None:
    path = tmp_path / "in.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SourceError, match=r"in\.csv: ") as caught:
        list(read_rows(path, settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "records"), [("complaints-2011-2022.csv.gz", 10_737), ("complaints-2023-2026.csv.gz", 130_268)]
)
def test_the_real_export_has_no_reject(cfpb: Path, settings: IngestionSettings, name: str, records: int) -> None:
    rows = read(cfpb / name, settings)
    assert len(rows) == records
    assert not any(isinstance(row, Reject) for row in rows)
