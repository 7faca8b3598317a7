"""A broken record is one reject with its raw text, and never takes a neighbour with it."""

import csv
import gc
import hashlib
import io
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.ingestion.clean import Stretch, _Count
from assets.ingestion.doubtful import Doubtful
from assets.ingestion.layout import Layout, may_lack, read_header
from assets.ingestion.records import Record, Reject
from assets.ingestion.splitting import split
from assets.ingestion.unpacking import DamagedError
from assets.ingestion.windows import UNFINISHED, Limits
from assets.settings import load_domain
from complaints.simulation.world import COLUMNS

DOMAIN = load_domain()
SPARE, OUTCOMES = may_lack(DOMAIN.source), may_lack(DOMAIN.source, outcomes=True)
LIMIT = 1 << 16
LIMITS = Limits(LIMIT, LIMIT)
HEADER = ",".join(COLUMNS) + "\n"
TAIL = ',,"ACME, INC.",CA,90001,,,Web,2023-01-16,Closed,Yes,N/A,'


def line(number: int, narrative: str = "plain", day: str = "2023-01-15") -> str:
    """A valid record as text; the narrative is put in as it is, quotes and all."""
    return f"{day},Credit card,,Fees,,{narrative}{TAIL}{number}\n"


def blocks(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[start : start + size] for start in range(0, len(data), size))


def read(text: str | bytes, size: int = 1 << 20, optional: frozenset[str] = SPARE) -> list[Record | Reject]:
    data = text.encode() if isinstance(text, str) else text
    limits = Limits(LIMIT, min(size, LIMIT))
    return [row for rows in split(blocks(data, size), limits, DOMAIN, optional, whole=True) for row in rows.in_order()]


def ids(rows: list[Record | Reject]) -> list[str | None]:
    """Complaint ids of records, and reasons of rejects, in order."""
    return [row.fields["complaint_id"] if isinstance(row, Record) else row.reason for row in rows]


def test_a_record_has_its_fields_its_line_and_a_hash_of_its_content() -> None:
    rows = read(HEADER + line(1, '"two\nlines, ""quoted"""') + line(2) + line(2))
    first, second, third = (row for row in rows if isinstance(row, Record))
    assert first.fields["narrative"] == 'two\nlines, "quoted"'
    assert (first.fields["company"], first.fields["company_public_response"]) == ("ACME, INC.", None)
    assert [row.line for row in rows] == [2, 4, 5]
    assert second.content_hash == third.content_hash != first.content_hash
    joined = b"\0".join(field.encode() for field in next(csv.reader([line(2)])))
    assert second.content_hash == hashlib.md5(joined, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (line(9, '"never closed'), "broken-quote"),
        (line(9, '"never closed\nover\n\nlines, with commas'), "broken-quote"),
        (line(9, 'never opened"'), "broken-quote"),
        (line(9, 'never opened\nover, two lines"'), "broken-quote"),
        (line(9, 'a "stray" pair'), "broken-quote"),
        (line(9, '"undoubled "quote" inside"'), "broken-quote"),
        (line(9, '"and a quote at the end of a field""'), "broken-quote"),
        (line(9, "loose\rreturn"), "stray-carriage-return"),
        (line(9, "loose\nline feed"), "too-few-fields"),
        ("2023-01-15,Credit card,,Fees\n", "too-few-fields"),
        ('2023-01-15,Credit card,,Fees,,"cut off in the text\n', "broken-quote"),
        (line(9, '"a date inside\n2023-01-02, see"').replace(",Web", ""), "too-few-fields"),
        (line(9, '"a date inside\n2023-01-02,see"').replace(",Web", ""), "broken-quote"),
        (line(9).replace(",Web", ""), "too-few-fields"),
        (line(9).replace(",Web", ",Web,Web"), "too-many-fields"),
        (line(9, "nul\0byte"), "nul-byte"),
        (line(9, '"nul\0byte\nin two lines"'), "nul-byte"),
        (line(9, "x" * LIMIT), "too-long"),
        (line(9, '"' + "x y\n" * (LIMIT // 4) + '"'), "broken-quote"),
        (line(9, '"' + "x y\n" * (LIMIT // 4)), "broken-quote"),
    ],
)
@pytest.mark.parametrize("neighbour", ["plain", '"quoted"', '"\nstarts with a line feed"', '",a comma"', '"""said"""'])
def test_a_broken_record_takes_no_neighbour(broken: str, reason: str, neighbour: str) -> None:
    good = [line(number, neighbour) for number in range(1, 5)]
    rows = read(HEADER + good[0] + good[1] + broken + good[2] + broken + good[3])
    records = [row for row in rows if isinstance(row, Record)]
    assert [row.fields["complaint_id"] for row in records] == ["1", "2", "3", "4"]
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert rejects[0].reason == reason
    text = broken.rstrip("\n").replace("\0", "\\x00")
    assert "\n".join(row.raw_text for row in rejects[: len(rejects) // 2]) == text
    if "2023-01-02,see" not in broken and len(broken) < LIMIT:
        assert len(rejects) == 2


def bare(number: int, narrative: str = "plain", day: str = "2023-01-15") -> str:
    """A valid record in which nothing but the narrative can hold a quote."""
    return line(number, narrative, day).replace('"ACME, INC."', "ACME")


CUT = '2023-01-15,Credit card,,Fees,,"cut off\n'


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([bare(1, '"open'), bare(2), bare(3), bare(4, 'close"')], ["broken-quote", "2", "3", "broken-quote"]),
        ([bare(1, '"open'), bare(2, day=""), bare(4, 'close"')], ["broken-quote", "2", "broken-quote"]),
        ([bare(1, '"open\nin lines'), bare(4, 'close"')], ["broken-quote", "broken-quote"]),
        ([CUT, bare(2), bare(4, 'close"')], ["broken-quote", "2", "broken-quote"]),
        ([CUT, bare(2), bare(4, 'close"', day="")], ["broken-quote", "2", "broken-quote"]),
        ([bare(1, '"open'), bare(4, 'close\nor not"')], ["broken-quote", "broken-quote"]),
        ([CUT, bare(4, '"')], ["broken-quote", "broken-quote"]),
        ([CUT, bare(2, '",a comma"'), bare(3, '"\na line"')], ["broken-quote", "2", "3"]),
    ],
)
def test_quotes_that_balance_across_records_do_not_hide_them(pieces: list[str], expected: list[str]) -> None:
    assert ids(read(HEADER + "".join(pieces) + bare(6))) == [*expected, "6"]


def test_a_record_with_a_bad_byte_ends_where_its_quotes_say() -> None:
    assert ids(read(HEADER + line(1, "nul\0byte") + line(2, '"two\nlines"', day="in May"))) == ["nul-byte", "2"]


def test_lone_quotes_before_the_company_do_not_hide_in_one_another() -> None:
    record = "2023-01-15,Credit card,,Fees,,,,{},CA,90001,,,Web,2023-01-16,Closed,Yes,N/A,{}\n"
    text = HEADER + record.format('"ACME', 1) + record.format("OTHER", 2) + record.format('BANK"', 3)
    assert ids(read(text)) == ["broken-quote", "2", "broken-quote"]


@pytest.mark.parametrize(
    "narrative",
    [
        "I wrote:\n2023-01-02, they called\n2023-01-03,they hung up\nbye",
        "2023-01-02,Credit card,,Fees",
        "one, two, three, four, five, six\nseven, eight, nine, ten, eleven, 12",
        "I paid $1,200\n2023-01-02, and again $1,300\n2023-01-03,",
        "a list\r\nwith returns\r\n",
        "form\x0cfeed, \x1c and \u2028 separators \x85",
        '"quoted"\n"2023-01-02",said "x"',
        "\ufeffa mark, an emoji \U0001f600",
    ],
)
def test_a_valid_narrative_survives_whatever_it_says(narrative: str) -> None:
    quoted = '"' + narrative.replace('"', '""') + '"'
    rows = read(HEADER + line(1) + line(2, quoted) + line(3, quoted) + line(4))
    assert ids(rows) == ["1", "2", "3", "4"]
    assert isinstance(rows[1], Record)
    assert rows[1].fields["narrative"] == narrative


def test_prose_that_has_as_many_commas_as_a_record_is_no_record() -> None:
    narrative = '"It began\nThen, early in May, he, she, they, left"'
    assert ids(read(HEADER + line(1, narrative) + line(2))) == ["1", "2"]
    unclosed = '"It began\nThen, early in May, he, she, they, left'
    assert ids(read(HEADER + line(1, unclosed) + line(2))) == ["broken-quote", "2"]


def test_bytes_that_are_not_utf_8_reject_their_record_alone() -> None:
    data = (HEADER + line(1) + line(2, '"caf~\nand more"') + line(3)).encode().replace(b"~", b"\xe9")
    rows = read(data)
    assert ids(rows) == ["1", "not-utf-8", "3"]
    assert isinstance(rows[1], Reject)
    assert "caf\\xe9\nand more" in rows[1].raw_text


def test_line_ends_may_differ_and_blank_lines_are_no_records() -> None:
    text = HEADER.replace("\n", "\r\n") + line(1) + "\n" + line(2, '"a\r\nb"').replace("\n", "\r\n") + "\r\n" + line(3)
    assert ids(read(text)) == ["1", "2", "3"]
    assert ids(read((HEADER + line(1) + line(2)).rstrip("\n"))) == ["1", "2"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "empty-object"),
        ("\n\n", "empty-object"),
        ("\ufeff", "empty-object"),
        (HEADER.replace("Company,", ""), "missing-column: Company"),
        (HEADER.replace("Product,", "Produkt,"), "missing-column: Product"),
        (HEADER.replace("Product,", "Product,Product,"), "repeated-column: Product"),
        (HEADER.replace("Product,", "Product, PRODUCT ,"), "repeated-column: Product"),
        (HEADER.replace("Product,", '"Pro"duct,'), "unreadable-header"),
        (HEADER.replace("Product,", "Pro\0duct,"), "not-utf-8"),
        (line(7), "missing-column: Date received"),
    ],
)
def test_a_header_that_cannot_be_used_is_one_reject(header: str, reason: str) -> None:
    rows = read(header + (line(1) if header.strip("\n\ufeff") else ""))
    assert rows == [Reject(1, reason, rows[0][2], of_object=True)]
    assert header.startswith(rows[0].raw_text.replace("\\x00", "\0"))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (str.upper, "names written differently: DATE RECEIVED, PRODUCT, SUB-PRODUCT, ISSUE, SUB-ISSUE, ..."),
        (lambda header: "\ufeff" + header.replace(",Issue", ",  issue "), "names written differently:   issue "),
        (lambda header: header.replace("Product,", "Colour,Product,"), "other columns, ignored: Colour"),
        (lambda header: header.replace("ID\n", "ID,\n"), "other columns, ignored: (no name)"),
        (lambda header: header.replace("Timely response?,", ""), "missing optional columns: Timely response?"),
        (lambda header: header.replace("Company,State", "State,Company"), "columns in another order"),
    ],
)
def test_a_header_that_leaves_no_doubt_is_accepted_and_reported(change: Callable[[str], str], note: str) -> None:
    official = dict.fromkeys(map(str.casefold, COLUMNS), "") | {"date received": "2023-01-15", "issue": "Fees"}
    official |= {"company": "ACME", "state": "CA", "complaint id": "7"}
    names = [name.strip("\ufeff ").casefold() for name in change(HEADER).rstrip("\n").split(",")]
    row = ",".join(official.get(name, "red") for name in names) + "\n"
    parts = list(split(blocks((change(HEADER) + row).encode(), 100), LIMITS, DOMAIN, SPARE, whole=True))
    assert [found for part in parts for found in part.notes] == [note]
    (record,) = (row for part in parts for row in part.in_order())
    assert isinstance(record, Record)
    expected = {"company": "ACME", "state": "CA", "complaint_id": "7", "issue": "Fees"}
    assert {name: record.fields[name] for name in expected} == expected


@pytest.mark.parametrize(
    "last", [line(3)[:-1], line(345)[:-3], line(3, '"two\nlines"')[:-1], "2023-01-15,Cre", line(3, '"two\nli')[:-40]]
)
def test_a_last_line_without_an_end_is_refused_unless_the_object_is_known_to_be_whole(last: str) -> None:
    def rows(text: str, *, whole: bool) -> list[Record | Reject]:
        found = split(blocks(text.encode(), 64), LIMITS, DOMAIN, SPARE, whole=whole)
        return [row for part in found for row in part.in_order()]

    start = HEADER + line(1) + line(2)
    assert rows(start + last, whole=False) == [*read(start), Reject(4, UNFINISHED, last)]
    assert rows(start + last, whole=True) == read(start + last)
    assert rows(start, whole=False) == read(start)
    assert rows(HEADER[:-1], whole=False) == [Reject(1, UNFINISHED, HEADER[:-1], of_object=True)]


def test_an_object_with_only_a_header_holds_nothing() -> None:
    assert read(HEADER) == read(HEADER.rstrip("\n")) == []


def test_columns_come_in_any_order_and_the_spare_ones_may_be_gone() -> None:
    names = [name for name in reversed(COLUMNS) if name not in ("Company public response", "Consumer disputed?")]
    row = dict.fromkeys(COLUMNS, "") | {"Complaint ID": "7", "Date received": "2023-01-15", "Company": 'A "B", C'}
    text = io.StringIO("\ufeff")
    text.seek(1)
    writer = csv.DictWriter(text, names, extrasaction="ignore", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows([row, row | {"Complaint ID": "8"}])
    body = text.getvalue().split("\n", 1)[1]
    rows = read(text.getvalue() + body.replace('"8"', '8"') + body)
    assert ids(rows) == ["7", "8", "7", "broken-quote", "7", "8"]
    assert isinstance(rows[0], Record)
    expected = {"company": 'A "B", C', "disputed": None, "date_received": "2023-01-15"}
    assert {name: rows[0].fields[name] for name in expected} == expected


def test_what_is_scored_needs_no_outcome_column() -> None:
    names = [field.names[0] for name, field in DOMAIN.source.fields.items() if name not in OUTCOMES]
    rows = read(",".join(names) + "\n2023-01-15,text,ACME,CA,90001,,Web,7\n", optional=OUTCOMES)
    assert ids(rows) == ["7"]
    assert ids(read(",".join(names) + "\n")) == ["missing-column: Product"]


@pytest.mark.parametrize(
    "cut", ["", "2023-01-15,Cre", line(9)[:-3], line(987)[:-2], line(9, '"open\nand'), line(9, '"open\n')[:-80]]
)
def test_a_damaged_end_is_one_reject(cut: str) -> None:
    def damaged() -> Iterator[bytes]:
        yield (HEADER + line(1) + line(2) + cut).encode()
        raise DamagedError("truncated-gzip")

    rows = [row for rows in split(damaged(), LIMITS, DOMAIN, SPARE, whole=True) for row in rows.in_order()]
    assert ids(rows) == ["1", "2", "truncated-gzip"]
    assert rows[2] == Reject(4, "truncated-gzip", cut.rstrip("\n"), of_object=True)


def test_damage_before_the_first_line_ends_is_of_the_whole_object() -> None:
    def damaged() -> Iterator[bytes]:
        yield b"Date rec"
        raise DamagedError("truncated-gzip")

    (rows,) = split(damaged(), LIMITS, DOMAIN, SPARE, whole=True)
    assert list(rows.in_order()) == [Reject(1, "truncated-gzip", "Date rec", of_object=True)]


HOSTILE = {
    "one lone quote": (line(1, '"never closed') + "".join(map(line, range(2, 800))))[:80_000],
    "all unclosed": line(1, '"never closed'),
    "all unopened": line(1, 'never opened"'),
    "closed by the next": line(1, '"plain\n",ACME').replace('"ACME', "ACME"),
    "a pair that goes on": '2024-01-01,a","\n',
    "opened in every line": ',,,,,"a\n',
    "quotes": '"\n',
    "pairs": '","\n',
    "doubled": '""""\n',
    "dates": "2023-01-15,\n",
    "junk": "a,b\n",
    "short": "a\n",
    "blank": "\n",
    "returns": "a\r",
    "NUL": "\0\n",
    "one line": "x",
    "one quoted line": '"',
    "commas": ",",
    "bytes": "\u00e9\n",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_each_byte_is_looked_at_a_few_times_whatever_it_says(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = 0
    text, count = Stretch.text, _Count.__init__

    def counted_text(self: Stretch, start: int, stop: int) -> str:
        nonlocal scanned
        scanned += stop - start
        return text(self, start, stop)

    def counted_count(self: _Count, stretch: Stretch, odd: int) -> None:
        nonlocal scanned
        scanned += len(stretch.data)
        count(self, stretch, odd)

    monkeypatch.setattr(Stretch, "text", counted_text)
    monkeypatch.setattr(_Count, "__init__", counted_count)
    work = []
    for size in (40_000, 80_000):
        scanned = 0
        body = (piece * (size // len(piece) + 1))[:size]
        rows = read(HEADER + body)
        assert sum(len(row.raw_text) for row in rows if isinstance(row, Reject)) <= 4 * size
        work.append(scanned)
    assert work[1] <= 2.2 * work[0]
    assert work[1] <= 20 * 80_000


@pytest.mark.parametrize("field", ['"a""', '""', "a,", ",2023-01-15", '"a",', "a "])
def test_a_long_line_takes_time_by_its_length(field: str) -> None:
    layout = read_header(list(COLUMNS), DOMAIN, SPARE)
    costs = []
    for size in (100_000, 200_000):
        text = field * (size // len(field)) + "\n"
        best = []
        for _ in range(5):
            started = time.process_time()
            for _ in range(3):
                assert not layout.parts_records(text, text)
                layout.starts_record(text)
                Doubtful(Stretch(text.encode(), layout, LIMIT << 4), 2, over=True, cut=None, damaged=False).row(0)
            best.append(time.process_time() - started)
        costs.append(min(best))
    assert costs[1] <= 3 * costs[0] + 0.01


@pytest.mark.parametrize("piece", ["a\n", "\n", ',,,,,"a\n', line(1, '"a\nb"')])
def test_a_stretch_is_gone_as_soon_as_its_rows_are_made(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stretches = list[weakref.ref[Stretch]]()
    make = Stretch.__init__

    def noted(self: Stretch, data: bytes, layout: Layout, max_record: int) -> None:
        stretches.append(weakref.ref(self))
        make(self, data, layout, max_record)

    monkeypatch.setattr(Stretch, "__init__", noted)
    gc.disable()
    try:
        for _ in split(blocks((HEADER + piece * 1000).encode(), 1000), Limits(1024, 1000), DOMAIN, SPARE, whole=True):
            assert not any(stretch() for stretch in stretches)
    finally:
        gc.enable()
    assert len(stretches) > 1


def test_what_lies_between_faults_is_read_as_if_there_were_none() -> None:
    """Every second record is broken, in a way that turns the count of quotes from even to odd and back."""
    pieces = [line(n, '"a\nb"') + line(n, '"open') for n in range(500)]
    rows = read(HEADER + "".join(pieces))
    assert ids(rows) == [found for n in range(500) for found in (str(n), "broken-quote")]


texts = st.text(
    st.sampled_from('ab ,"\n\r\xe9\U0001f600') | st.characters(exclude_categories=["Cs"], exclude_characters="\0")
)
dated = st.builds("{}\n2023-02-0{},{} said\n{}".format, texts, st.integers(1, 9), texts, texts)
narratives = st.one_of(st.just(""), texts, dated)


@st.composite
def valid(draw: st.DrawFn) -> bytes:
    free = {name: draw(texts) for name in draw(st.sets(st.sampled_from(["Product", "Issue", "Company", "Tags"])))}
    fields = dict.fromkeys(COLUMNS, "x") | free
    fields |= {"Date received": "2023-01-15", "Date sent to company": "2023-01-16", "Complaint ID": "123"}
    fields["Consumer complaint narrative"] = draw(narratives)
    marks = set('",\r\n') if draw(st.booleans()) else {*"".join(fields.values())}
    quoted = ('"' + text.replace('"', '""') + '"' if marks & {*text} else text for text in fields.values())
    return (",".join(quoted) + "\n").encode()


words = st.text(st.sampled_from("ab c\n"), max_size=20)
faults = st.sampled_from(
    ['"{}', '{}"', 'a"{}"', '"{}"b"', "{}\xff", '"{}', "{},,,", "\0{}", '"{}\0"', '"\xff{}"', "no\n{}"]
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    text = line(9, draw(faults).format(draw(words)))
    if draw(st.booleans()) and "\xff" not in text and "\0" not in text:
        text = text[: text.index(TAIL)] + "\n"
    return text.encode("latin-1")


@given(st.lists(st.tuples(st.just(b"") | broken(), valid()), max_size=6), st.sampled_from([1, 7, 64, 1 << 20]))
def test_every_valid_record_comes_back(plan: list[tuple[bytes, bytes]], size: int) -> None:
    rows = read(HEADER.encode() + b"".join(bad + good for bad, good in plan), size)
    expected = [next(csv.reader(io.StringIO(good.decode(), newline=""))) for _, good in plan]
    found = [[field or "" for field in row.fields.values()] for row in rows if isinstance(row, Record)]
    assert found == expected
    assert len(rows) >= len(plan) + sum(bad != b"" for bad, _ in plan)


@given(st.lists(valid() | broken(), max_size=6), st.integers(1, 50))
def test_rows_do_not_depend_on_how_the_bytes_arrive(pieces: list[bytes], size: int) -> None:
    data = HEADER.encode() + b"".join(pieces)
    assert read(data, size) == read(data)
