"""Small marts, made by hand: what validation would have published."""

import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from assets.hashing import hash_json
from assets.home import Home
from assets.settings import Domain, SnapshotSettings, load_domain
from assets.warehouse.marts import partition_file

LABELS = tuple(load_domain().labels)

START = datetime(2020, 1, 1)
AS_OF = "2020-03-15"
WORDS = ("bank", "card", "loan", "fee", "report", "dispute", "score", "letter", "house", "phone", "agent", "account")

Record = dict[str, Any]
Object = tuple[str, str | None, list[Record]]
"""Its id, the day from which it is known, and its records."""
Publish = Callable[..., Path]


def record(number: int, day: int, rng: random.Random, **changes: Any) -> Record:
    known_at = START + timedelta(days=day)
    return {
        "record_id": f"{number:05}",
        "known_at": known_at,
        "known_until": None,
        "text": " ".join(rng.choice(WORDS) + rng.choice("abcdefgh") for _ in range(rng.randint(8, 30))),
        "company": rng.choice(["ACME BANK", "BETA", "GAMMA CREDIT", "unknown"]),
        "state": rng.choice(["NY", "CA", "unknown"]),
        "zip_code": rng.choice(["100XX", None]),
        "tags": rng.choice([None, "Older American", "Servicemember", "Older American, Servicemember"]),
        "channel": rng.choice(["Web", "Phone", "Postal mail", "Referral", None]),
        "label": rng.choice(LABELS),
        "label_known_at": known_at + timedelta(days=rng.choice([0, 0, 1, 7])),
        "label_reason": None,
        "object_id": "0" * 16,
        "line": number + 2,
    } | changes


def records(days: int = 90, per_day: int = 6, seed: int = 0) -> list[Record]:
    rng = random.Random(seed)
    return [record(day * per_day + n, day, rng) for day in range(days) for n in range(per_day)]


def statistics(key: str, labels: Sequence[str]) -> str:
    """One row per key and day, by brute force: slow and obviously right."""
    shares = ", ".join(
        f"(case when labels.n = 0 then 0 else labels.{label} / labels.n end)::double as {key}_share_{label}"
        for label in labels
    )
    counts = ", ".join(f"count(*) filter (label = '{label}') as {label}" for label in labels)
    windows = ", ".join(
        f"count(*) filter (known_at >= day - interval {n} day) as {key}_records_{n}d" for n in (7, 30, 90)
    )
    return f"""
        with days as (
            select distinct k.{key}, d.day from fct k, (
                select unnest(generate_series(
                    date_trunc('day', min(known_at)), max(known_at) + interval 100 day, interval 1 day
                )) as day
                from fct
            ) d
        )
        select days.{key}, days.day as event_timestamp, seen.* exclude (n, share),
            seen.share as {key}_text_share, labels.n as {key}_labels, {shares}
        from days,
            lateral (select count(*) as n, count(text) / count(*) as share, {windows} from fct c
                where c.{key} = days.{key} and c.known_at < day) seen,
            lateral (select count(*) as n, {counts} from fct c
                where c.{key} = days.{key} and c.label_known_at < day and c.label is not null) labels
        where seen.n > 0
    """


def publish_raw(home: Home, objects: list[Object], withdrawn: Sequence[str] = ()) -> pa.Table:
    """Objects as ingestion would have published them, each with its id, its day and its records; their counts.

    Of those withdrawn by then there are no records left, and nothing counts.
    """
    counts = []
    with home.lake.staging("raw_records") as staged:
        (staged / "records").mkdir()
        for seq, (object_id, known_from, rows) in enumerate(objects):
            out = object_id in withdrawn
            records = [] if out else [raw_record(home.domain, object_id, row) for row in rows]
            names = ("object_id", "content_hash", *home.domain.source.fields)
            schema = pa.schema([(name, pa.string()) for name in names])
            table = pa.Table.from_pylist(records, schema.append(pa.field("line", pa.int64())))
            pq.write_table(table, staged / "records" / f"{object_id}.parquet")
            named = {"object_id": object_id, "seq": seq, "known_from": known_from, "landed": len(rows)}
            counts.append(named | {"withdrawn": "not ours" if out else None})
        kinds = [(name, pa.string()) for name in ("object_id", "known_from", "withdrawn")]
        landed = pa.Table.from_pylist(counts, pa.schema([*kinds, ("seq", pa.int64()), ("landed", pa.int64())]))
        pq.write_table(landed, staged / "objects.parquet")
        home.lake.publish("raw_records", hash_json(counts)[:16], staged)
    return landed.filter(pc.is_null(landed["withdrawn"]))


PRODUCTS = {
    "bank_account": "Checking or savings account",
    "cards": "Credit card",
    "consumer_loan": "Vehicle loan or lease",
    "credit_reporting": "Credit reporting",
    "debt_collection": "Debt collection",
    "money_transfer": "Money transfers",
    "mortgage": "Mortgage",
    "other": "Other financial service",
    "student_loan": "Student loan",
}
"""A product of each label."""


def raw_record(domain: Domain, object_id: str, row: Record) -> dict[str, Any]:
    """The record of which the marts made a row."""
    known = domain.label.known.field
    return {
        **{name: None if row[name] == "unknown" else row[name] for name in domain.known},
        "object_id": object_id,
        "content_hash": hashlib.md5(repr(row).encode()).hexdigest(),
        domain.id: row["record_id"],
        **dict(zip(domain.text.fields, (row["text"] or "").split("\n") if row["text"] else (None,), strict=False)),
        **dict(zip(domain.label.fields, label_values(domain, row["label"]), strict=True)),
        domain.received.field: written(domain, domain.received.field, row["known_at"]),
        **({known: written(domain, known, row["label_known_at"])} if known else {}),
        "line": row["line"],
    }


def label_values(domain: Domain, label: str | None) -> Sequence[str | None]:
    """Of complaints a product; else what people call a label, or the words of its name."""
    if label is None:
        return [None] * len(domain.label.fields)
    if len(domain.label.fields) > 1:
        return label.split("_")
    return [PRODUCTS.get(label, domain.labels[label].upper())]


def written(domain: Domain, field: str, instant: datetime | None) -> str | None:
    """As the source writes it: an instant in the time of another zone, to the second."""
    if instant is None:
        return None
    if domain.source.fields[field].type == "instant":
        return instant.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=-5))).isoformat()
    return instant.strftime(domain.source.fields[field].formats[-1])


def publish_marts(
    home: Home,
    rows: list[Record],
    version: str = "v1",
    shuffled: int | None = None,
    landed: list[Object] | None = None,
    withdrawn: Sequence[str] = (),
) -> Path:
    """`landed` are the objects that the rows are said to be of; by default one of history that holds them all."""
    rows = random.Random(shuffled).sample(rows, len(rows)) if shuffled is not None else rows
    order = "random()" if shuffled is not None else "all"
    kinds = {"line": pa.int64()} | {n: pa.timestamp("us") for n in ("known_at", "known_until", "label_known_at")}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    with home.lake.staging("marts") as staged, duckdb.connect() as connection:
        connection.register("fct", pa.Table.from_pylist(rows, schema))
        labels = list(home.domain.labels)
        tables = {f"{entity}_daily": statistics(entity, labels) for entity in home.domain.entities}
        counted = publish_raw(home, landed or [("0" * 16, None, rows)], withdrawn)
        pq.write_table(counted, partition_file(staged, "record_counts", "all"))
        for name, sql in (tables | {"fct_records": "from fct"}).items():
            connection.execute(f"copy (from ({sql}) order by {order}) to '{partition_file(staged, name, 'all')}'")
        return home.lake.publish("marts", version, staged)


@pytest.fixture
def make_records() -> Callable[..., list[Record]]:
    return records


@pytest.fixture
def publish() -> Publish:
    return publish_marts


@pytest.fixture
def settings() -> SnapshotSettings:
    return SnapshotSettings(
        test_rows=40,
        min_train_rows=50,
        max_train_rows=200,
        max_copies=None,
        near_duplicate_similarity=0.7,
        reference_share=0.1,
        reference_rows=15,
        max_adversarial_auc=0.8,
    )


@pytest.fixture
def marts(home: Home) -> Path:
    return publish_marts(home, records())
