"""The support desk that examples/tickets simulates: its files, how labels arrive, what its scenarios change."""

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from assets.exceptions import SettingsError
from assets.hashing import hash_file
from assets.settings import load_domain
from pipelines.simulating import Simulate

START, END = date(2024, 1, 1), date(2024, 4, 30)
CHANGE = date(2024, 3, 14)
IMPOSSIBLE = "2024-02-30"


def lines(files: Iterable[Path]) -> list[dict[str, Any]]:
    """What can be read, in order."""
    found = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


def last_versions(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Of tickets with an id and a possible time."""
    found = [ticket for ticket in lines(files) if ticket["id"] and not ticket["created_at"].startswith(IMPOSSIBLE)]
    return list({ticket["id"]: ticket for ticket in found}.values())


def at(ticket: dict[str, Any], field: str) -> datetime:
    return datetime.fromisoformat(ticket[field])


def team_of(tickets: Path) -> dict[tuple[str, str], str]:
    with (tickets / "dbt" / "seeds" / "team_by_resolution.csv").open(newline="") as file:
        return {(row["area"], row["kind"]): row["team"] for row in csv.DictReader(file)}


def teams(tickets: Path, found: Iterable[dict[str, Any]]) -> Counter[str | None]:
    resolutions = (ticket["resolution"] for ticket in found if ticket["resolution"])
    return Counter(team_of(tickets).get((given["area"], given["kind"])) for given in resolutions)


def around(found: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those opened before the change, and those opened since."""
    found = [ticket for ticket in found if ticket["created_at"][:10] != "2024-02-30"]
    since = [ticket["created_at"][:10] >= CHANGE.isoformat() for ticket in found]
    sides = [
        [ticket for ticket, is_since in zip(found, since, strict=True) if is_since is side] for side in (False, True)
    ]
    return sides[0], sides[1]


@pytest.fixture
def calm(simulate: Simulate, tmp_path: Path) -> tuple[Path, ...]:
    return simulate(tmp_path / "calm", START, END, 40, 7, "calm").files


def test_a_month_is_a_file_of_what_was_opened_or_changed_in_it(simulate: Simulate, tmp_path: Path) -> None:
    written = simulate(tmp_path, START, END, 20, 7, "calm")
    assert [file.name for file in written.files] == [f"tickets-2024-0{month}.jsonl" for month in (1, 2, 3, 4)]
    assert written.records == sum(len(file.read_text().splitlines()) for file in written.files)
    for file in written.files:
        found = lines([file])
        changed = [at(ticket, "updated_at").astimezone(UTC) for ticket in found]
        assert changed == sorted(changed)
        assert {f"{instant:%Y-%m}" for instant in changed} == {file.stem.removeprefix("tickets-")}
        counts = Counter(ticket["id"] for ticket in found if ticket["id"])
        assert sum(counts.values()) - len(counts) < 0.02 * len(counts)


def test_the_same_arguments_give_the_same_bytes_in_another_process(simulate: Simulate, tmp_path: Path) -> None:
    here = simulate(tmp_path / "here", START, date(2024, 2, 10), 10, 3, "new-product")
    code = (
        "import sys; from datetime import date; from pathlib import Path; from pipelines.simulating import simulator; "
        "from assets.settings import load_domain; "
        "simulator(load_domain())(Path(sys.argv[1]), date(2024, 1, 1), date(2024, 2, 10), 10, 3, 'new-product')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True)
    assert [hash_file(file) for file in here.files] == [
        hash_file(tmp_path / "there" / file.name) for file in here.files
    ]
    other = simulate(tmp_path / "other", START, date(2024, 2, 10), 10, 4, "new-product")
    assert hash_file(here.files[0]) != hash_file(other.files[0])


def test_days_hold_every_version_of_the_tickets_that_months_hold(simulate: Simulate, tmp_path: Path) -> None:
    until = date(2024, 2, 29)
    months = last_versions(simulate(tmp_path / "months", START, until, 10, 7, "calm").files)
    days = simulate(tmp_path / "days", START, until, 10, 7, "calm", daily=True).files
    assert len(days) == 60
    versions = Counter(ticket["id"] for ticket in lines(days) if ticket["id"])
    assert sum(count > 1 for count in versions.values()) > 0.5 * len(versions)
    by_id = {ticket["id"]: ticket["resolution"] for ticket in last_versions(days)}
    agreeing = [by_id.get(ticket["id"]) == ticket["resolution"] for ticket in months]
    assert sum(agreeing) > 0.98 * len(agreeing)


def test_a_longer_range_begins_with_the_same_tickets(simulate: Simulate, tmp_path: Path) -> None:
    short = simulate(tmp_path / "short", START, date(2024, 2, 29), 10, 7, "calm").files
    long = simulate(tmp_path / "long", START, END, 10, 7, "calm").files
    assert [hash_file(file) for file in short] == [hash_file(file) for file in long[:2]]


def test_every_label_occurs_and_the_seed_maps_nearly_every_resolution(tickets: Path, calm: tuple[Path, ...]) -> None:
    counts = teams(tickets, last_versions(calm))
    assert set(counts) - {None} == set(load_domain().labels)
    assert 0 < counts[None] < 0.005 * counts.total()
    assert min(counts[name] for name in load_domain().labels) > 40


def test_labels_arrive_after_hours_to_weeks_some_never_and_some_are_corrected(calm: tuple[Path, ...]) -> None:
    opened = [ticket for ticket in last_versions(calm) if ticket["created_at"] < "2024-03"]
    resolved = [ticket for ticket in opened if ticket["resolved_at"]]
    assert 0.05 < 1 - len(resolved) / len(opened) < 0.09
    delays = [at(ticket, "resolved_at") - at(ticket, "created_at") for ticket in resolved]
    assert timedelta(hours=10) < median(delays) < timedelta(days=2)
    assert min(delays) < timedelta(hours=1)
    assert max(delays) > timedelta(weeks=3)
    corrected = [ticket for ticket in resolved if at(ticket, "updated_at") > at(ticket, "resolved_at")]
    assert 0.02 < len(corrected) / len(resolved) < 0.06


def test_instants_have_zones_and_keys_are_renamed(calm: tuple[Path, ...]) -> None:
    found = lines(calm)
    assert {ticket["created_at"][19:] for ticket in found} == {"Z", "+01:00", "-05:00", "+05:30"}
    plans = {(ticket["updated_at"][:10] > "2024-04-01", *set(ticket["customer"]) - {"id"}) for ticket in found}
    assert {(True, "plan"), (False, "tier")} <= plans
    assert (True, "tier") not in plans


def test_some_lines_are_broken(calm: tuple[Path, ...]) -> None:
    written = sum(len(file.read_text().splitlines()) for file in calm)
    found = lines(calm)
    assert 0 < written - len(found) < 0.005 * written
    assert any(ticket["id"] is None for ticket in found)
    assert any(ticket["created_at"].startswith(IMPOSSIBLE) for ticket in found)
    assert any(not ticket["subject"] and not ticket["body"] for ticket in found)


def test_texts_differ_and_have_no_slots_left(calm: tuple[Path, ...]) -> None:
    texts = [ticket["subject"] + " " + ticket["body"] for ticket in last_versions(calm) if ticket["body"]]
    assert not [text for text in texts if set("{}|") & set(text)]
    assert len({"".join(filter(str.isalpha, text))[:100] for text in texts}) > 0.97 * len(texts)


@pytest.fixture
def sides(simulate: Simulate, tmp_path: Path):
    def change(scenario: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        written = simulate(tmp_path / scenario, START, END, 40, 7, scenario)
        assert written.change == CHANGE
        return around(last_versions(written.files))

    return change


def test_a_scenario_changes_nothing_before_its_day(simulate: Simulate, tmp_path: Path, calm: tuple[Path, ...]) -> None:
    for scenario in ("new-vocabulary", "new-product", "reorganised", "language-shift"):
        other = simulate(tmp_path / scenario, START, END, 40, 7, scenario).files
        assert [hash_file(file) for file in other[:2]] == [hash_file(file) for file in calm[:2]]
        assert hash_file(other[2]) != hash_file(calm[2])


def test_a_product_is_launched(sides) -> None:
    before, since = (Counter(ticket["product"]["name"] for ticket in side) for side in sides("new-product"))
    assert before["Till"] == 0
    assert 0.25 < since["Till"] / since.total() < 0.35


def test_the_language_shifts(sides) -> None:
    before, since = ([ticket["language"] == "de" for ticket in side] for side in sides("language-shift"))
    assert 0.25 < sum(before) / len(before) < 0.6
    assert 0.8 < sum(since) / len(since) < 0.9


def test_customers_write_in_new_words(sides) -> None:
    for word in ("Quickpass", "Prepaid", "Insight"):
        before, since = (
            sum(word.lower() in (t["body"] or "").lower() for t in side) for side in sides("new-vocabulary")
        )
        assert before == 0
        assert since > 10


def test_teams_are_reorganised(tickets: Path, sides) -> None:
    def share(found: Iterable[dict[str, Any]]) -> float:
        """Of the tickets whose subject asks how something is done, those that the web application's team did."""
        asked = [ticket for ticket in found if ticket["subject"].startswith(("How do", "How can", "Wie kann", "Wie k"))]
        counts = teams(tickets, asked)
        return counts["web_app"] / counts.total()

    before, since = sides("reorganised")
    assert share(before) < 0.05
    assert share(since) > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((END, START, 10, 7, "calm"), "lies before --from"),
        ((START, END, 0, 7, "calm"), "--rate 0"),
        ((START, END, 10, -1, "calm"), "--seed -1"),
        ((START, END, 10, 7, "storm"), "unknown scenario 'storm'; simulation/world.yaml has calm"),
    ],
)
def test_wrong_arguments_are_named(
    simulate: Simulate, tmp_path: Path, arguments: tuple[date, date, int, int, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        simulate(tmp_path, *arguments)


def written_by_hand(tickets: Path) -> Iterator[Path]:
    for ending in ("yaml", "yml", "sql", "py"):
        yield from (path for path in tickets.rglob(f"*.{ending}") if "simulation" not in path.parts)


def test_the_domain_is_small(tickets: Path) -> None:
    files = list(written_by_hand(tickets))
    assert {"domain.yaml", "mapped_labels.sql", "views.py"} <= {path.name for path in files}
    assert sum(len(path.read_text().splitlines()) for path in files) <= 400
