"""`evergreen init`: what a domain drafted from a file says, and that the engine accepts it."""

import csv
import gzip
import json
import random
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from assets.exceptions import SettingsError, SourceError
from assets.onboarding.draft import draft, write_draft
from assets.onboarding.example import EXAMPLE
from assets.onboarding.guess import determined_share, guess
from assets.onboarding.sample import read_sample
from assets.onboarding.times import time_form
from assets.settings import Domain, load_domain, load_hints
from pipelines.cli import app

TEAMS = ["Billing, refunds", "Log-in", "Über uns"]
WORDS = {
    "Billing, refunds": "invoice refund charge",
    "Log-in": "password account locked",
    "Über uns": "press visit job",
}


def rows(count: int = 300) -> list[dict[str, str]]:
    drawn, start = random.Random(5), datetime(2025, 3, 1, 9)
    made = []
    for place in range(count):
        team = drawn.choice(TEAMS)
        body = " ".join(
            drawn.choice([*WORDS[team].split(), "please", "hello", "thanks", f"w{drawn.randrange(500)}"])
            for _ in range(12)
        )
        made.append(
            {
                "Ticket No": f"T-{place}",
                "Received": (start + timedelta(hours=place)).isoformat() + "+01:00",
                "Closed": (start + timedelta(hours=place + 30)).isoformat() + "+01:00" if place % 9 else "",
                "Subject": f"about {' '.join(body.split()[:3])} {place}",
                "Body": body,
                "Customer": f"c{drawn.randrange(20)}",
                "Channel": drawn.choice(["mail", "web"]),
                "Team": team,
                "Desk": f"desk of {team}",
            }
        )
    return made


def write(path: Path, delimiter: str = ";") -> Path:
    made = rows()
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(made)
    return path


def drafted(path: Path) -> Domain:
    sample = read_sample(path)
    return Domain.model_validate(
        yaml.safe_load(draft("my desk", sample, guess(sample, load_hints())).files["configs/domain.yaml"])
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_file_becomes_a_domain_that_the_engine_accepts(tmp_path: Path, delimiter: str) -> None:
    domain = drafted(write(tmp_path / "tickets.csv", delimiter))
    assert domain.name == "my_desk"
    assert domain.source.delimiter == delimiter
    assert (domain.id, domain.received.field) == ("ticket_no", "received")
    assert domain.source.fields["received"].type == "instant"
    assert domain.text.fields == ("subject", "body")
    assert domain.label.fields == ("team",)
    assert domain.label.known.field == "closed"
    assert set(domain.labels.values()) == set(TEAMS)
    assert set(domain.labels) == {"billing_refunds", "log_in", "uber_uns"}
    assert (domain.entities, domain.request) == (("customer",), ("channel",))


def test_what_gives_the_label_away_is_an_outcome_and_says_so(tmp_path: Path) -> None:
    sample = read_sample(write(tmp_path / "tickets.csv"))
    made = draft("desk", sample, guess(sample, load_hints()))
    assert "desk" in drafted(sample.path).outcomes
    assert any(doubt.startswith("Desk: that it is a consequence of the label") for doubt in made.doubts)
    assert any(doubt.startswith("Team: that this is what a model should answer, and not Desk") for doubt in made.doubts)


def test_nested_json_lines_packed_are_read_by_their_dotted_names(tmp_path: Path) -> None:
    lines = [
        json.dumps(
            {
                "id": n,
                "at": row["Received"],
                "by": {"customer": row["Customer"]},
                "text": row["Body"],
                "team": row["Team"],
                "tags": ["a"],
            }
        )
        for n, row in enumerate(rows())
    ]
    with gzip.open(tmp_path / "tickets.jsonl.gz", "wt") as file:
        file.write("\n".join([*lines, "not json", "[1]"]))
    sample = read_sample(tmp_path / "tickets.jsonl.gz")
    assert (sample.rows, sample.whole) == (300, True)
    domain = drafted(sample.path)
    assert domain.source.names("by_customer") == ("by.customer",)
    assert domain.entities == ("by_customer",)
    assert (domain.id, domain.source.fields["id"].type) == ("id", "number")
    # `text` is a column of every domain: the field has another name.
    assert domain.text.fields == ("text_2",)


def test_parquet_is_read_with_its_times_and_structs(tmp_path: Path) -> None:
    made = rows()
    table = pa.table(
        {
            "no": [f"{place}" for place in range(len(made))],
            "opened": [datetime.fromisoformat(row["Received"]) for row in made],
            "from": [{"city": row["Customer"]} for row in made],
            "words": [row["Body"] for row in made],
            "category": [row["Team"] for row in made],
        }
    )
    pq.write_table(table, tmp_path / "tickets.parquet")
    domain = drafted(tmp_path / "tickets.parquet")
    assert domain.source.fields["opened"].type == "instant"
    assert domain.entities == ("from_city",)


@pytest.mark.parametrize(
    ("values", "kind", "form"),
    [
        (["2025-01-31", "2025-02-01"], "day", None),
        (["2025-01-31T10:00:00+02:00", "2025-02-01T11:00:00Z"], "instant", None),
        (["31.01.2025", "01.02.2025"], "day", "%d.%m.%Y"),
        (["01/31/2025", "02/01/2025"], "day", "%m/%d/%Y"),
        (["31/01/2025 10:30", "01/02/2025 11:00"], "instant", "%d/%m/%Y %H:%M"),
    ],
)
def test_times_are_read_as_they_are_written(values: list[str], kind: str, form: str | None) -> None:
    found = time_form(values)
    assert found is not None
    assert (found.type, found.format) == (kind, form)


def test_days_that_may_be_months_are_left_to_a_person() -> None:
    found = time_form(["01/02/2025", "03/04/2025"])
    assert found is not None
    assert {found.format, *found.others} == {"%m/%d/%Y", "%d/%m/%Y"}


@pytest.mark.parametrize("values", [["12", "345"], ["red", "blue"], ["2025-01-31", "soon"], []])
def test_other_values_are_no_times(values: list[str]) -> None:
    assert time_form(values) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x", r"a\.txt: its name must end in \.csv, \.jsonl"),
        ("a.csv", "id;text\n", r"a\.csv: no row in it can be read"),
        ("a.csv", "id,at\n1,2025-01-01\n", r"a\.csv: no column holds texts"),
        ("a.csv", "id,text\n1,one two three four\n2,two three four five\n", r"a\.csv: no column says when"),
        ("a.csv", "text,at\none two three four,2025-01-01\n,2025-01-02\n", r"a\.csv: no column can be the id"),
        ("a.csv", "id,text,at\n1,one two three four,2025-01-01\n", r"a\.csv: no column can be the label"),
        ("a.parquet", "no parquet", r"a\.parquet: cannot be read"),
    ],
)
def test_a_file_that_tells_too_little_says_what_it_lacks(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message) as raised:
        guess(read_sample(tmp_path / name), load_hints())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", [b"id,text", b"1,caf\xe9", b"2,caf\xc3\xa9"]),
        ("a.jsonl", [b'{"id": 1, "text": "caf\xe9"}', b'{"id": 2, "text": "caf\xc3\xa9"}']),
    ],
)
def test_rows_that_are_not_utf8_are_left_out_of_the_sample(tmp_path: Path, name: str, lines: list[bytes]) -> None:
    (tmp_path / name).write_bytes(b"\n".join(lines))
    sample = read_sample(tmp_path / name)
    assert [column.values for column in sample.columns] == [("2",), ("caf\u00e9",)]


def test_a_broken_row_without_an_id_takes_no_column_its_role(tmp_path: Path) -> None:
    path = write(tmp_path / "tickets.csv")
    path.write_text(path.read_text().replace("T-7;", ";", 1))
    assert guess(read_sample(path), load_hints()).id.column.name == "Ticket No"


def test_a_header_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,caf\xe9\n1,x\n")
    with pytest.raises(SourceError, match=r"a\.csv: its header is not UTF-8"):
        read_sample(tmp_path / "a.csv")


def test_names_and_values_of_a_file_are_text_in_what_is_written(tmp_path: Path) -> None:
    made = rows()
    for row in made:
        row['evil: "}, # \u202e'] = row.pop("Channel")
        row["Team"] = {"Log-in": 'no: "yes" # \\ ', "Über uns": "- a: [b"}.get(row["Team"], row["Team"])
    with (tmp_path / "evil\n.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    domain = drafted(tmp_path / "evil\n.csv")
    assert set(domain.labels.values()) == {"Billing, refunds", 'no: "yes" # \\', "- a: [b"}


def test_a_domain_is_never_overwritten(tmp_path: Path) -> None:
    made = draft("x", EXAMPLE, guess(EXAMPLE, load_hints()))
    write_draft(tmp_path, made)
    with pytest.raises(SettingsError, match="already has a domain; name another folder"):
        write_draft(tmp_path, made)


def test_the_command_writes_a_domain_and_says_what_to_confirm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["init", str(tmp_path / "desk"), "--from", str(write(tmp_path / "t.csv"))])
    assert done.exit_code == 0, done.output
    assert "Confirm Team: that this is what a model should answer" in done.output
    assert f"evergreen --domain {tmp_path / 'desk'} check --source {tmp_path / 't.csv'}" in done.output
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(tmp_path / "desk"))
    assert load_domain().name == "desk"


def test_without_a_file_it_writes_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["init", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(tmp_path / "new"))
    assert load_domain().entities == ("shop",)


def test_a_value_that_always_goes_with_one_label_tells_it() -> None:
    assert determined_share(["a"] * 10 + ["b"] * 10, ["x"] * 10 + ["y"] * 10) == 1.0
    assert determined_share(["a"] * 10 + ["b"] * 10, ["x", "y"] * 10) == 0.5
    assert determined_share([f"{n}" for n in range(20)], ["x", "y"] * 10) == 0.0
