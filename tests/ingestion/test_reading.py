"""Files of every format, whole and damaged."""

import datetime as dt
import gzip
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.exceptions import SourceError
from assets.hashing import hash_file
from assets.ingestion.layout import may_lack
from assets.ingestion.reading import contents, read_rows
from assets.ingestion.records import Record, Reject
from assets.settings import IngestionSettings, load_domain
from complaints.simulation.world import COLUMNS

DOMAIN = load_domain()

Complaint = Callable[..., list[str]]
WriteCsv = Callable[[Path, Iterable[list[str]]], Path]


def read(path: Path, settings: IngestionSettings) -> list[Record | Reject]:
    with contents(path, path.name, "", settings, DOMAIN, whole=True) as found:
        return [row for content in found for rows in content.rows() for row in rows.in_order()]


def ids(rows: Iterable[Record | Reject]) -> list[str | None]:
    return [row.fields["complaint_id"] if isinstance(row, Record) else row.reason for row in rows]


@pytest.fixture
def plain(tmp_path: Path, write_csv: WriteCsv, complaint: Complaint) -> Path:
    return write_csv(tmp_path / "plain.csv", (complaint(i, narrative=f'a "{i}"\n{i * 7919}') for i in range(5000)))


def test_gzip_of_several_members_reads_like_the_plain_file(plain: Path, settings: IngestionSettings) -> None:
    data, packed = plain.read_bytes(), plain.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(data[:1000]) + b"\0\0" + gzip.compress(data[1000:]))
    assert read(packed, settings) == read(plain, settings)
    assert len(read(plain, settings)) == 5000


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
    assert [row[0] for row in rows] == [row[0] for row in plain]
    assert [row.line for row in rows] == list(range(1, 31))
    assert [row[2] for row in rows] == [row[2] for row in plain]


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
    assert ids(read_rows(path, settings, DOMAIN)) == ["1", "too-few-fields", "3"]
    fields = DOMAIN.source.fields
    names = [f.names[0] for name, f in fields.items() if name not in may_lack(DOMAIN.source, outcomes=True)]
    path.write_text(",".join(names) + "\n" + ",".join("x" * len(names)) + "\n")
    (row,) = read_rows(path, settings, DOMAIN)
    assert isinstance(row, Record)
    assert (row.fields["company"], row.fields["product"]) == ("x", None)


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_a_file_that_cannot_be_scored_is_one_clear_error(
    tmp_path: Path, settings: IngestionSettings, content: str | None
) -> None:
    path = tmp_path / "in.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SourceError, match=r"in\.csv: ") as caught:
        list(read_rows(path, settings, DOMAIN))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "records"), [("complaints-2011-2022.csv.gz", 10_737), ("complaints-2023-2026.csv.gz", 130_268)]
)
def test_the_real_export_has_no_reject(cfpb: Path, settings: IngestionSettings, name: str, records: int) -> None:
    rows = read(cfpb / name, settings)
    assert len(rows) == records
    assert not any(isinstance(row, Reject) for row in rows)


def pack(data: bytes, name: str) -> bytes:
    """Data as a file of this name holds it."""
    return {".gz": gzip.compress, ".zst": lambda text: pa.compress(text, codec="zstd", asbytes=True)}.get(
        Path(name).suffix, bytes
    )(data)


@pytest.mark.parametrize("name", ["A.CSV", "a.Csv.Gz", "a.csv.zst", "a.ZST"])
def test_endings_of_any_case_are_read(plain: Path, settings: IngestionSettings, name: str) -> None:
    packed = plain.with_name(name)
    packed.write_bytes(pack(plain.read_bytes(), name.lower()))
    assert read(packed, settings) == read(plain, settings)


def test_zstd_of_several_frames_is_read_up_to_its_damage(plain: Path, settings: IngestionSettings) -> None:
    data, packed = plain.read_bytes(), plain.with_suffix(".zst")
    frames = pack(data[:1000], "a.zst") + pack(data[1000:], "a.zst")
    packed.write_bytes(frames)
    assert read(packed, settings) == read(plain, settings)
    packed.write_bytes(frames[:-9])
    *records, last = read(packed, settings)
    assert records == read(plain, settings)[: len(records)]
    assert (last[1], last[3]) == ("truncated-zstd", True)
    packed.write_bytes(frames + b"this is no frame")
    assert ids(read(packed, settings))[-1] == "corrupt-zstd"


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_each_csv_in_a_zip_is_an_object_of_its_own(plain: Path, settings: IngestionSettings) -> None:
    data = plain.read_bytes()
    path = zipped(plain.with_name("a.ZIP"), {"x/../../b.CSV": data, "c.csv": data[:-1], "__MACOSX/._c.csv": b"x"})
    with contents(path, "in/a.ZIP", "", settings, DOMAIN, whole=False) as found:
        assert [content.key for content in found] == ["in/a.ZIP/x/../../b.CSV", "in/a.ZIP/c.csv"]
        assert found[0].sha256 == hash_file(plain)
        for content in found:
            assert [row for rows in content.rows() for row in rows.in_order()] == read(plain, settings)


def test_a_zip_that_cannot_be_read_is_one_reject(plain: Path, settings: IngestionSettings) -> None:
    path = plain.with_name("a.zip")
    assert read(zipped(path, {"README.md": b"hello"}), settings) == [Reject(1, "no-data-in-zip", "", of_object=True)]
    assert ids(read(zipped(path, {"a.csv": b"x"}, zipfile.ZIP_LZMA), settings)) == ["unreadable-member"]
    whole = zipped(path, {"a.csv": plain.read_bytes()}).read_bytes()
    path.write_bytes(whole[:-200])
    assert ids(read(path, settings)) == ["corrupt-zip"]
    path.write_bytes(whole[:2000] + b"\0" * 100 + whole[2100:])
    assert ids(read(path, settings))[-1] == "corrupt-member"
    zipped(path, dict.fromkeys((f"{n}{'x' * 200}.txt" for n in range(5000)), b""))
    assert ids(read(path, settings)) == ["too-many-members"]


@pytest.mark.parametrize("name", ["bomb.csv.gz", "bomb.csv.zst", "bomb.zip"])
def test_what_expands_too_far_is_refused_from_there_on(
    tmp_path: Path, settings: IngestionSettings, complaint: Complaint, write_csv: WriteCsv, name: str
) -> None:
    data = write_csv(tmp_path / "a.csv", [complaint(1)]).read_bytes() + b"\n" * 3_000_000
    path = tmp_path / name
    if name.endswith(".zip"):
        zipped(path, {"a.csv": data, "b.csv": data})
        expected = ["1", "expands-too-far", "expands-too-far"]
    else:
        path.write_bytes(pack(data, name))
        expected = ["1", "expands-too-far"]
    assert ids(read(path, settings)) == expected


def test_a_parquet_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, settings: IngestionSettings, complaint: Complaint
) -> None:
    def bomb(rows: int, text: str) -> Path:
        columns = {
            name: pa.array([value]).take(pa.repeat(0, rows)) for name, value in zip(COLUMNS, complaint(1), strict=True)
        }
        columns["Consumer complaint narrative"] = pa.DictionaryArray.from_arrays(pa.repeat(0, rows), [text])
        pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd")
        return tmp_path / "a.parquet"

    before = pa.total_allocated_bytes()
    rows = read(bomb(5000, "x" * 900_000), settings)
    assert rows[-1] == Reject(rows[-1].line, "expands-too-far", "", of_object=True)
    assert len(rows) < 1000
    assert read(bomb(3, "x" * 1_100_000), settings) == [Reject(row, "too-long", "") for row in (1, 2, 3)]
    assert ids(read(bomb(300_000, "x"), settings))[-1] == "expands-too-far"
    assert pa.total_allocated_bytes() - before < 100 << 20


def test_parquet_of_further_columns_is_read_without_them(
    tmp_path: Path, settings: IngestionSettings, complaint: Complaint
) -> None:
    good = table([complaint(1), complaint(2)]).rename_columns([name.upper() for name in COLUMNS])
    pq.write_table(good.append_column("nested", pa.array([[1], [2]])), tmp_path / "a.parquet")
    assert ids(read(tmp_path / "a.parquet", settings)) == ["1", "2"]
