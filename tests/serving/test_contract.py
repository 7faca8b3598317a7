"""Requests in the fields of another domain, whose labels are values of the source and whose times are instants."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from assets.home import Home
from assets.ingestion.reading import read_rows
from assets.serving.contract import Contract
from assets.settings import load_domain, load_serving_settings, load_settings

TICKETS = Path(__file__).parents[2] / "examples" / "tickets"
SETTINGS = load_settings("quick")


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch) -> Contract:
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(TICKETS))
    return Contract(load_domain(), SETTINGS.ingestion, load_serving_settings())


def body(**fields: Any) -> bytes:
    return json.dumps({"records": [{"id": "T-1", "created_at": "2024-05-01T10:00:00Z"} | fields]}).encode()


def test_a_record_is_the_one_that_a_file_would_hold(contract: Contract, tmp_path: Path) -> None:
    text = "Grüße, “ça va”?\n“дом”"
    (asked,) = contract.records(body(subject=text, body="", customer="A & B", plan=None))
    line = {"id": "T-1", "created_at": "2024-05-01T10:00:00Z", "subject": text, "body": ""}
    line |= {"customer": {"id": "A & B", "plan": None}, "product": None, "channel": None, "language": None}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    (read,) = read_rows(tmp_path / "a.jsonl", SETTINGS.ingestion, load_domain())
    assert (asked.fields, asked.content_hash) == (read.fields, read.content_hash)  # type: ignore[union-attr]


def test_without_a_time_a_record_is_of_now_as_the_domain_writes_it(contract: Contract) -> None:
    (asked,) = contract.records(b'{"records": [{"id": 7}]}')
    assert asked.fields["id"] == "7"
    assert asked.fields["created_at"][:2] == "20"  # type: ignore[index]
    assert len(asked.fields["created_at"]) == len("2024-05-01 10:00:00")  # type: ignore[arg-type]


def test_feedback_has_a_label_of_the_domain_and_its_outcomes(contract: Contract) -> None:
    said = contract.said(b'{"record_id": "T-1", "label": "billing", "area": "invoice", "kind": ""}')
    assert (said.record_id, said.label, said.outcomes) == ("T-1", "billing", {"area": "invoice"})
    for wrong in (b'{"record_id": "T-1", "label": "x"}', b'{"record_id": "T-1", "label": "billing", "subject": "x"}'):
        with pytest.raises(ValidationError):
            contract.said(wrong)


def test_a_domain_that_maps_nothing_makes_a_version_of_the_label_alone(
    monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    from assets.serving.keys import add_key
    from assets.serving.server import Server, keys_file

    monkeypatch.setenv("EVERGREEN_DOMAIN", str(Path(__file__).parents[1] / "rare" / "domain"))
    settings, domain = load_serving_settings(), load_domain()
    add_key(keys_file(home, settings), "tests")
    monkeypatch.setattr("assets.serving.features.digest", lambda: "d1")
    server = Server(home, SETTINGS.ingestion, SETTINGS.scoring, settings)
    label = next(iter(domain.labels))
    said = server.contract.said(json.dumps({"record_id": "1", "label": label}).encode())
    outcomes = server._outcomes(said)
    assert outcomes[domain.label.fields[0]] == label
    assert set(outcomes) == {*domain.label.fields[:1], *filter(None, [domain.label.known.field])}
