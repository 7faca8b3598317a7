"""Sources that domains other than the reference one declare: delimiters, types, little to go by, and Parquet."""

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.exceptions import SourceError
from assets.ingestion.inputs import model_inputs
from assets.ingestion.landing import find_imbalances, ingest
from assets.ingestion.layout import may_lack
from assets.ingestion.reading import read_rows
from assets.ingestion.records import Record, Reject, Rows
from assets.ingestion.splitting import split
from assets.ingestion.times import time_pattern
from assets.ingestion.windows import Limits
from assets.lake import Lake
from assets.settings import Domain, IngestionSettings

LIMITS = Limits(1 << 14, 1 << 12)
TICKETS: dict[str, dict[str, Any]] = {
    "at": {"type": "instant", "formats": ["%d.%m.%Y %H:%M"]},
    "customer": {},
    "channel": {},
    "title": {},
    "body": {},
    "queue": {"outcome": True},
    "solved": {"type": "instant", "outcome": True},
    "id": {},
}
OPAQUE = {**TICKETS, "at": {"type": "day", "formats": ["%d. %B %Y"]}}
"""A time of receipt that may look like anything."""
PLAIN: dict[str, dict[str, Any]] = {
    "id": {},
    "body": {},
    "at": {"type": "day"},
    "queue": {"outcome": True},
}
"""Little to go by: a textual id, few columns, the time after the text."""
DELIMITERS = [",", ";", "|", "\t"]


@pytest.fixture(scope="module")
def domains(domain_of: Callable[..., Domain]) -> dict[tuple[str, str], Domain]:
    layouts = {"tickets": TICKETS, "opaque": OPAQUE, "plain": PLAIN}
    return {(name, mark): domain_of(fields, mark) for name, fields in layouts.items() for mark in DELIMITERS}


def stretches(data: bytes, domain: Domain, size: int = 1 << 20) -> list[Rows]:
    blocks = (data[start : start + size] for start in range(0, len(data), size))
    return list(split(blocks, LIMITS, domain, may_lack(domain.source), whole=True))


def read(text: str, domain: Domain, size: int = 1 << 20) -> list[Record | Reject]:
    return [row for rows in stretches(text.encode(), domain, size) for row in rows.in_order()]


def ids(rows: list[Record | Reject]) -> list[str | None]:
    return [row.fields["id"] if isinstance(row, Record) else row.reason for row in rows]


def write(rows: list[dict[str, str]], domain: Domain) -> str:
    text, names = io.StringIO(), list(domain.source.fields)
    # The writer leaves a lone carriage return without quotes.
    quoting = csv.QUOTE_ALL if any("\r" in value for row in rows for value in row.values()) else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(text, names, delimiter=domain.source.delimiter, lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def ticket(number: int, body: str = "It broke.\nTwice, and: again; so|on\tand on.", **others: str) -> dict[str, str]:
    fields = {"at": f"2024-01-0{number % 9 + 1}T10:00:00+01:00", "customer": "ACME", "channel": "mail", "queue": "a"}
    return {**fields, "title": "Help", "body": body, "solved": "", "id": f"T-{number}", **others}


def plain(number: int, body: str = "It broke.\nTwice, and: again; so|on\tand on.") -> dict[str, str]:
    return {"id": f"T-{number}", "body": body, "at": "2024-01-01", "queue": "a"}


@pytest.mark.parametrize("mark", DELIMITERS)
@pytest.mark.parametrize(("name", "make"), [("tickets", ticket), ("opaque", ticket), ("plain", plain)])
def test_a_well_formed_file_is_read_as_it_is(
    domains: dict[tuple[str, str], Domain], name: str, make: Callable[..., dict[str, str]], mark: str
) -> None:
    domain = domains[name, mark]
    bodies = [
        "one line",
        "two\nlines",
        f'a{mark}b{mark}c\nd{mark}e{mark}f{mark}g\n"said"{mark}',
        f"x{mark}y{mark}z{mark}w\n",
        f"2024-01-05T10:00{mark}x{mark}{mark}ok\n2024-01-05T10:01{mark}y{mark}{mark}ok\n",
        "",
    ]
    rows = read(write([make(number, body) for number, body in enumerate(bodies)], domain), domain, 50)
    assert ids(rows) == [f"T-{number}" for number in range(len(bodies))]
    assert [row.fields["body"] or "" for row in rows if isinstance(row, Record)] == bodies


@pytest.mark.parametrize("mark", DELIMITERS)
@pytest.mark.parametrize("received", ["2024-01-05 10:00:00.5Z", "2024-01-05", "5.1.2024 9:30"])
@pytest.mark.parametrize("body", ['"never closed', 'never opened"', '"a "quote" inside"', "loose\nline feed"])
def test_a_broken_record_takes_no_neighbour(
    domains: dict[tuple[str, str], Domain], mark: str, received: str, body: str
) -> None:
    domain = domains["tickets", mark]
    lines = write([ticket(n, at=received) for n in (1, 2)], domain).partition("\n")
    broken = mark.join([received, "ACME", "mail", "Help", body, "a", "", "T-9"]) + "\n"
    rows = read(lines[0] + "\n" + lines[2] + broken + lines[2] + broken + lines[2], domain)
    assert [found for found in ids(rows) if found and found.startswith("T-")] == ["T-1", "T-2"] * 3
    assert "\n".join(row.raw_text for row in rows if isinstance(row, Reject)) == broken + broken[:-1]


@pytest.mark.parametrize("mark", DELIMITERS)
@pytest.mark.parametrize("name", ["opaque", "plain"])
@pytest.mark.parametrize("body", ['"never closed', 'never opened"', '"a "quote" inside"', "loose\nline feed"])
def test_where_there_is_little_to_go_by_a_broken_record_takes_only_what_cannot_be_told_apart(
    domains: dict[tuple[str, str], Domain], name: str, mark: str, body: str
) -> None:
    domain, make = domains[name, mark], plain if name == "plain" else ticket
    header, _, good = write([make(1), make(2)], domain).partition("\n")
    broken = write([make(9, "BODY")], domain).partition("\n")[2].replace("BODY", body)
    rows = read(header + "\n" + good + broken + good + broken + good, domain)
    assert [found for found in ids(rows) if found and found.startswith("T-")] == ["T-1", "T-2"] * 3


def test_two_lone_quotes_hide_no_dated_record_between_them(domains: dict[tuple[str, str], Domain]) -> None:
    domain = domains["plain", ";"]
    header = "id;body;at;queue\n"
    text = 'T-1;"open;2024-01-01;a\nT-2;between;2024-01-01;a\nT-3;close";2024-01-01;a\nT-4;after;2024-01-01;a\n'
    assert ids(read(header + text, domain)) == ["broken-quote", "T-2", "broken-quote", "T-4"]


texts = st.text(
    st.sampled_from('ab ,;|\t"\n\r2024-01é') | st.characters(exclude_categories=["Cs"], exclude_characters="\0")
)


@given(
    st.data(),
    st.sampled_from(["tickets", "opaque", "plain"]),
    st.sampled_from(DELIMITERS),
    st.sampled_from([1, 7, 1 << 20]),
)
def test_every_record_comes_back_of_every_layout(
    domains: dict[tuple[str, str], Domain], data: st.DataObject, name: str, mark: str, size: int
) -> None:
    domain = domains[name, mark]
    make = plain if name == "plain" else ticket
    written = [make(number, body) for number, body in enumerate(data.draw(st.lists(texts, max_size=5)))]
    rows = read(write(written, domain), domain, size)
    found = [{name: value or "" for name, value in row.fields.items()} for row in rows if isinstance(row, Record)]
    assert found == [{name: row[name] for name in domain.source.fields} for row in written]
    assert len(rows) == len(written)


@given(
    st.lists(st.text(st.sampled_from('T-1;"\n2024-01-01,ab'), max_size=40), max_size=8),
    st.sampled_from([1, 7, 1 << 20]),
)
def test_no_byte_is_lost_or_read_twice(domains: dict[tuple[str, str], Domain], pieces: list[str], size: int) -> None:
    text = "id;body;at;queue\n" + "\n".join(pieces)
    found = [row for rows in stretches(text.encode(), domains["plain", ";"], size) for row in rows.in_order()]
    lines = [row.line for row in found]
    assert lines == sorted(set(lines))
    assert found == [row for rows in stretches(text.encode(), domains["plain", ";"]) for row in rows.in_order()]
    assert bool(found) == bool(text.partition("\n")[2].strip("\r\n"))


@pytest.mark.parametrize(
    ("formats", "to_the_day", "text", "is_time"),
    [
        *(([], True, "2024-01-05", True), ([], True, "2024-01-05T10:00", False), ([], False, "2024-01-05T10:00", True)),
        *(([], False, "2024-01-05 10:00:00.123456+02:00", True), ([], False, "2024-01-05T10:00:00Z", True)),
        *((["%d.%m.%Y"], True, "5.1.2024", True), (["%d.%m.%Y"], True, "5x1x2024", False)),
        *((["%Y%m%d%%"], True, "20240105%", True), (["%H:%M:%S.%f%z"], False, "9:00:01.5+0200", True)),
    ],
)
def test_times_are_known_by_their_formats(formats: list[str], to_the_day: bool, text: str, is_time: bool) -> None:
    pattern = time_pattern(formats, to_the_day=to_the_day)
    assert pattern is not None
    assert (re.fullmatch(pattern, text) is not None) == is_time


def test_a_format_of_other_letters_can_be_anything() -> None:
    assert time_pattern(["%d %B %Y"], to_the_day=True) is None


def test_names_of_every_time_are_known_and_any_of_them_may_be_there(domain_of: Callable[..., Domain]) -> None:
    domain = domain_of({**PLAIN, "id": {"names": ["Ticket", "Ticket No"]}})
    for head in ("Ticket", " ticket  NO"):
        (rows,) = [
            rows for rows in stretches(f"{head},body,at,queue\n1,x,2024-01-01,a\n".encode(), domain) if len(rows)
        ]
        assert rows.records["id"].to_pylist() == ["1"]
    (rows,) = stretches(b"Ticket,Ticket No,body,at,queue\n", domain)
    assert [reject.reason for reject in rows.rejects] == ["repeated-column: Ticket or Ticket No"]
    (rows,) = stretches(b"number,body,at\n", domain)
    assert rows.header_fault == "there is no Ticket or Ticket No, queue; found number, body, at"


def parquet(
    path: Path, columns: dict[str, pa.Array], domain: Domain, settings: IngestionSettings
) -> list[dict[str, Any]]:
    pq.write_table(pa.table(columns), path)
    rows = list(read_rows(path, settings, domain, outcomes=True))
    return [dict(row.fields) if isinstance(row, Record) else {"reason": row.reason} for row in rows]


def test_parquet_has_structs_instants_and_numbers(
    domain_of: Callable[..., Domain], settings: IngestionSettings, tmp_path: Path
) -> None:
    domain = domain_of(
        {
            "id": {"names": ["ticket.id"], "type": "number"},
            "at": {"type": "instant", "names": ["meta.created.at"]},
            "body": {},
            "customer": {"names": ["meta.customer"]},
            "day": {"type": "day"},
            "queue": {"outcome": True},
        }
    )
    noon = dt.datetime(2024, 1, 5, 12, 0, 0, 120_000)
    tickets = pa.array([{"id": 7.0}, {"id": 12345678901.0}, {"id": None}, None, {"id": 1.5}])
    times = pa.array([noon, noon.replace(microsecond=0), None, noon, noon]).cast(pa.timestamp("us", "Europe/Berlin"))
    created = pa.StructArray.from_arrays([times], ["at"])
    customers = pa.array(["x", None, "", "x", "x"]).dictionary_encode()
    columns = {
        "ticket": tickets,
        "meta": pa.StructArray.from_arrays([created, customers], ["created", "customer"]),
        "body": pa.array(["a"] * 5),
        "day": pa.array([noon] * 5),
        "queue": pa.array([True] * 5),
    }
    found = parquet(tmp_path / "a.parquet", columns, domain, settings)
    assert [row["id"] for row in found] == ["7", "12345678901", None, None, "1.5"]
    assert [row["at"] for row in found][:3] == ["2024-01-05T12:00:00.120000Z", "2024-01-05T12:00:00Z", None]
    assert [row["customer"] for row in found][:3] == ["x", None, None]
    assert (found[0]["day"], found[0]["queue"]) == ("2024-01-05", "true")
    literal = {**columns, "ticket.id": pa.array(["1", "2", "3", "4", "5"]), "meta": columns["meta"]}
    assert [row["id"] for row in parquet(tmp_path / "a.parquet", literal, domain, settings)] == [
        "1",
        "2",
        "3",
        "4",
        "5",
    ]
    with pytest.raises(
        SourceError, match=r"there is no ticket\.id; found meta\.created\.at, meta\.customer, body, day, que"
    ):
        parquet(tmp_path / "a.parquet", {name: columns[name] for name in columns if name != "ticket"}, domain, settings)


def test_parquet_may_repeat_only_what_nobody_reads(
    domains: dict[tuple[str, str], Domain], settings: IngestionSettings, tmp_path: Path
) -> None:
    domain, values = domains["plain", ","], [pa.array([name]) for name in PLAIN]
    pq.write_table(pa.table([*values, *[pa.array(["x"])] * 2], names=[*PLAIN, "more", "more"]), tmp_path / "a.parquet")
    assert ids(list(read_rows(tmp_path / "a.parquet", settings, domain))) == ["id"]
    pq.write_table(pa.table([*values, pa.array(["x"])], names=[*PLAIN, "ID"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="id appears twice; found id, body, at, queue, ID; configs"):
        list(read_rows(tmp_path / "a.parquet", settings, domain))


def test_what_a_model_is_given_is_what_the_marts_have(domain_of: Callable[..., Domain]) -> None:
    domain = domain_of(TICKETS)
    record = Record({**dict.fromkeys(TICKETS), "id": " T-1 ", "title": "Help", "body": "It broke."}, 1, "")
    given = {"record_id": "T-1", "text": "Help\nIt broke.", "customer": "unknown"}
    assert model_inputs(domain, record) == given
    empty = Record({**dict.fromkeys(TICKETS), "id": " ", "body": None, "customer": "ACME"}, 1, "")
    assert model_inputs(domain, empty) == {"record_id": None, "text": None, "customer": "ACME"}


def test_every_row_of_every_format_is_accounted_for(
    domains: dict[tuple[str, str], Domain], settings: IngestionSettings, tmp_path: Path
) -> None:
    domain, folder = domains["tickets", ";"], tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text(write([ticket(1), ticket(2)], domain) + "2024-01-01;too;few\n")
    (folder / "b.jsonl").write_text("\n".join([json.dumps(ticket(3)), "{", "[]", json.dumps(ticket(4)), '{"torn": ']))
    pq.write_table(pa.Table.from_pylist([ticket(5), ticket(6, "nul\0byte")]), folder / "c.parquet")
    pq.write_table(pa.table({"other": ["x"]}), folder / "d.parquet")
    landing = ingest([str(folder)], Lake(tmp_path / "lake"), settings, domain, "2024-02-01")
    assert (landing.landed, landing.records, landing.rejects) == (11, 5, 6)
    assert [read.error for read in landing.objects] == [None, None, None, "missing-column: at"]
    assert landing.reasons == {
        **{"missing-column: at": 1, "not-an-object": 1, "not-json": 1, "nul-byte": 1},
        **{"too-few-fields": 1, "unfinished-last-line": 1},
    }
    assert find_imbalances(landing.path) == []
    records = pq.read_table(landing.path / "records")
    assert records.column_names == ["object_id", *domain.source.fields, "line", "content_hash"]
    assert sorted(records["id"].to_pylist()) == ["T-1", "T-2", "T-3", "T-4", "T-5"]


def test_a_file_to_be_scored_lacks_outcomes_only(
    domains: dict[tuple[str, str], Domain], settings: IngestionSettings, tmp_path: Path
) -> None:
    path, domain = tmp_path / "a.csv", domains["plain", ";"]
    path.write_text("id;body;at\n1;x;2024-01-01\n")
    assert ids(list(read_rows(path, settings, domain))) == ["1"]
    with pytest.raises(
        SourceError, match=r"a\.csv: there is no queue; found id, body, at; configs/domain\.yaml declares"
    ):
        list(read_rows(path, settings, domain, outcomes=True))
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "body": "x", "at": "2024-01-01"}\nnone\n')
    assert ids(list(read_rows(path, settings, domain))) == ["1", "not-json"]
    path.write_text('{"body": "x", "at": "2024-01-01"}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl: there is no id; found body, at; configs"):
        list(read_rows(path, settings, domain))
