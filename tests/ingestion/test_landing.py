"""Each object is read once, published in one move, and every row of it is accounted for."""

import dataclasses
import errno
import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pyarrow.parquet as pq
import pytest

from assets.exceptions import AuditError, EvergreenError, SourceError
from assets.hashing import hash_tree
from assets.ingestion import landing as landing_module
from assets.ingestion.landing import Imbalance, Landing, find_imbalances, find_object, ingest, withdraw
from assets.ingestion.reading import READER, Content, contents
from assets.ingestion.records import readable, record_schema
from assets.ingestion.windows import UNFINISHED
from assets.lake import Lake
from assets.settings import Domain, IngestionSettings, load_domain

AS_OF = "2023-02-01"
DOMAIN = load_domain()
DAY = r"(?P<year>\d{4})-(?P<month>\d\d)(-(?P<day>\d\d))?"

Complaint = Callable[..., list[str]]
WriteCsv = Callable[[Path, Iterable[list[str]]], Path]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def folder(tmp_path: Path, write_csv: WriteCsv, complaint: Complaint) -> Path:
    write_csv(tmp_path / "in" / "a.csv", [complaint(1), complaint(2)[:-1], complaint(3, narrative="two\nlines")])
    write_csv(tmp_path / "in" / "b.csv", [complaint(4), complaint(1)])
    return tmp_path / "in"


def rows(landing: Landing, table: str) -> list[dict[str, Any]]:
    files = str(landing.path / table / "*.parquet")
    return duckdb.sql(f"from read_parquet('{files}') order by object_id, line").df().to_dict("records")


def test_every_row_lies_in_one_of_two_files_with_its_object_and_line(
    folder: Path, lake: Lake, settings: IngestionSettings
) -> None:
    landing = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert (landing.landed, landing.records, landing.rejects, len(landing.new)) == (5, 4, 1, 2)
    assert landing.reasons == {"too-few-fields": 1}
    a, b = landing.objects
    assert (a.key, a.seq, a.landed, a.error) == ("a.csv", 0, 3, None)
    assert (b.key, b.seq, b.landed) == ("b.csv", 1, 2)
    records = rows(landing, "records")
    assert list(records[0]) == ["object_id", *record_schema(DOMAIN).names]
    found = {(row["object_id"], row["line"], row["complaint_id"]) for row in records}
    assert found == {
        *((a.object_id, 2, "1"), (a.object_id, 4, "3")),
        *((b.object_id, 2, "4"), (b.object_id, 3, "1")),
    }
    (reject,) = rows(landing, "rejects")
    assert (reject["object_id"], reject["line"], reject["reason"]) == (a.object_id, 3, "too-few-fields")
    assert reject["raw_text"] == (folder / "a.csv").read_text().splitlines()[2]
    assert find_imbalances(landing.path) == []


def test_reading_again_changes_nothing(folder: Path, lake: Lake, settings: IngestionSettings) -> None:
    first = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    before = {path: path.stat().st_mtime_ns for path in lake.root.rglob("*.parquet")}
    again = ingest([str(folder), str(folder / "a.csv"), str(folder)], lake, settings, DOMAIN, AS_OF)
    assert (again.version, again.new, again.landed) == (first.version, (), first.landed)
    assert before == {path: path.stat().st_mtime_ns for path in lake.root.rglob("*.parquet")}


def test_only_what_is_new_is_read_and_the_rest_is_linked(
    folder: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    first = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    write_csv(folder / "a.csv", [complaint(9)])
    write_csv(folder / "0.csv", [complaint(8)])
    second = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert [read.key for read in second.objects] == ["a.csv", "b.csv", "0.csv", "a.csv"]
    assert [read.seq for read in second.objects] == [0, 1, 2, 3]
    assert [read.key for read in second.new] == ["0.csv", "a.csv"]
    assert second.objects[:2] == first.objects
    part = Path("records") / f"{first.objects[0].object_id}.parquet"
    assert (first.path / part).stat().st_ino == (second.path / part).stat().st_ino
    assert find_imbalances(second.path) == []
    assert second.landed == 7


def known_from(landing: Landing) -> dict[str, str | None]:
    return {read.key: read.known_from for read in landing.objects}


def test_the_first_landing_is_history_and_what_lands_later_is_known_from_then(
    folder: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    write_csv(folder / "c.csv", [complaint(5)])
    later = ingest([str(folder)], lake, settings, DOMAIN, "2023-02-02")
    assert known_from(later) == {"a.csv": None, "b.csv": None, "c.csv": "2023-02-02"}
    write_csv(folder / "d.csv", [complaint(6)])
    old = ingest([str(folder)], lake, settings, DOMAIN, "2023-02-03", history=True)
    assert known_from(old) == dict.fromkeys(["a.csv", "b.csv", "c.csv", "d.csv"])
    assert [read.key for read in old.objects] == ["a.csv", "b.csv", "c.csv", "d.csv"]
    assert ingest([str(folder)], lake, settings, DOMAIN, "2023-02-04") == dataclasses.replace(old, new=())


def test_a_declared_day_of_publication_decides_over_the_landing(
    tmp_path: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    settings = settings.model_copy(update={"published_in_key": DAY})
    names = ["in/2023-01-15.csv", "in/2023-02.csv", "in/2023-13.csv", "in/2023-01-00.csv", "in/other.csv"]
    for number, name in enumerate([*names, "in/2023-02-02.csv"]):
        write_csv(tmp_path / name, [complaint(number)])
    first = ingest([str(tmp_path / "in")], lake, settings, DOMAIN, AS_OF)
    said = {"2023-01-15.csv": "2023-01-15", **dict.fromkeys(["2023-13.csv", "2023-01-00.csv", "other.csv"], AS_OF)}
    assert known_from(first) == said
    later = ingest([str(tmp_path / "in")], lake, settings, DOMAIN, "2023-03-01")
    assert known_from(later) == said | {"2023-02.csv": "2023-02-28", "2023-02-02.csv": "2023-02-02"}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_arrival_changes_nothing(
    tmp_path: Path, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint, order: tuple[int, ...]
) -> None:
    settings = settings.model_copy(update={"published_in_key": DAY})
    names, lake = ["10/2023-01-14.csv", "9/2023-01-15.csv", "10/2023-01-15.csv"], Lake(tmp_path / "lake")
    for number in order:
        write_csv(tmp_path / "in" / names[number], [complaint(number)])
        piecemeal = ingest([str(tmp_path / "in")], lake, settings, DOMAIN, AS_OF)
    whole = ingest([str(tmp_path / "in")], Lake(tmp_path / "whole"), settings, DOMAIN, AS_OF)
    assert [read.key for read in whole.objects] == names
    assert (piecemeal.version, piecemeal.objects) == (whole.version, whole.objects)


def test_a_withdrawn_object_counts_no_more_and_does_not_come_back(
    folder: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    before = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    kept = hash_tree(before.path)
    withdraw(lake, find_object(lake, "a.csv").object_id, "not ours")
    after = ingest([str(folder)], lake, settings, DOMAIN, "2023-02-02")
    assert (after.landed, after.records, after.rejects, after.reasons, after.new) == (2, 2, 0, {}, ())
    assert [(read.key, read.landed, read.withdrawn) for read in after.objects] == [
        *(("a.csv", 3, "not ours"), ("b.csv", 2, None)),
    ]
    assert {row["complaint_id"] for row in rows(after, "records")} == {"4", "1"}
    assert find_imbalances(after.path) == []
    withdraw(lake, after.objects[0].object_id, "another reason")
    assert ingest([str(folder)], lake, settings, DOMAIN, "2023-02-02") == after
    write_csv(folder / "a.csv", [complaint(9)])
    assert [read.key for read in ingest([str(folder)], lake, settings, DOMAIN, "2023-02-03").new] == ["a.csv"]
    assert hash_tree(before.path) == kept


def test_an_object_is_found_by_its_key_or_id_and_nothing_is_guessed(
    folder: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    a, b = ingest([str(folder)], lake, settings, DOMAIN, AS_OF).objects
    assert find_object(lake, "b.csv") == find_object(lake, b.object_id) == b
    write_csv(folder / "a.csv", [complaint(9)])
    newer = ingest([str(folder)], lake, settings, DOMAIN, AS_OF).objects[-1]
    with pytest.raises(EvergreenError, match=f"2 objects are called a.csv.*{a.object_id}.*{newer.object_id}"):
        find_object(lake, "a.csv")
    with pytest.raises(EvergreenError, match=rf"no object is called b\.; .*: {b.object_id} \(b.csv, landed {AS_OF}\)$"):
        find_object(lake, "b.")


def test_an_object_that_cannot_be_read_is_itself_reported(
    folder: Path, lake: Lake, settings: IngestionSettings
) -> None:
    (folder / "c.csv").touch()
    (folder / "d.csv.gz").write_bytes(gzip.compress((folder / "a.csv").read_bytes())[:-9])
    landing = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert [read.error for read in landing.objects] == [None, None, "empty-object", "truncated-gzip"]
    assert landing.reasons["truncated-gzip"] == landing.reasons["empty-object"] == 1
    assert find_imbalances(landing.path) == []


def test_the_count_is_independent_of_the_reader(folder: Path, lake: Lake, settings: IngestionSettings) -> None:
    landing = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    part = landing.path / "records" / f"{landing.objects[0].object_id}.parquet"
    table = pq.read_table(part)
    part.unlink()
    pq.write_table(table.slice(1), part)
    assert find_imbalances(landing.path) == [Imbalance("a.csv", landed=3, records=1, rejects=1)]
    pq.write_table(table.slice(0, 0), part.with_name("stray.parquet"))
    part.unlink()
    (landing.path / "rejects" / part.name).unlink()
    pq.write_table(pq.read_table(landing.path / "rejects").slice(0, 0), landing.path / "rejects" / part.name)
    assert find_imbalances(landing.path) == [Imbalance("a.csv", landed=3, records=0, rejects=0)]


def test_rows_that_were_lost_are_not_published(
    folder: Path, lake: Lake, settings: IngestionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = landing_module.Parts._write
    monkeypatch.setattr(landing_module.Parts, "_write", lambda self, to, table: write(self, to, table[1:]))
    with pytest.raises(AuditError, match=r"a\.csv.*nothing was published"):
        ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert lake.version("raw_records") is None


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(errno.ENOSPC, "no space"), EvergreenError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_in_the_middle_leaves_the_last_publication(
    folder: Path,
    lake: Lake,
    settings: IngestionSettings,
    write_csv: WriteCsv,
    complaint: Complaint,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    raised: type[BaseException],
) -> None:
    first = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    before = hash_tree(lake.root)
    write_csv(folder / "c.csv", [complaint(7)])

    def fail(*_: object) -> NoReturn:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(landing_module.Parts, "_write", fail)
        with pytest.raises(raised) as caught:
            ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert raised is KeyboardInterrupt or "the disk is full" in str(caught.value)
    assert hash_tree(lake.root) == before
    assert lake.version("raw_records") == first.version
    assert ingest([str(folder)], lake, settings, DOMAIN, AS_OF).landed == 6


def test_memory_does_not_grow_with_the_object(tmp_path: Path, complaint: Complaint, write_csv: WriteCsv) -> None:
    size, row = 100_000_000, complaint(1, narrative='some "text" and\nmore of it, ' * 20)
    path = write_csv(tmp_path / "big.csv", [row])
    record = path.read_bytes().split(b"\n", 1)[1]
    with path.open("ab") as file:
        for _ in range(size // (len(record) * 1000)):
            file.write(record * 1000)
    program = """
import resource, sys
from pathlib import Path
from assets.ingestion.landing import ingest
from assets.lake import Lake
from assets.settings import load_domain, load_settings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
settings = load_settings("quick").ingestion
landing = ingest([sys.argv[1]], Lake(Path(sys.argv[2])), settings, load_domain(), "2023-02-01")
print(landing.records, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, path, tmp_path / "lake"],
        capture_output=True,
        check=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    records, megabytes = map(int, done.stdout.split())
    assert records > 100_000
    assert megabytes < 300


def test_what_an_earlier_reader_refused_is_read_again_in_its_place(
    folder: Path, lake: Lake, settings: IngestionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(landing_module, "READER", READER - 1)
        first = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    again = ingest([str(folder)], lake, settings, DOMAIN, "2023-03-01")
    assert [read.key for read in again.new] == ["a.csv"]
    assert [(read.key, read.reader, read.landed_on) for read in again.objects] == [
        ("a.csv", READER, AS_OF),
        ("b.csv", READER - 1, AS_OF),
    ]
    assert again.objects[0].object_id != first.objects[0].object_id
    assert {path.stem for path in again.path.glob("records/*")} == {read.object_id for read in again.objects}
    assert (again.landed, again.rejects, find_imbalances(again.path)) == (first.landed, first.rejects, [])
    assert ingest([str(folder)], lake, settings, DOMAIN, "2023-03-02").version == again.version


def test_what_was_refused_is_read_again_when_the_domain_declares_another_source(
    folder: Path, lake: Lake, settings: IngestionSettings, complaint: Complaint, write_csv: WriteCsv
) -> None:
    renamed = write_csv(folder / "c.csv", [complaint(7)])
    renamed.write_text(renamed.read_text().replace("Company,", "Firm,", 1))
    first = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert [read.error for read in first.objects] == [None, None, "missing-column: Company"]
    declared = DOMAIN.model_dump(mode="json")
    declared["source"]["fields"]["company"]["names"] = ["Company", "Firm"]
    again = ingest([str(folder)], lake, settings, Domain.model_validate(declared), AS_OF)
    assert [read.key for read in again.new] == ["a.csv", "c.csv"]
    assert (again.landed, again.records, find_imbalances(again.path)) == (6, 5, [])


def test_sources_of_another_header_publish_nothing_and_say_what_is_missing(
    folder: Path, lake: Lake, settings: IngestionSettings, complaint: Complaint, write_csv: WriteCsv
) -> None:
    for path in folder.iterdir():
        path.write_text("id;when\n1;2\n")
    with pytest.raises(SourceError) as caught:
        ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert str(caught.value) == (
        "a.csv: there is no Date received, Product, Sub-product, Issue, Sub-issue, Consumer complaint narrative, "
        "Company, State, ZIP code, Tags, Submitted via, Date sent to company, Complaint ID; found id;when "
        "(and 1 more like it); configs/domain.yaml declares a source's fields; docs/your-own-data.md explains how"
    )
    assert lake.version("raw_records") is None
    write_csv(folder / "c.csv", [complaint(7)])
    landing = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert [read.error for read in landing.objects] == [*["missing-column: Date received"] * 2, None]
    (folder / "d.csv").write_text("x" * 60 + "," + ",".join(map(str, range(20))) + "\n")
    with pytest.raises(SourceError, match=r"^d\.csv: .*; found x{40}, 0, 1, 2, 3, 4, 5, 6, 7, 8, \.\.\.; configs"):
        ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert lake.version("raw_records") == landing.version


def complaints(landing: Landing) -> list[str]:
    return sorted(row["complaint_id"] for row in rows(landing, "records"))


def test_a_file_that_is_still_copied_makes_no_complaint_that_never_was(
    tmp_path: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    path = write_csv(tmp_path / "in" / "a.csv", [complaint(1), complaint(12345)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    half = ingest([str(path)], lake, settings, DOMAIN, AS_OF)
    assert (complaints(half), half.reasons, half.objects[0].last_line) == (["1"], {UNFINISHED: 1}, "refused")
    assert half.objects[0].error is None
    path.write_bytes(whole)
    assert complaints(ingest([str(path)], lake, settings, DOMAIN, AS_OF)) == ["1", "1", "12345"]


def test_a_last_line_without_an_end_comes_in_once_the_file_stayed_as_it_was(
    tmp_path: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    path = write_csv(tmp_path / "in" / "a.csv", [complaint(1), complaint(12345)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert complaints(ingest([str(path)], lake, settings, DOMAIN, AS_OF)) == ["1"]
    taken = ingest([str(path)], lake, settings, DOMAIN, "2023-03-01")
    assert (complaints(taken), taken.rejects, taken.landed) == (["1", "123"], 0, 2)
    assert ingest([str(path)], lake, settings, DOMAIN, "2023-03-02").version == taken.version
    path.write_bytes(whole)
    completed = ingest([str(path)], lake, settings, DOMAIN, "2023-03-03")
    assert (complaints(completed), len(completed.objects)) == (["1", "12345"], 1)
    assert find_imbalances(completed.path) == []


def test_bytes_that_change_while_they_are_read_are_read_again(
    folder: Path, lake: Lake, settings: IngestionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is parsed is what was hashed, whatever happens to the file meanwhile."""

    @contextmanager
    def spoiled(*given: Any, **how: Any) -> Iterator[list[Content]]:
        (folder / "a.csv").write_text("nothing of use")
        with contents(*given, **how) as found:
            yield found

    content = sha256((folder / "a.csv").read_bytes()).hexdigest()
    monkeypatch.setattr(landing_module, "contents", spoiled)
    landing = ingest([str(folder / "a.csv")], lake, settings, DOMAIN, AS_OF)
    assert (landing.objects[0].sha256, landing.landed, landing.records) == (content, 3, 2)


def test_an_object_that_is_too_large_is_refused_unread(
    folder: Path,
    lake: Lake,
    settings: IngestionSettings,
) -> None:
    size = (folder / "b.csv").stat().st_size
    small = settings.model_copy(update={"max_object_bytes": size})
    landing = ingest([str(folder)], lake, small, DOMAIN, AS_OF)
    assert [(read.key, read.error, read.landed) for read in landing.objects] == [
        ("a.csv", "object-too-large", 1),
        ("b.csv", None, 2),
    ]
    assert landing.objects[0].bytes > size
    assert ingest([str(folder)], lake, small, DOMAIN, AS_OF).version == landing.version


def test_what_is_overwritten_or_deleted_is_reported_once_and_kept(
    folder: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint
) -> None:
    first = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert (first.overwritten, first.deleted, first.not_read) == ((), (), ())
    (folder / "notes.xlsx").touch()
    write_csv(folder / "a.csv", [complaint(9)])
    (folder / "b.csv").unlink()
    second = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert second.overwritten == (str(folder / "a.csv"),)
    assert second.deleted == (str(folder / "b.csv"),)
    assert second.not_read == (str(folder / "notes.xlsx"),)
    assert second.landed == first.landed + 1
    third = ingest([str(folder)], lake, settings, DOMAIN, AS_OF)
    assert (third.overwritten, third.deleted, third.version) == ((), (), second.version)


def test_every_csv_in_a_zip_lands_and_an_old_one_lands_once(
    folder: Path, lake: Lake, settings: IngestionSettings
) -> None:
    path = folder / "all.zip"
    for names in (["a.csv"], ["a.csv", "b.csv"]):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(folder / name, name)
        landing = ingest([str(path)], lake, settings, DOMAIN, AS_OF)
    assert [read.key for read in landing.objects] == ["all.zip/a.csv", "all.zip/b.csv"]
    assert [read.key for read in landing.new] == ["all.zip/b.csv"]
    assert landing.overwritten == ()


@pytest.mark.parametrize(
    "name", ["back\\slash.csv", "line\nbreak.csv", "br[a]ck*?.csv", 'it\'s "quoted".csv', "byte\udcff.csv"]
)
def test_a_name_is_data_whatever_is_in_it(
    tmp_path: Path, lake: Lake, settings: IngestionSettings, write_csv: WriteCsv, complaint: Complaint, name: str
) -> None:
    path = write_csv(tmp_path / name.removesuffix(".csv") / name, [complaint(1)])
    landing = ingest([str(path.parent)], lake, settings, DOMAIN, AS_OF)
    assert (landing.records, find_imbalances(landing.path)) == (1, [])
    assert landing.objects[0].key == readable(name)
    assert ingest([str(path.parent)], lake, settings, DOMAIN, AS_OF).version == landing.version


RACER = """
import sys
from pathlib import Path
from assets.ingestion.landing import ingest
from assets.lake import Lake
from assets.settings import load_domain, load_settings
print("ready", flush=True)
sys.stdin.readline()
ingest([sys.argv[1]], Lake(Path(sys.argv[2])), load_settings("quick").ingestion, load_domain(), "2024-01-01")
"""


def test_runs_at_once_lose_no_object_and_number_each_once(
    tmp_path: Path, lake: Lake, write_csv: WriteCsv, complaint: Complaint
) -> None:
    """As a command beside a job of the daemon, other sources each."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[2]}
    files = [write_csv(tmp_path / f"{name}.csv", [complaint(number)]) for number, name in enumerate("abc")]
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(file), str(lake.root)], **pipes) for file in files]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert [racer.communicate() and racer.returncode for racer in racers] == [0, 0, 0]
    landed = pq.read_table(lake.current("raw_records") / "objects.parquet").to_pylist()
    assert sorted(row["key"] for row in landed) == ["a.csv", "b.csv", "c.csv"]
    assert [row["seq"] for row in landed] == [0, 1, 2]
    assert [row["known_from"] for row in landed] == [None, "2024-01-01", "2024-01-01"], "one of them came first"
    assert find_imbalances(lake.current("raw_records")) == []
