import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from assets.settings import Domain, IngestionSettings, load_domain, load_settings
from complaints.simulation.world import COLUMNS

HEADER = ",".join(COLUMNS) + "\n"


@pytest.fixture
def settings() -> IngestionSettings:
    return load_settings("quick").ingestion.model_copy(update={"batch_records": 1000})


@pytest.fixture
def complaint() -> Callable[..., list[str]]:
    """A plain, valid complaint; fields are overridden by our names for them."""

    def make(number: int, **fields: str) -> list[str]:
        values = dict.fromkeys(load_domain().source.fields, "") | {
            "date_received": "2023-01-15",
            "product": "Credit card",
            "issue": "Fees, interest",
            "narrative": "They charged me twice.",
            "company": "ACME BANK, N.A.",
            "state": "CA",
            "channel": "Web",
            "date_sent_to_company": "2023-01-16",
            "timely_response": "Yes",
            "complaint_id": str(number),
        }
        assert fields.keys() <= values.keys()
        return list((values | fields).values())

    return make


@pytest.fixture
def as_csv() -> Callable[[Iterable[list[str]]], str]:
    """Records as CSV text, quoted where they must be, without a header."""

    def write(rows: Iterable[list[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    return write


@pytest.fixture
def write_csv(
    as_csv: Callable[[Iterable[list[str]]], str],
) -> Callable[[Path, Iterable[list[str]]], Path]:
    """Write a CSV file with the official header."""

    def write(path: Path, rows: Iterable[list[str]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((HEADER + as_csv(rows)).encode())
        return path

    return write


@pytest.fixture(scope="session")
def domain_of() -> Callable[..., Domain]:
    """A domain whose source has these fields, `id`, `at`, `body` and `queue` in the roles of their names."""

    def make(fields: dict[str, dict[str, Any]], delimiter: str = ",") -> Domain:
        needed: dict[str, Any] = {
            **{"name": "tickets", "title": "t", "purpose": "p", "record": {"one": "ticket", "many": "tickets"}},
            **{
                "id": "id",
                "received": {"field": "at"},
                "text": {"fields": [n for n in ("title", "body") if n in fields]},
            },
            "label": {"one": "queue", "many": "queues", "fields": ["queue"], "known": {"after_days": 0}},
            "labels": {"a": "A", "b": "B"},
            "entities": [name for name in ("customer",) if name in fields],
        }
        return Domain.model_validate({**needed, "source": {"delimiter": delimiter, "fields": fields}})

    return make
