"""The marts against a reading of the same records that shares no code with the models."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.exceptions import AuditError
from assets.hashing import hash_tree
from assets.home import Home
from assets.settings import load_domain
from assets.settings.loading import CONFIGS, _domain
from assets.warehouse import composing
from assets.warehouse.composing import ENGINE
from assets.warehouse.marts import mart, mart_names
from assets.warehouse.project import (
    DBT,
    build_marts,
    building,
    built,
    explain_failure,
    manifest_path,
    rebuild,
)

LABELS = tuple(load_domain().labels)
MARTS = mart_names(load_domain())

FIELDS = (
    *("date_received", "product", "sub_product", "issue", "sub_issue", "narrative", "company_public_response"),
    *("company", "state", "zip_code", "tags", "consent", "channel", "date_sent_to_company", "company_response"),
    *("timely_response", "disputed", "complaint_id"),
)

# Names of the three taxonomies, and the label that the bureau's words put them in.
QUEUE_BY_NAME = {
    "Bank account or service": "bank_account",
    "Checking or savings account": "bank_account",
    "Credit card": "cards",
    "Credit card or prepaid card": "cards",
    "Prepaid card": "cards",
    "Consumer Loan": "consumer_loan",
    "Payday loan": "consumer_loan",
    "Payday loan, title loan, or personal loan": "consumer_loan",
    "Payday loan, title loan, personal loan, or advance loan": "consumer_loan",
    "Vehicle loan or lease": "consumer_loan",
    "Credit reporting": "credit_reporting",
    "Credit reporting or other personal consumer reports": "credit_reporting",
    "Credit reporting, credit repair services, or other personal consumer reports": "credit_reporting",
    "Debt collection": "debt_collection",
    "Money transfer, virtual currency, or money service": "money_transfer",
    "Money transfers": "money_transfer",
    "Virtual currency": "money_transfer",
    "Mortgage": "mortgage",
    "Debt or credit management": "other",
    "Other financial service": "other",
    "Student loan": "student_loan",
}


@dataclass
class Source:
    """One object: its records as dicts of fields, and the rejects of the reader as (line, reason, raw text)."""

    key: str
    records: list[dict[str, str | None]]
    rejects: list[tuple[int, str, str]] = field(default_factory=list)
    known_from: str | None = None
    withdrawn: str | None = None
    """Why it was withdrawn, of an object in which one record had landed."""

    @property
    def object_id(self) -> str:
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]


def land(home: Home, sources: list[Source], version: str) -> None:
    """Publish the sources as a version of raw_records, in the order given."""
    with home.lake.staging("raw_records") as folder:
        for name in ("records", "rejects"):
            (folder / name).mkdir()
        for source in sources:
            _write_source(folder, source)
        objects = [_object(source, seq) for seq, source in enumerate(sources)]
        pq.write_table(pa.Table.from_pylist(objects, schema=_OBJECTS), folder / "objects.parquet")
        home.lake.publish("raw_records", version, folder)


_OBJECTS = pa.schema(
    [(name, pa.string()) for name in ("object_id", "key", "sha256")]
    + [(name, pa.int64()) for name in ("bytes", "seq", "records", "rejects", "landed")]
    + [(name, pa.string()) for name in ("error", "known_from", "withdrawn")]
)


def _object(source: Source, seq: int) -> dict[str, Any]:
    records, rejects = len(source.records), len(source.rejects)
    counts = {
        "bytes": 1,
        "seq": seq,
        "records": records,
        "rejects": rejects,
        "landed": records + rejects + bool(source.withdrawn),
    }
    names = {"object_id": source.object_id, "key": source.key, "sha256": "", "known_from": source.known_from}
    return {**names, "error": None, "withdrawn": source.withdrawn, **counts}


def _write_source(folder: Path, source: Source) -> None:
    rows = [
        record
        | {"object_id": source.object_id, "line": line}
        | {"content_hash": hashlib.md5(json.dumps([record[name] for name in FIELDS]).encode()).hexdigest()}
        for line, record in enumerate(source.records, start=2)
    ]
    schema = pa.schema([(name, pa.string()) for name in (*FIELDS, "object_id")])
    schema = schema.append(pa.field("line", pa.int64())).append(pa.field("content_hash", pa.string()))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "records" / f"{source.object_id}.parquet")
    # A reader that rejects nothing writes no file of rejects.
    if source.rejects:
        rejected = [
            {"object_id": source.object_id, "line": line, "reason": reason, "raw_text": text}
            for line, reason, text in source.rejects
        ]
        pq.write_table(pa.Table.from_pylist(rejected), folder / "rejects" / f"{source.object_id}.parquet")


def record(record_id: str | None, received: str, **changes: str | None) -> dict[str, str | None]:
    """A record with every field filled, but for the changes."""
    fields: dict[str, str | None] = dict.fromkeys(FIELDS, "x")
    fields |= {"complaint_id": record_id, "date_received": received, "date_sent_to_company": received}
    fields |= {"product": "Mortgage", "company": "ACME", "state": "CA", "narrative": "They took my house"}
    return fields | changes


def build(home: Home) -> subprocess.CompletedProcess[str]:
    """Run `dbt build` as the asset does."""
    with building(home) as variables:
        return subprocess.run([*DBT, "build"], env=os.environ | variables, capture_output=True, text=True, check=False)


def read(home: Home, name: str, columns: str = "*") -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(f"select {columns} from read_parquet(?)", [mart(built(home), name)]).fetchall()


def random_sources(seed: int, records: int) -> list[Source]:
    """Three objects with everything in them: versions, duplicates, dirt, late labels, unmapped products, no text.

    The first is history; the others are known from the days on which they landed, in the midst of their records' dates.
    """
    chance = random.Random(seed)
    made: list[dict[str, str | None]] = []
    for number in range(records):
        made.append(_random_record(chance, number))
        if chance.random() < 0.15:
            made.append(_again(chance, chance.choice(made)))
    third = len(made) // 3
    parts = [made[:third], made[third : 2 * third], made[2 * third :]]
    sources = [Source(f"part-{number}.csv", part) for number, part in enumerate(parts)]
    sources[1].known_from, sources[2].known_from = LANDED
    sources.insert(1, Source("withdrawn.csv", [], withdrawn="another team's"))
    sources[2].rejects = [(9, "broken-quote", 'x,"y'), (12, "too-few-fields", "x")]
    return sources


LANDED = ("2023-07-20", "2023-09-15")

_DIRT: list[dict[str, str | None]] = [
    {"complaint_id": None},
    {"complaint_id": "  "},
    {"date_received": None},
    {"date_received": "2023-02-30"},
    {"date_received": "0023-05-01"},
    {"date_sent_to_company": "soon"},
]


def _random_record(chance: random.Random, number: int) -> dict[str, str | None]:
    day = date(2023, 5, 1) + timedelta(days=chance.randrange(200))
    sent = day + timedelta(days=chance.choice([-1, 0, 0, 1, 9, 40]))
    made = record(
        str(number),
        day.isoformat(),
        date_sent_to_company=chance.choice([sent.isoformat(), sent.isoformat(), None]),
        product=chance.choice([*QUEUE_BY_NAME, " mortgage ", "MORTGAGE", "Time machines", None]),
        company=chance.choice(["A", "B", "C", "D", None]),
        state=chance.choice(["CA", "TX", None]),
        narrative=chance.choice(["Text", None]),
    )
    if chance.random() < 0.08:
        made |= chance.choice(_DIRT)
    return made


def _again(chance: random.Random, earlier: dict[str, str | None]) -> dict[str, str | None]:
    if chance.random() < 0.4:
        return dict(earlier)
    day = date(2023, 5, 1) + timedelta(days=chance.randrange(220))
    received = chance.choice([earlier["date_received"], day.isoformat()])
    return earlier | {"date_received": received, "product": chance.choice(list(QUEUE_BY_NAME)), "narrative": "Changed"}


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    return random_sources(seed=5, records=700)


@pytest.fixture(scope="session")
def full(sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Everything landed at once, and built."""
    home = Home(tmp_path_factory.mktemp("full") / "it's a home {x} 100%")
    land(home, sources, "v1")
    done = build(home)
    assert done.returncode == 0, done.stdout
    return home


@dataclass(frozen=True)
class Version:
    """A valid record as these tests read it."""

    record_id: str
    received: date
    known: date
    label_known: date | None
    label: str | None
    company: str
    state: str
    text: str | None
    object_id: str
    line: int


def reading(sources: list[Source]) -> tuple[list[Version], dict[str, list[int]]]:
    """The valid records in order of reading, and landed, valid, quarantined and duplicate by object key."""
    seen: set[tuple[str, str]] = set()
    versions: list[Version] = []
    counts: dict[str, list[int]] = {}
    for source in sources:
        tally = [len(source.records) + len(source.rejects), 0, len(source.rejects), 0]
        for line, fields in enumerate(source.records, start=2):
            version = _version(source, line, fields)
            identity = (str(fields["complaint_id"]), json.dumps([fields[name] for name in FIELDS]))
            if version is None:
                tally[2] += 1
            elif identity in seen:
                tally[3] += 1
            else:
                tally[1] += 1
                versions.append(version)
                seen.add(identity)
        counts[source.key] = tally
    return versions, counts


def _version(source: Source, line: int, fields: dict[str, str | None]) -> Version | None:
    try:
        received = date.fromisoformat(fields["date_received"] or "")
        sent = date.fromisoformat(fields["date_sent_to_company"]) if fields["date_sent_to_company"] else None
    except ValueError:
        return None
    if not (fields["complaint_id"] or "").strip() or received.year < 2011:
        return None
    known = max(received, date.fromisoformat(source.known_from)) if source.known_from else received
    label_known = max(known, sent if sent else received + timedelta(days=7)) if fields["product"] else None
    labels = {name.lower(): label for name, label in QUEUE_BY_NAME.items()}
    label = labels.get((fields["product"] or "").strip().lower())
    company, state = fields["company"] or "unknown", fields["state"] or "unknown"
    record = str(fields["complaint_id"])
    place = (source.object_id, line)
    return Version(record, received, known, label_known, label, company, state, fields["narrative"], *place)


def visible(versions: list[Version], day: date) -> dict[str, Version]:
    """As of a day, the newest known version of each record."""
    return {version.record_id: version for version in versions if version.known <= day}


def first_visible(versions: list[Version]) -> list[Version]:
    """Each record as it was first known, with the first label that a version of it has."""
    days = sorted({version.known for version in versions})
    firsts: dict[str, Version] = {}
    for day in days:
        for record_id, version in visible(versions, day).items():
            first = firsts.setdefault(record_id, version)
            if first.label is None and version.label is not None:
                firsts[record_id] = replace(first, label=version.label, label_known=version.label_known)
    return list(firsts.values())


def test_every_record_ends_once(full: Home, sources: list[Source]) -> None:
    _, expected = reading(sources)
    rows = read(full, "record_counts", "object_key, landed, valid, quarantined, duplicate")
    assert {key: list(counts) for key, *counts in rows} == expected
    assert all(sum(counts[1:]) == counts[0] for _, *counts in rows)
    assert sum(min(counts) > 0 for _, *counts in rows) == 3
    withdrawn = read(full, "record_counts", "object_key, withdrawn")
    assert sorted(row for row in withdrawn if row[1]) == [("withdrawn.csv", 1)]


def test_quarantine_names_object_line_reason_and_text(full: Home, sources: list[Source]) -> None:
    rows = read(full, "quarantined_records", "object_key, line, reason, raw_text")
    reasons = {reason for _, _, reason, _ in rows}
    assert reasons == {"broken-quote", "too-few-fields", "empty-record-id", "impossible-date"}
    assert ("part-1.csv", 9, "broken-quote", 'x,"y') in rows
    by_key = {source.key: source for source in sources}
    for key, line, reason, text in rows:
        if reason == "impossible-date":
            fields = by_key[key].records[line - 2]
            assert text == ",".join(f'"{fields[name] or ""}"' for name in FIELDS)


def test_a_span_holds_the_newest_known_version(full: Home, sources: list[Source]) -> None:
    versions, _ = reading(sources)
    columns = "record_id, known_at, known_until, text, object_id, line"
    rows = read(full, "fct_records", columns)
    for day in [date(2023, 5, 1) + timedelta(days=offset) for offset in range(0, 230, 7)]:
        instant = datetime.combine(day, datetime.min.time())
        shown = {
            (record, text, object_id, line)
            for record, known, until, text, object_id, line in rows
            if known <= instant and (until is None or until > instant)
        }
        expected = {(v.record_id, v.text, v.object_id, v.line) for v in visible(versions, day).values()}
        assert shown == expected


def test_labels_follow_the_taxonomies_and_their_dates(full: Home, sources: list[Source]) -> None:
    versions = {(v.object_id, v.line): v for v in reading(sources)[0]}
    rows = read(full, "fct_records", "object_id, line, label, label_known_at, label_reason")
    for object_id, line, label, label_known_at, reason in rows:
        version = versions[object_id, line]
        assert (label, label_known_at and label_known_at.date()) == (version.label, version.label_known)
        assert reason == (None if label else "unmapped-label" if version.label_known else "no-label-yet")
    assert {label for _, _, label, _, _ in rows} == {*LABELS, None}
    assert len(read(full, "labels")) == sum(label is not None for _, _, label, _, _ in rows)


@pytest.mark.parametrize("entity", ["company", "state"])
def test_statistics_equal_a_count_by_hand(full: Home, sources: list[Source], entity: str) -> None:
    firsts = first_visible(reading(sources)[0])
    rows = read(full, f"{entity}_daily")
    assert len(rows) > 100
    for row in rows:
        expected = _by_hand([v for v in firsts if getattr(v, entity) == row[0]], row[1].date())
        assert row[2:] == pytest.approx(expected), row[:2]


def _by_hand(versions: list[Version], event: date) -> tuple[float, ...]:
    ages = [((event - version.received).days, version) for version in versions if version.known < event]
    counts = [sum(1 for age, _ in ages if age <= days) for days in (7, 30, 90)]
    texts = sum(1 for _, version in ages if version.text is not None)
    labels = [v.label for v in versions if v.label and v.label_known and v.label_known < event]
    shares = [labels.count(label) / len(labels) if labels else 0.0 for label in LABELS]
    return (*counts, texts / len(ages), len(labels), *shares)


@pytest.mark.parametrize("entity", ["company", "state"])
def test_statistics_have_a_row_on_every_day_of_change(full: Home, sources: list[Source], entity: str) -> None:
    """Between two rows nothing changes: looking at any day through the newest row gives that day's counts."""
    firsts = first_visible(reading(sources)[0])
    rows = sorted(read(full, f"{entity}_daily"))
    for name in {row[0] for row in rows}:
        mine = [version for version in firsts if getattr(version, entity) == name]
        for offset in range(20, 330, 11):
            event = date(2023, 5, 1) + timedelta(days=offset)
            newest = [row for row in rows if row[0] == name and row[1].date() <= event][-1]
            assert newest[2:] == pytest.approx(_by_hand(mine, event)), (name, event)


AS_IT_WAS = {
    "fct_records": """
        select * replace (case when known_until <= $day then known_until end as known_until) from read_parquet($path)
        where known_at <= $day
    """,
    "labels": """
        select * replace (case when known_until <= $day then known_until end as known_until) from read_parquet($path)
        where known_at <= $day
    """,
    "company_daily": "select * from read_parquet($path) where event_timestamp <= $day",
    "state_daily": "select * from read_parquet($path) where event_timestamp <= $day",
}


def as_of(home: Home, name: str, day: date) -> list[tuple[Any, ...]]:
    """What a mart says of a day and before."""
    with duckdb.connect() as connection:
        parameters = {"path": mart(built(home), name), "day": datetime.combine(day, datetime.min.time())}
        return connection.execute(f"{AS_IT_WAS[name]} order by all", parameters).fetchall()


def test_nights_equal_one_build_and_what_lands_later_changes_no_day_before(
    full: Home, sources: list[Source], tmp_path: Path
) -> None:
    home, last = Home(tmp_path / "it's a home {x} 100%"), date.fromisoformat(LANDED[1])
    land(home, sources[:-1], "v1")
    assert build(home).returncode == 0
    for name in AS_IT_WAS:
        before = as_of(home, name, last - timedelta(days=1))
        assert len(before) > 100
        assert before == as_of(full, name, last - timedelta(days=1)), name
    land(home, sources, "v2")
    published = built(home)
    kept = home.warehouse / "warehouse.duckdb"
    inode = kept.stat().st_ino
    assert build(home).returncode == 0
    assert kept.stat().st_ino == inode
    assert hash_tree(built(home)) == hash_tree(built(full))
    for name in AS_IT_WAS:
        before, now = (inodes(version / name) for version in (published, built(home)))
        assert 0 < len(now - before) < len(now), name


def inodes(folder: Path) -> set[int]:
    return {file.stat().st_ino for file in folder.iterdir()}


def random_nights(seed: int) -> list[Source]:
    """History and five nights: on one day two objects, one of rejects alone, one night without anything, one late."""
    chance = random.Random(seed)
    records = [row for source in random_sources(seed, 400) for row in source.records]
    cuts = sorted(chance.sample(range(1, len(records)), 4))
    parts = [records[start:end] for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True)]
    days = [None, *sorted(chance.choices(["2023-06-05", "2023-07-20", "2023-07-21", "2023-12-01"], k=4))]
    nights = [Source(f"{n}.csv", part, known_from=day) for n, (part, day) in enumerate(zip(parts, days, strict=True))]
    nights.insert(2, Source("1b.csv", [], [(2, "broken-quote", '"')], known_from=nights[1].known_from))
    return nights


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_nights_equal_one_build_after_each_and_after_a_withdrawal(tmp_path: Path, seed: int) -> None:
    nights, home, fresh = random_nights(seed), Home(tmp_path / "home"), Home(tmp_path / "fresh")
    for count in range(1, len(nights) + 1):
        land(home, nights[:count], f"v{count}")
        build_marts(home)
        build_marts(home)
        land(fresh, nights[:count], f"v{count}")
        rebuild(fresh, "to compare")
        build_marts(fresh)
        assert hash_tree(built(home)) == hash_tree(built(fresh)), count
    nights[3] = Source(nights[3].key, [], known_from=nights[3].known_from, withdrawn="another team's")
    for either in (home, fresh):
        land(either, nights, "withdrawn")
        rebuild(fresh, "to compare")
        build_marts(either)
    assert hash_tree(built(home)) == hash_tree(built(fresh))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of the engine's SQL and of the domain that are taken for them, in `engine` and `domain`."""
    return _taken_for_it(tmp_path, monkeypatch)


def _taken_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ENGINE, folder / "engine")
    shutil.copytree(CONFIGS.parent / "dbt", folder / "domain" / "dbt")
    (folder / "domain" / "configs").mkdir()
    shutil.copy(CONFIGS / "domain.yaml", folder / "domain" / "configs")
    monkeypatch.setattr(composing, "ENGINE", folder / "engine")
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(folder / "domain"))
    return folder


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    _domain.cache_clear()


@pytest.mark.slow
def test_objects_that_were_staged_before_follow_a_changed_project(tmp_path: Path, project: Path) -> None:
    home = Home(tmp_path / "home")
    land(home, [Source("one.csv", [record("1", "2024-01-02", date_sent_to_company=None)])], "v1")
    build_marts(home)
    _edit(project / "domain" / "configs" / "domain.yaml", "after_days: 7", "after_days: 9")
    build_marts(home)
    assert read(home, "labels", "label_known_at") == [(datetime(2024, 1, 11),)]


def _prepared(home: Home) -> bool:
    """Whether a build that begins now may add to the warehouse."""
    with building(home):
        return (home.warehouse / "warehouse.duckdb").exists()


def _built(home: Home, sources: list[Source], version: str) -> None:
    """As after a build."""
    land(home, sources, version)
    with building(home) as variables:
        with duckdb.connect(variables["EVERGREEN_WAREHOUSE"]) as connection:
            for name in MARTS:
                connection.execute(f"create table {name} ({_EVERY_KEY})")
        results = [{"unique_id": f"model.evergreen.{name}", "status": "success"} for name in MARTS]
        target = Path(variables["DBT_TARGET_PATH"])
        target.mkdir()
        (target / "run_results.json").write_text(json.dumps({"results": results}))


_EVERY_KEY = """
    record_id varchar, company varchar, state varchar, known_at timestamp, event_timestamp timestamp,
    object_id varchar, object_key varchar, line bigint, reason varchar, raw_text varchar, known_from date
"""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("domain/configs/domain.yaml", "after_days: 7", "after_days: 9"),
        ("domain/dbt/models/mapped_labels.sql", "nearness = 1", "nearness < 2"),
        ("domain/dbt/seeds/queue_by_product.csv", "Payday loan,", "Payday loans,"),
        ("engine/models/staging/stg_records.sql", "'unknown'", "'none'"),
        ("engine/macros/fields.sql", "%Y-%m-%d", "%d.%m.%Y"),
        ("engine/entities/daily.sql", "view", "table"),
    ],
)
def test_a_warehouse_of_another_project_is_rebuilt(
    tmp_path: Path, project: Path, file: str, old: str, new: str
) -> None:
    home = Home(tmp_path / "home")
    _built(home, [Source("a.csv", [])], "v1")
    _edit(project / file, old, new)
    assert not _prepared(home)


def test_a_warehouse_is_added_to_only_by_what_comes_after_all_that_is_in_it(tmp_path: Path) -> None:
    a, b, c = (Source(f"{name}.csv", []) for name in "abc")
    later = Source("a.csv", [], known_from="2024-01-01")
    withdrawn = Source("b.csv", [], withdrawn="not ours")
    for place, (before, after, kept) in enumerate(
        [
            ([a, b], [a, b], True),
            ([a, b], [a, b, c], True),
            ([a, c], [a, b, c], False),
            ([a, b], [b, a], False),
            ([a, b], [a], False),
            ([a, b], [a, withdrawn], False),
            ([a], [later], False),
        ]
    ):
        home = Home(tmp_path / str(place))
        _built(home, before, "v1")
        land(home, after, "v2")
        assert _prepared(home) is kept, place


def test_a_warehouse_whose_last_build_did_not_finish_is_rebuilt(tmp_path: Path) -> None:
    home = Home(tmp_path)
    _built(home, [Source("a.csv", [])], "v1")
    assert _prepared(home)
    assert not _prepared(home)


def test_a_warehouse_that_cannot_be_read_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = Home(tmp_path)
    _built(home, [Source("a.csv", [])], "v1")
    (home.warehouse / "warehouse.duckdb").write_bytes(b"no database" * 9)
    assert not _prepared(home)
    (said,) = caplog.messages
    assert said.startswith("rebuilding the warehouse from the lake: ")
    assert "warehouse.duckdb cannot be read: " in said
    assert "\n" not in said


def test_a_build_writes_its_results_and_neither_manifest_nor_log(full: Home) -> None:
    written = {path.name for path in (full.warehouse / "target").iterdir()}
    assert "run_results.json" in written
    assert not [name for name in written if "manifest" in name or name.endswith(".log")]


def test_a_wrong_command_is_said_as_dbt_says_it() -> None:
    done = subprocess.run([*DBT, "bild"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "No such command 'bild'.\n")


def test_a_lost_record_stops_the_build(tmp_path: Path) -> None:
    home = Home(tmp_path)
    source = Source("one.csv", [record(str(number), "2024-01-02") for number in range(8)])
    land(home, [source], "v1")
    _forget_a_record(home.lake.current("raw_records") / "records" / f"{source.object_id}.parquet")
    done = build(home)
    assert done.returncode == 1
    with pytest.raises(AuditError, match="no marts are staged"):
        built(home)
    explanation = str(explain_failure(home, done.stdout))
    assert "record_counts_conserve_what_landed" in explanation


def _forget_a_record(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def test_the_graph_publishes_what_passed_and_stops_at_what_did_not(home: Home) -> None:
    import dagster as dg

    from assets.resources import Evergreen
    from assets.validation.definitions import mart_audit, marts
    from assets.warehouse.definitions import warehouse

    def materialize(assets: list[Any], as_of: str) -> dg.ExecuteInProcessResult:
        given: dict[str, Any] = {"partition_key": as_of, "resources": {"evergreen": Evergreen()}}
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("as_of", [as_of])
            return dg.materialize(assets, **given, instance=instance, raise_on_error=False)

    land(home, [Source("clean.csv", [record(str(number), "2024-01-02") for number in range(20)])], "v2")
    good = materialize([warehouse, mart_audit, marts], "2024-01-10")
    assert good.success
    version = home.lake.version("marts")
    assert {event.asset_key.to_user_string() for event in good.get_asset_materialization_events()} >= {*MARTS, "marts"}
    assert len(good.get_asset_check_evaluations()) > 20
    assert all(
        check.passed for check in good.get_asset_check_evaluations() if check.check_name != "warning_expectations"
    )
    stale = materialize([mart_audit, marts], "2024-09-01")
    assert not stale.success
    said = {check.check_name: check.description for check in stale.get_asset_check_evaluations()}
    assert "publication: The newest known record is at most 60 days old" in str(said["critical_expectations"])
    assert not stale.asset_materializations_for_node("marts")
    assert home.lake.version("marts") == version


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_behind(full: Home, sources: list[Source], tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, sources, "v1")
    chance = random.Random(3)
    for _ in range(6):
        with building(home) as variables:
            environment = os.environ | variables
            with subprocess.Popen([*DBT, "build"], env=environment, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                for _ in range(chance.randint(1, 40)):
                    assert process.stdout.readline()
                process.kill()
    assert build(home).returncode == 0
    assert hash_tree(built(home)) == hash_tree(built(full))


@pytest.mark.slow
def test_a_checkout_may_have_a_quote_and_a_space_in_its_path(
    sources: list[Source], full: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    _taken_for_it(tmp_path / "it's a checkout", monkeypatch)
    land(home, sources, "v1")
    build_marts(home)
    assert hash_tree(built(home)) == hash_tree(built(full))


def test_the_manifest_is_parsed_once_and_the_folders_it_is_made_of_stay_clean(tmp_path: Path) -> None:
    folders = (ENGINE, CONFIGS.parent / "dbt")
    before = [sorted(folder.rglob("*")) for folder in folders]
    manifest = manifest_path(Home(tmp_path))
    written = manifest.stat().st_mtime_ns
    assert manifest_path(Home(tmp_path)).stat().st_mtime_ns == written
    nodes = json.loads(manifest.read_text())["nodes"]
    assert {f"model.evergreen.{mart}" for mart in MARTS} <= nodes.keys()
    assert [sorted(folder.rglob("*")) for folder in folders] == before


def test_every_model_says_what_a_row_is() -> None:
    folders = [*(ENGINE / part for part in ("models", "mapping", "entities")), CONFIGS.parent / "dbt" / "models"]
    for folder in folders:
        models = list(folder.rglob("*.sql"))
        assert models, folder
        for path in models:
            assert re.search(r"[Oo]ne row per", path.with_suffix(".yml").read_text()), path.name
