"""`evergreen check`: what a sample shows, and the warnings that save a week."""

import csv
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from assets.exceptions import SourceError
from assets.onboarding.advice import Reading, advise
from assets.onboarding.check import Check, check_source
from assets.onboarding.report import report
from assets.settings import Domain, load_domain, load_settings

DOMAIN = """
name: desk
title: Desk
purpose: Answers who handles a note.
record: {one: note, many: notes}
source:
  fields:
    "no": {}
    at: {type: instant}
    note: {}
    shop: {required: false}
    secret: {required: false}
    team: {outcome: true}
    done: {type: instant, outcome: true, required: false}
id: "no"
received: {field: at, not_before: 2020-01-01}
label: {one: team, many: teams, fields: [team], known: {field: done}}
labels: {billing: Billing, login: Log-in}
entities: [shop]
text: {fields: [note]}
sensitive: [secret]
"""
WORDS = {"Billing": ["invoice", "refund", "charge"], "log-in": ["password", "locked", "code"]}


def notes(count: int = 200) -> list[dict[str, str]]:
    drawn, start = random.Random(2), datetime(2025, 5, 20)
    made = []
    for place in range(count):
        team = drawn.choice(list(WORDS))
        words = [drawn.choice([*WORDS[team], f"w{drawn.randrange(300)}"]) for _ in range(15)]
        at = start + timedelta(hours=3 * place)
        made.append(
            {
                "no": str(place),
                "at": at.isoformat(),
                "note": " ".join(words),
                "shop": drawn.choice(["north", "south", "west", ""]),
                "secret": f"s{place}",
                "team": team,
                "done": (at + timedelta(days=2)).isoformat(),
            }
        )
    return made


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "domain.yaml").write_text(DOMAIN)
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(tmp_path))
    return load_domain()


@pytest.fixture
def look(tmp_path: Path, domain: Domain) -> Callable[[list[dict[str, str]]], Check]:
    """Checks notes that are written to a file."""

    def look(made: list[dict[str, str]]) -> Check:
        with (tmp_path / "notes.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(made[0]))
            writer.writeheader()
            writer.writerows(made)
        return check_source([str(tmp_path / "notes.csv")], domain, load_settings("quick"))

    return look


def test_a_sample_is_read_as_a_run_reads_it(look: Callable[[list[dict[str, str]]], Check]) -> None:
    made = notes(300)
    made[3]["at"] = "soon"
    made[4]["no"] = ""
    made[5]["at"] = "1999-01-01T00:00:00"
    made[6]["done"] = ""
    made[7]["team"] = "Parking"
    made.append(made[8])
    made.append(made[9] | {"note": "said again"})
    made[10]["note"] = ""
    found = look(made)
    assert (found.objects, found.records, found.used) == (1, 302, 297)
    assert found.quarantined == {"impossible-date": 2, "empty-record-id": 1}
    assert (found.duplicates, found.versions) == (1, 1)
    assert sum(found.labels.values()) == 297 - 2
    assert found.unmapped == {"Parking": 1}
    assert found.delay_days == (2.0, 2.0)
    assert found.without_text == 1
    assert found.entities["shop"][0] == 4
    assert found.newest == "2025-06-26"
    assert [month for month, _, _ in found.months] == ["2025-05", "2025-06"]
    assert sum(rows for _, rows, _ in found.months) == 297
    (shop,) = [each for each in found.fields if each.name == "shop"]
    assert (shop.type, shop.distinct) == ("text", 3)
    assert 0.6 < shop.filled < 0.9
    assert not found.warnings


def test_what_is_sensitive_is_not_shown(look: Callable[[list[dict[str, str]]], Check], domain: Domain) -> None:
    found = look(notes())
    assert next(each for each in found.fields if each.name == "secret").example == ""
    assert not [line for line in report(found, domain) if "s17" in line]


def test_the_report_speaks_the_domains_words(look: Callable[[list[dict[str, str]]], Check], domain: Domain) -> None:
    made = notes()
    made[0]["shop"] = "evil\x1b[31m\nshop"
    text = "\n".join(report(look(made), domain))
    assert "200 notes are used" in text
    assert "Log-in" in text
    assert "with a team" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda n: {"shop": f"shop of {n['team']}"}, "shop gives the team away in 100% of records"),
        (lambda n: {"no": str(int(n["no"]) % 50)}, "150 of 200 records repeat an id"),
        (lambda n: {"done": "2025-01-01T00:00:00"}, "done is before at in 100% of the records: a label cannot"),
        (
            lambda n: {"note": "dear customer please find below " * 8 + n["note"]},
            "100% of the texts start with the same",
        ),
        (lambda n: {"team": "Billing"}, "no record has the label login"),
        (lambda n: {"team": "Billing" if int(n["no"]) % 40 else "log-in"}, "login: fewer than 20 of 40 test rows"),
    ],
)
def test_what_would_cost_a_week_is_warned_of(
    domain: Domain, change: Callable[[dict[str, str]], dict[str, str]], warning: str
) -> None:
    raw = pd.DataFrame([note | change(note) for note in notes()])
    labels = raw["team"].map({"Billing": "billing", "log-in": "login"})
    rows = pd.DataFrame({"label": labels, "text": raw["note"], "shop": raw["shop"]})
    counts = {label: int((labels == label).sum()) for label in domain.labels}
    reading = Reading(rows, raw, counts, repeated=len(raw) - raw["no"].nunique())
    found = list(advise(reading, domain, load_settings("quick")))
    assert [line for line in found if line.startswith(warning)], found


def test_a_source_without_a_record_says_why(look: Callable[[list[dict[str, str]]], Check]) -> None:
    with pytest.raises(SourceError, match=r"notes\.csv"):
        look([{"other": "1"}])
