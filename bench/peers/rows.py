"""Records as a snapshot's training rows: the real ones where they are there, and simulated ones elsewhere."""

import csv
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets.ingestion.reading import read_rows
from assets.ingestion.records import Record
from assets.settings import load_domain, load_settings
from complaints.simulation import simulate

__all__ = ["write_rows"]

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "cfpb"


def write_rows(folder: Path, count: int) -> None:
    """Write train.parquet: records with different beginnings, in random order."""
    if not REAL.is_dir():
        simulate(folder / "source", date(2024, 1, 1), date(2024, 6, 30), 10 + count // 60, 7, "calm")
    domain = load_domain()
    files = sorted((REAL if REAL.is_dir() else folder / "source").glob("*.csv*"))
    found = (row for file in files for row in read_rows(file, load_settings("full").ingestion, domain, outcomes=True))
    label_of = _labels()
    rows = {
        text[:120]: (label, text, row.fields["company"] or "unknown", row.fields["state"] or "unknown")
        for row in found
        if isinstance(row, Record) and (text := row.fields["narrative"]) and (label := label_of(row))
    }
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    columns = zip(*[list(rows.values())[i] for i in order], strict=True)
    names = ("label", "text", "company", "state")
    pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), folder / "train.parquet")


def _labels() -> Callable[[Record], str | None]:
    """What the seed says about a record's product on the day that it came in."""
    with (ROOT / "dbt/seeds/queue_by_product.csv").open() as file:
        seed = list(csv.DictReader(file))

    def label_of(row: Record) -> str | None:
        received = (row.fields["date_received"] or "")[:10]
        matches = (
            entry["queue"]
            for entry in seed
            if entry["product"] == row.fields["product"] and entry["valid_from"] <= received
            if not entry["valid_to"] or received <= entry["valid_to"]
        )
        return next(matches, None)

    return label_of
