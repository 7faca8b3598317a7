"""The marts of other domains: instants with zones, labels of two fields that come later, two entities or none."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from assets.hashing import hash_tree
from assets.home import Home
from assets.warehouse.marts import mart
from assets.warehouse.project import build_marts, built

Record = dict[str, str | None]

REQUESTS: dict[str, Any] = {
    "name": "requests",
    "title": "Requests",
    "purpose": "Says which team answers a request.",
    "record": {"one": "request", "many": "requests"},
    "source": {
        "fields": {
            "number": {"type": "number"},
            "opened": {"type": "instant", "formats": ["%d.%m.%Y %H:%M %z"]},
            **{name: {} for name in ("title", "body", "product", "customer", "language")},
            **{name: {"outcome": True} for name in ("area", "kind")},
            "resolved": {"type": "instant", "outcome": True},
        }
    },
    "id": "number",
    "received": {"field": "opened", "not_before": "2020-01-01"},
    "label": {"one": "team", "many": "teams", "fields": ["area", "kind"], "known": {"field": "resolved"}},
    # One of the labels has the name of an entity, and what people call another has a quote and braces.
    "labels": {"billing": "Billing", "product": "Product", "engineering": "People's {{ engineers }}"},
    "entities": ["product", "customer"],
    "request": ["language"],
    "text": {"fields": ["title", "body"]},
}
MAPPED = """
select area, kind, received_at,
    case when area = 'money' then 'billing' when area = 'it' and kind is null then 'engineering'
        when area is null then 'product' end as label
from {{ ref('label_values') }}
where area is distinct from 'moon'
"""

REVIEWS: dict[str, Any] = {
    **{name: REQUESTS[name] for name in ("title", "purpose", "record", "labels")},
    "name": "reviews",
    "source": {
        "fields": {
            "id": {},
            "day": {"type": "day", "formats": ["%d.%m.%Y"]},
            "text": {},
            "verdict": {"outcome": True},
        }
    },
    "id": "id",
    "received": {"field": "day"},
    "label": {"one": "verdict", "many": "verdicts", "fields": ["verdict"], "known": {"after_days": 0}},
    "text": {"fields": ["text"]},
}


@dataclass(frozen=True)
class Source:
    """An object and its records; a field that one leaves out is empty."""

    key: str
    records: list[Record]
    known_from: str | None = None


def be(domain: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, mapped: str | None = None) -> Path:
    """Run as this domain, which is written into a folder."""
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "domain.yaml").write_text(yaml.safe_dump(domain, sort_keys=False))
    if mapped:
        (folder / "dbt" / "models").mkdir(parents=True)
        (folder / "dbt" / "models" / "mapped_labels.sql").write_text(mapped)
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(folder))
    return folder


def build(home: Home, sources: list[Source]) -> None:
    """Publish the sources as raw records, in the order given, and build the marts."""
    publish(home, sources)
    build_marts(home)


def publish(home: Home, sources: list[Source]) -> None:
    fields = list(home.domain.source.fields)
    with home.lake.staging("raw_records") as folder:
        (folder / "records").mkdir()
        (folder / "rejects").mkdir()
        for source in sources:
            rows = [
                {name: record.get(name) for name in fields}
                | {
                    "object_id": source.key,
                    "line": line,
                    "content_hash": hashlib.md5(repr(record).encode()).hexdigest(),
                }
                for line, record in enumerate(source.records, start=2)
            ]
            kinds = [*((name, pa.string()) for name in (*fields, "object_id", "content_hash")), ("line", pa.int64())]
            pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), folder / "records" / f"{source.key}.parquet")
        pq.write_table(
            pa.Table.from_pylist([_object(*each) for each in enumerate(sources)], _OBJECTS), folder / "objects.parquet"
        )
        home.lake.publish("raw_records", f"v{len(sources)}", folder)


_OBJECTS = pa.schema(
    [(name, pa.string()) for name in ("object_id", "key", "error", "known_from", "withdrawn")]
    + [(name, pa.int64()) for name in ("seq", "landed")]
)


def _object(seq: int, source: Source) -> dict[str, Any]:
    found = {"object_id": source.key, "key": source.key, "known_from": source.known_from}
    return {**found, "error": None, "withdrawn": None, "seq": seq, "landed": len(source.records)}


def read(home: Home, name: str, columns: str = "*") -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        query = f"select {columns} from read_parquet(?) order by all"
        return connection.execute(query, [mart(built(home), name)]).fetchall()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


FIRST = Source(
    "first",
    [
        {"number": "1", "opened": "2024-01-02T23:30:00-05:00", "title": "Help", "product": "P"},
        {"number": "2", "opened": "2024-01-03 10:00", "title": "Down", "body": "Since\nnoon", "product": "P"}
        | {"customer": "C", "language": "de", "area": "it", "resolved": "2024-01-04T01:00:00+02:00"},
        {"number": "3", "opened": "03.01.2024 12:00 +0100", "area": "moon", "kind": "x", "resolved": "2024-01-05"},
        {"number": "4", "opened": "2019-12-31T23:00:00Z", "title": "Too early"},
        {"number": "5", "opened": "2024-01-03", "area": "it", "title": "Not resolved"},
        {"number": "6", "opened": "2024-01-03", "area": "it", "resolved": "soon"},
    ],
)
RESOLVED = Source(
    "resolved",
    [
        {"number": "1", "opened": "2024-01-02T23:30:00-05:00", "title": "Help", "product": "P"}
        | {"area": "money", "kind": "late", "resolved": "2024-01-09T12:00:00Z"}
    ],
    known_from="2024-01-10",
)
UNKNOWN, MIDNIGHT = "unknown", at("2024-01-03")


def test_rows_are_as_counted_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = be(REQUESTS, tmp_path / "requests", monkeypatch, MAPPED)
    before = sorted(domain.rglob("*"))
    monkeypatch.setenv("TZ", "America/New_York")
    home = Home(tmp_path / "home")
    build(home, [FIRST])
    build(home, [FIRST, RESOLVED])
    columns = "record_id, known_at, known_until, text, product, customer, language, label, label_known_at, label_reason"
    assert read(home, "fct_records", columns) == [
        ("1", at("2024-01-03 04:30"), at("2024-01-10"), "Help", "P", UNKNOWN, None, None, None, "no-label-yet"),
        ("1", at("2024-01-10"), None, "Help", "P", UNKNOWN, None, "billing", at("2024-01-10"), None),
        (
            "2",
            at("2024-01-03 10:00"),
            None,
            "Down\nSince\nnoon",
            "P",
            "C",
            "de",
            "engineering",
            at("2024-01-03 23:00"),
            None,
        ),
        ("3", at("2024-01-03 11:00"), None, None, UNKNOWN, UNKNOWN, None, None, at("2024-01-05"), "unmapped-label"),
        ("5", MIDNIGHT, None, "Not resolved", UNKNOWN, UNKNOWN, None, None, None, "no-label-yet"),
    ]
    assert read(home, "quarantined_records", "line, reason") == [(5, "impossible-date"), (7, "impossible-date")]
    # Two are known on the third, one's label on that day, the other's on the tenth: each counts from the next day on.
    names = ("product", "event_timestamp", *(f"product_records_{days}d" for days in (7, 30, 90)))
    names += ("product_text_share", "product_labels", *(f"product_share_{label}" for label in REQUESTS["labels"]))
    assert [row for row in read(home, "product_daily", ", ".join(names)) if row[0] == "P"] == [
        ("P", at("2024-01-04"), 2, 2, 2, 1.0, 1, 0.0, 0.0, 1.0),
        ("P", at("2024-01-11"), 0, 2, 2, 1.0, 2, 0.5, 0.0, 0.5),
        ("P", at("2024-02-03"), 0, 0, 2, 1.0, 2, 0.5, 0.0, 0.5),
        ("P", at("2024-04-03"), 0, 0, 0, 1.0, 2, 0.5, 0.0, 0.5),
    ]
    assert sorted(domain.rglob("*")) == before


def test_a_label_may_be_its_name_or_what_people_call_it_in_a_domain_without_entities_or_sql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(REVIEWS, tmp_path / "reviews", monkeypatch)
    home = Home(tmp_path / "home")
    said = [" BILLING ", "people's {{ ENGINEERS }}", "product", "Else", None]
    days = ["2024-01-03", "03.01.2024"]
    first, second = (
        Source(day, [{"id": f"{day} {value}", "day": day, "verdict": value, "text": "t"} for value in said])
        for day in days
    )
    build(home, [first])
    build(home, [first, second])
    columns = "received_at, label, label_known_at, label_reason"
    expected = [
        (MIDNIGHT, "billing", MIDNIGHT, None),
        (MIDNIGHT, "engineering", MIDNIGHT, None),
        (MIDNIGHT, "product", MIDNIGHT, None),
        (MIDNIGHT, None, MIDNIGHT, "unmapped-label"),
        (MIDNIGHT, None, None, "no-label-yet"),
    ]
    assert read(home, "fct_records", columns) == [row for row in expected for _ in days]
    assert {path.name for path in built(home).iterdir() if path.is_dir()} == {
        *("fct_records", "labels", "quarantined_records", "record_counts"),
    }


def random_sources(seed: int) -> list[Source]:
    """History and nights in which requests are opened, opened again, resolved, and resolved otherwise."""
    chance = random.Random(seed)
    start = datetime(2024, 3, 1, tzinfo=UTC)
    landed = [None, "2024-03-20", "2024-04-02", "2024-04-02", "2024-05-01"]
    open_ones: list[Record] = []
    sources = []
    for place, day in enumerate(landed):
        records = [dict(chance.choice(open_ones)) for _ in range(8 * bool(place))]
        for record in records:
            record |= _resolution(chance, start) if chance.random() < 0.7 else {"title": "Again"}
        for number in range(30):
            opened = start + timedelta(minutes=chance.randrange(90_000))
            record = {
                "number": f"{place}-{number}",
                "opened": opened.isoformat(),
                "title": chance.choice(["Text", None]),
            }
            record |= {"product": chance.choice("PQR"), "customer": chance.choice(["C", "D", None])}
            open_ones.append(record)
            records.append(record | _resolution(chance, start) if chance.random() < 0.3 else record)
        sources.append(Source(f"night-{place}", records, day))
    return sources


def _resolution(chance: random.Random, start: datetime) -> Record:
    resolved = start + timedelta(minutes=chance.randrange(120_000))
    said = {"area": chance.choice(["money", "it", "moon", None]), "kind": chance.choice(["late", None])}
    return {**said, "resolved": chance.choice([resolved.isoformat(), None])}


@dataclass(frozen=True)
class Version:
    """A record as these tests read it."""

    record_id: str
    received: datetime
    known: datetime
    product: str
    customer: str
    text: str | None
    label: str | None
    label_known: datetime | None


def visible(sources: list[Source]) -> list[Version]:
    """The versions that were ever the newest known one, by the instant at which they became known."""
    first_readings: dict[str, Version] = {}
    for source in sources:
        for record in source.records:
            first_readings.setdefault(repr(record), _version(source, record))
    versions = list(first_readings.values())
    return sorted(
        (
            version
            for place, version in enumerate(versions)
            if not any(v.record_id == version.record_id and v.known <= version.known for v in versions[place + 1 :])
        ),
        key=lambda version: version.known,
    )


def _version(source: Source, record: Record) -> Version:
    received = at(record["opened"] or "").replace(tzinfo=None)
    known = max(received, at(source.known_from)) if source.known_from else received
    resolved = at(text).replace(tzinfo=None) if (text := record.get("resolved")) else None
    area, kind = record.get("area"), record.get("kind")
    mapped = {"money": "billing", "it": None if kind else "engineering", None: "product" if kind else None}.get(area)
    label = mapped if resolved else None
    places = str(record["product"]), record["customer"] or UNKNOWN
    label_known = max(known, resolved) if resolved and label else None
    return Version(str(record["number"]), received, known, *places, record["title"], label, label_known)


def first_known(versions: list[Version]) -> list[Version]:
    """Each record as it was first known, with the first label that a version of it has."""
    firsts: dict[str, Version] = {}
    for version in versions:
        first = firsts.setdefault(version.record_id, version)
        if first.label is None and version.label is not None:
            firsts[version.record_id] = replace(first, label=version.label, label_known=version.label_known)
    return list(firsts.values())


def by_hand(versions: list[Version], event: datetime) -> Iterator[float]:
    """What was known on a midnight of the days before it."""
    known = [version for version in versions if version.known < event]
    for days in (7, 30, 90):
        since = event - timedelta(days=days)
        yield sum(version.received >= since for version in known)
    yield sum(version.text is not None for version in known) / len(known)
    labels = [version.label for version in versions if version.label_known and version.label_known < event]
    yield len(labels)
    for label in REQUESTS["labels"]:
        yield labels.count(label) / len(labels) if labels else 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nights_equal_one_build_where_labels_come_with_later_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    be(REQUESTS, tmp_path / "requests", monkeypatch, MAPPED)
    sources, nightly, whole = random_sources(seed), Home(tmp_path / "nightly"), Home(tmp_path / "whole")
    for count in range(1, len(sources) + 1):
        build(nightly, sources[:count])
    build(whole, sources)
    assert hash_tree(built(nightly)) == hash_tree(built(whole))
    versions = visible(sources)
    found = read(whole, "fct_records", "known_at, record_id, label, text")
    assert sorted(found, key=repr) == sorted(((v.known, v.record_id, v.label, v.text) for v in versions), key=repr)
    firsts = first_known(versions)
    assert sum(v.label_known is not None and v.label_known > v.known + timedelta(days=1) for v in firsts) > 5
    for entity in ("product", "customer"):
        names = f"{entity}, event_timestamp, {entity}_records_7d, {entity}_records_30d, {entity}_records_90d, "
        names += f"{entity}_text_share, {entity}_labels, "
        names += ", ".join(f"{entity}_share_{label}" for label in REQUESTS["labels"])
        for name, event, *figures in read(whole, f"{entity}_daily", names):
            expected = by_hand([version for version in firsts if getattr(version, entity) == name], event)
            assert figures == pytest.approx(list(expected)), (name, event)


@pytest.mark.parametrize("lands", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_field_that_a_domain_gains_is_null_in_what_landed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    be(REVIEWS, tmp_path / "before", monkeypatch)
    home = Home(tmp_path / "home")
    first = Source("first", [{"id": "1", "day": "03.01.2024", "text": "Fine", "verdict": "Billing"}])
    build(home, [first])
    raw = home.lake.current("raw_records") / "records" / "first.parquet"
    table = pq.read_table(raw)
    later = dict(REVIEWS) | {"request": ["shop"]}
    later["source"] = {"fields": REVIEWS["source"]["fields"] | {"shop": {"required": False}}}
    be(later, tmp_path / "later", monkeypatch)
    second = Source("second", [{"id": "2", "day": "04.01.2024", "text": "Fine", "verdict": "Billing", "shop": "north"}])
    publish(home, [first, second] if lands else [first])
    pq.write_table(table, home.lake.current("raw_records") / "records" / "first.parquet")
    build_marts(home)
    assert read(home, "fct_records", "record_id, shop") == [("1", None), *([("2", "north")] if lands else [])]
