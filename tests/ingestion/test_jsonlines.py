"""JSON Lines: what a field is, what is no record and why, and that nothing is lost."""

import gzip
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.ingestion.jsonlines import json_rows
from assets.ingestion.layout import may_lack
from assets.ingestion.reading import contents
from assets.ingestion.records import Record, Reject, Rows
from assets.ingestion.unpacking import DamagedError
from assets.ingestion.windows import UNFINISHED, Limits
from assets.settings import Domain, IngestionSettings

FIELDS: dict[str, dict[str, Any]] = {
    "id": {"names": ["Ticket ID", "ticket.id"]},
    "at": {"names": ["created"], "type": "instant"},
    "body": {"names": ["message.body", "text"]},
    "customer": {"names": ["customer.id"], "required": False},
    "queue": {"outcome": True, "required": False},
}
LIMIT = 1 << 12


@pytest.fixture(scope="module")
def tickets(domain_of: Callable[..., Domain]) -> Domain:
    return domain_of(FIELDS)


def stretches(
    data: bytes, domain: Domain, size: int = 1 << 20, *, whole: bool = True, damage: str = ""
) -> Iterator[Rows]:
    def blocks() -> Iterator[bytes]:
        yield from (data[start : start + size] for start in range(0, len(data), size))
        if damage:
            raise DamagedError(damage)

    yield from json_rows(blocks(), Limits(LIMIT, min(size, LIMIT)), domain, may_lack(domain.source), whole=whole)


def read(data: bytes | str, domain: Domain, size: int = 1 << 20, **how: Any) -> list[Record | Reject]:
    data = data.encode() if isinstance(data, str) else data
    return [row for rows in stretches(data, domain, size, **how) for row in rows.in_order()]


def lines(*objects: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in objects)


def ticket(number: Any = 1, **others: Any) -> dict[str, Any]:
    return {"ticket": {"id": number}, "created": "2024-01-01T10:00:00Z", "message": {"body": "hello"}, **others}


def ids(rows: Iterable[Record | Reject]) -> list[str | None]:
    return [row.fields["id"] if isinstance(row, Record) else row.reason for row in rows]


def fields(text: str, domain: Domain) -> dict[str, str | None]:
    (row,) = read(text, domain)
    assert isinstance(row, Record)
    return dict(row.fields)


def test_names_lead_into_objects_and_case_and_blanks_do_not_matter(tickets: Domain) -> None:
    text = lines({" TICKET ": {"ID": "7"}, "created": "x", "message": {"body": "hello\n"}, "customer": {"id": 5}})
    expected = {"id": "7", "at": "x", "body": "hello\n", "customer": "5", "queue": None}
    assert fields(text, tickets) == expected
    assert list(fields(text, tickets)) == list(tickets.source.fields)


def test_a_key_with_dots_comes_before_what_lies_in_objects_and_the_first_name_with_a_value_counts(
    tickets: Domain,
) -> None:
    assert fields(lines(ticket(1, **{"ticket.id": "literal"})), tickets)["id"] == "literal"
    assert fields(lines({"ticket.id": "literal", **ticket(1)}), tickets)["id"] == "literal"
    assert fields(lines(ticket(1, **{"Ticket ID": "first"})), tickets)["id"] == "first"
    assert fields(lines(ticket(1, **{"Ticket ID": None})), tickets)["id"] == "1"
    assert fields(lines({**ticket(), "message": None, "text": "other"}), tickets)["body"] == "other"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(('"a\\tb"', "a\tb"), ('""', None), ("null", None), ("true", "true"), ("1.50", "1.50"), ("-1E+2", "-1E+2")),
        ("9" * 1000, "9" * 1000),
        *(("[1, 2.0, null]", "[1,2.0,null]"), ('{"a": [true, "\\u00e9\\u0000"]}', '{"a":[true,"é\\u0000"]}')),
    ],
)
def test_values_that_are_no_text_are_json(tickets: Domain, value: str, expected: str | None) -> None:
    text = f'{{"ticket": {{"id": 1}}, "created": "", "text": "", "queue": {value}}}\n'
    assert fields(text, tickets)["queue"] == expected


def test_of_a_repeated_key_the_last_counts(tickets: Domain) -> None:
    assert fields('{"ticket": {"id": 1, "id": 2}, "created": "", "text": ""}\n', tickets)["id"] == "2"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        *((b"{", "not-json"), (b'{"a": 1', "not-json"), (b"{'a': 1}", "not-json"), (b'{"a": NaN}', "not-json")),
        *((b"a,b", "not-json"), (b'{"a": 1} {"b": 2}', "not-json"), (b'{"a":' * 2000 + b"1" + b"}" * 2000, "too-long")),
        *(
            (b'[{"a": 1}]', "not-an-object"),
            (b"[1]", "not-an-object"),
            (b'"a"', "not-an-object"),
            (b"1", "not-an-object"),
            (b"null", "not-an-object"),
        ),
        *((b'{"text": "a\0b"}', "nul-byte"), (b'{"text": "a\\u0000b"}', "nul-byte")),
        *((b'{"text": "caf\xe9"}', "not-utf-8"), (b'{"text": "\\ud800"}', "not-utf-8")),
        (b'{"text": "' + b"x" * LIMIT + b'"}', "too-long"),
    ],
)
def test_a_line_that_is_no_record_is_one_reject(tickets: Domain, line: bytes, reason: str) -> None:
    good = lines(ticket(1)).encode()
    rows = read(good + line + b"\n" + good, tickets)
    assert ids(rows) == ["1", reason, "1"]
    assert [row.line for row in rows] == [1, 2, 3]
    assert isinstance(rows[1], Reject)
    assert rows[1].raw_text.replace("\\x00", "\0").replace("\\xe9", "\udce9") == line.decode(errors="surrogateescape")


def test_an_object_that_is_too_deep_is_no_json(tickets: Domain) -> None:
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    limits = Limits(1 << 20, 1 << 20)
    data = lines(ticket(1)).encode() + deep + b"\n" + lines(ticket(2)).encode()
    found = json_rows(iter([data]), limits, tickets, may_lack(tickets.source), whole=True)
    assert ids(row for rows in found for row in rows.in_order()) == ["1", "not-json", "2"]


def test_blank_lines_a_mark_and_other_line_ends_are_no_matter(tickets: Domain) -> None:
    text = "\ufeff\n" + lines(ticket(1)).replace("\n", "\r\n") + "  \n\n" + lines(ticket(2)).rstrip("\n")
    rows = read(text, tickets)
    assert [(row.line, found) for row, found in zip(rows, ids(rows), strict=True)] == [(2, "1"), (5, "2")]


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_a_line_that_is_far_too_long_is_one_reject(tickets: Domain, size: int) -> None:
    text = lines(ticket(1)) + '{"text": "' + "x" * 5 * LIMIT + '"}\n' + lines(ticket(2))
    rows = read(text, tickets, size)
    assert [(row.line, found) for row, found in zip(rows, ids(rows), strict=True)] == [
        *((1, "1"), (2, "too-long"), (3, "2")),
    ]


def test_a_torn_last_line_is_refused_and_a_whole_object_needs_no_line_end(tickets: Domain) -> None:
    text = lines(ticket(1), ticket(2))
    assert ids(read(text[:-1], tickets, whole=False)) == ["1", "2"]
    torn = read(text[:-9], tickets, whole=False)
    assert torn[1:] == [Reject(2, UNFINISHED, text[:-9].split("\n")[1])]
    assert ids(read(text[:-9], tickets, whole=True)) == ["1", "not-json"]


@pytest.mark.parametrize("cut", ["", '{"id', "{}"])
def test_a_damaged_end_is_one_reject(tickets: Domain, cut: str) -> None:
    rows = read(lines(ticket(1)) + cut, tickets, damage="truncated-gzip")
    assert rows[1:] == [Reject(2, "truncated-gzip", cut, of_object=True)]


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_nothing_is_an_empty_object(tickets: Domain, text: str) -> None:
    assert read(text, tickets) == [Reject(1, "empty-object", "", of_object=True)]


def test_a_field_that_no_record_of_the_first_stretch_has_refuses_the_object(tickets: Domain) -> None:
    (rows,) = stretches(lines({"ticket": {"number": 1}, "created": "", "text": ""}).encode(), tickets)
    assert rows.rejects == [Reject(1, "missing-column: Ticket ID or ticket.id", "", of_object=True)]
    assert rows.header_fault == "there is no Ticket ID or ticket.id; found ticket.number, created, text"
    assert ids(read(lines({"created": "", "text": ""}, ticket(2)), tickets)) == [None, "2"]
    assert ids(read(lines({**ticket(), "ticket": None}), tickets)) == [None]


@pytest.mark.parametrize("text", ["[\n{}\n]\n", json.dumps([ticket(1), ticket(2)]), "[{}]\n" * 2, "{\n}\n", "[" * 9000])
def test_one_value_over_the_whole_file_is_refused_with_what_to_do(tickets: Domain, text: str) -> None:
    (rows,) = stretches(text.encode(), tickets)
    assert [reject.reason for reject in rows.rejects] == ["one-json-value: write one object per line"]
    assert "write one object per line" in str(rows.header_fault)


@pytest.mark.parametrize("name", ["a.JSONL", "a.ndjson", "a.jsonl.gz", "a.ndjson.zst", "a.zip"])
def test_each_packing_reads_like_the_plain_file(
    tickets: Domain, settings: IngestionSettings, tmp_path: Path, name: str
) -> None:
    data, path = lines(*map(ticket, range(100))).encode(), tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("b.jsonl", data)
    else:
        packed = {".gz": gzip.compress, ".zst": lambda text: pa.compress(text, codec="zstd", asbytes=True)}
        path.write_bytes(packed.get(path.suffix, bytes)(data))
    with contents(path, name, "", settings, tickets, whole=True) as found:
        rows = [row for content in found for rows in content.rows() for row in rows.in_order()]
    assert ids(rows) == [str(number) for number in range(100)]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.tuples(values, texts), min_size=1, max_size=8), st.sampled_from([1, 7, 64, 1 << 20]), st.booleans())
def test_every_object_comes_back_and_none_is_lost(
    tickets: Domain, written: list[tuple[Any, str]], size: int, plain: bool
) -> None:
    text = "".join(json.dumps(ticket(text, queue=value), ensure_ascii=plain) + "\n" for value, text in written)
    rows = read(text, tickets, size)
    assert len(rows) == len(written)
    for row, (value, written_text) in zip(rows, written, strict=True):
        if isinstance(row, Reject):
            assert row.reason == "too-long"
            continue
        assert (row.fields["id"] or "") == written_text
        found = row.fields["queue"]
        if isinstance(value, str):
            assert (found or "") == value
        else:
            assert found is None if value is None else json.loads(str(found)) == value
