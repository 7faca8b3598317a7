"""The simulator: what it writes, that it writes it again, what is dirty in it and how its scenarios change it."""

import csv
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from assets.exceptions import SettingsError
from assets.settings import load_domain
from complaints.simulation import settings as settings_module
from complaints.simulation import simulate, simulator
from complaints.simulation.settings import DirtSettings, SimulatorSettings, load_simulator_settings
from complaints.simulation.taxonomy import NEWEST_FROM, SECOND_FROM, categories
from complaints.simulation.world import COLUMNS

LABELS = tuple(load_domain().labels)

HEADER = (
    "Date received,Product,Sub-product,Issue,Sub-issue,Consumer complaint narrative,Company public response,Company,"
    "State,ZIP code,Tags,Consumer consent provided?,Submitted via,Date sent to company,Company response to consumer,"
    "Timely response?,Consumer disputed?,Complaint ID"
)
NARRATIVE = "Consumer complaint narrative"
START, END = date(2024, 1, 20), date(2024, 3, 5)

Row = dict[str, str]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Simulate with changed settings."""

    def change(**fields) -> SimulatorSettings:
        changed = load_simulator_settings().model_copy(update=fields)
        monkeypatch.setattr(simulator, "load_simulator_settings", lambda: changed)
        return changed

    return change


@pytest.fixture
def clean(use):
    return use(dirt=only())


def only(**shares: float) -> DirtSettings:
    return DirtSettings.model_validate(dict.fromkeys(DirtSettings.model_fields, 0.0) | shares)


def rows(files: tuple[Path, ...]) -> list[Row]:
    found: list[Row] = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as text:
            found += csv.DictReader(text)
    return found


def contents(files: tuple[Path, ...]) -> list[bytes]:
    return [file.read_bytes() for file in files]


def test_a_file_for_each_month_in_the_official_layout(tmp_path: Path, clean: SimulatorSettings) -> None:
    simulated = simulate(tmp_path, START, END, 20, 1, "calm")
    assert [file.name for file in simulated.files] == [f"complaints-2024-0{month}.csv" for month in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == list(simulated.files)
    found = []
    for file in simulated.files:
        with file.open(encoding="utf-8", newline="") as text:
            assert text.readline() == HEADER + "\n"
            found += list(csv.reader(text, strict=True))
    assert {len(row) for row in found} == {18}
    assert len(found) == simulated.records == 20 * 46
    assert simulated.dirty == {}
    identifiers = [int(row[-1]) for row in found]
    assert identifiers == sorted(set(identifiers))
    assert {date.fromisoformat(row[0]) for row in found} >= {START, END}


def test_rows_say_what_real_rows_say(tmp_path: Path, clean: SimulatorSettings) -> None:
    found = rows(simulate(tmp_path, START, END, 60, 1, "calm").files)
    told = [row for row in found if row[NARRATIVE]]
    assert 0.55 < len(told) / len(found) < 0.65
    assert {row["Consumer consent provided?"] for row in told} == {"Consent provided"}
    assert any("\n" in row[NARRATIVE] for row in told)
    assert any('"' in row[NARRATIVE] for row in told)
    assert any(re.search(r"XX/XX/2024.*\{\$\d+\.00\}", row[NARRATIVE]) for row in told)
    words = sorted(len(row[NARRATIVE].split()) for row in told)
    assert 40 < words[len(words) // 2] < 70
    assert words[-1] > 150
    lags = Counter(
        (date.fromisoformat(row["Date sent to company"]) - date.fromisoformat(row["Date received"])).days
        for row in found
        if row["Date sent to company"]
    )
    assert lags[0] > sum(lags.values()) / 2
    assert max(lags) > 7
    assert any(not row["Date sent to company"] for row in found)
    assert any(row["ZIP code"].endswith("XX") for row in found)


def test_form_letters_share_their_beginning(tmp_path: Path, clean: SimulatorSettings) -> None:
    told = [row[NARRATIVE] for row in rows(simulate(tmp_path, START, END, 60, 1, "calm").files) if row[NARRATIVE]]
    beginnings = Counter(text[:120] for text in told)
    letters = sum(count for count in beginnings.values() if count > 5)
    assert 0.08 < letters / len(told) < 0.18
    assert 0.01 < 1 - len(set(told)) / len(told) < 0.08


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = simulate(tmp_path / "once", START, END, 30, 1, "new-vocabulary")
    monkeypatch.setattr(simulator, "_SINGLE_PROCESS_RECORDS", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    again = simulate(tmp_path / "again", START, END, 30, 1, "new-vocabulary")
    assert contents(once.files) == contents(again.files)
    assert (once.records, once.dirty) == (again.records, again.dirty)


def test_a_file_a_day_holds_what_a_file_a_month_holds_of_it(tmp_path: Path) -> None:
    span = date(2024, 1, 30), date(2024, 2, 2)
    (january, february) = simulate(tmp_path / "months", *span, 40, 3, "calm").files
    daily = simulate(tmp_path / "days", *span, 40, 3, "calm", daily=True)
    names = [f"complaints-2024-{day}.csv" for day in ("01-30", "01-31", "02-01", "02-02")]
    assert [path.name for path in daily.files] == names
    bodies = [path.read_bytes().split(b"\n", 1)[1] for path in (january, february, *daily.files)]
    assert (bodies[0], bodies[1]) == (bodies[2] + bodies[3], bodies[4] + bodies[5])


def test_another_seed_gives_other_records(tmp_path: Path) -> None:
    one, two = (simulate(tmp_path / str(seed), START, END, 5, seed, "calm").files for seed in (1, 2))
    assert contents(one) != contents(two)


def test_a_day_does_not_depend_on_the_range(tmp_path: Path) -> None:
    wide = simulate(tmp_path / "wide", date(2023, 12, 1), date(2024, 4, 9), 30, 1, "calm")
    long_enough = simulate(tmp_path / "long", date(2024, 1, 1), date(2024, 3, 31), 30, 1, "calm")
    assert wide.files[3].read_bytes() == long_enough.files[2].read_bytes()


@pytest.mark.parametrize("kind", DirtSettings.model_fields)
def test_every_kind_of_dirt_occurs_and_is_counted(tmp_path: Path, use, kind: str) -> None:
    use(dirt=only(**{kind: 0.1}))
    simulated = simulate(tmp_path, START, END, 40, 1, "calm")
    assert set(simulated.dirty) == {kind}
    assert 0.05 < simulated.dirty[kind] / simulated.records < 0.15
    assert _count(kind, simulated.files) == simulated.dirty[kind]


def _count(kind: str, files: tuple[Path, ...]) -> int:
    """The faults of one kind, found again without the simulator."""
    raw = b"".join(contents(files))
    if kind == "not_utf8":
        return raw.count(b"\xff")
    text = raw.decode("utf-8", "replace").replace(HEADER + "\n", "")
    records = re.split(r"(?m)^(?=\d{4}-\d\d-\d\d,)", text)[1:]
    if kind == "broken_quote":
        return sum(record.count('"') % 2 for record in records)
    parsed = [next(csv.reader([record])) if "\n" not in record[:-1] else _fields(record) for record in records]
    if kind in ("too_few_fields", "too_many_fields"):
        return sum(len(row) < 18 if kind == "too_few_fields" else len(row) > 18 for row in parsed)
    found = [dict(zip(COLUMNS, row, strict=True)) for row in parsed]
    repeated = len(found) - len({row["Complaint ID"] for row in found})
    versions = len(set(records))
    calm = {product for queue in LABELS for product, *_ in categories(queue, START)}
    return {
        "impossible_date": sum(not _possible(row["Date received"]) for row in found),
        "empty_complaint_id": sum(not row["Complaint ID"] for row in found),
        "duplicate": len(records) - versions,
        "changed_version": repeated if versions == len(records) else -1,
        "missing_state": sum(not row["State"] for row in found),
        "lost_zero": sum(len(row["ZIP code"]) == 4 for row in found),
        "unmapped_product": sum(row["Product"] not in calm for row in found),
    }[kind]


def _fields(record: str) -> list[str]:
    return next(csv.reader(record.splitlines(keepends=True)))


def _possible(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def test_repeats_come_later_and_also_in_the_next_file(tmp_path: Path, use) -> None:
    use(dirt=only(duplicate=0.2, changed_version=0.2))
    files = simulate(tmp_path, START, END, 20, 1, "calm").files
    seen: dict[str, Row] = {}
    crossed = changed = 0
    for place, file in enumerate(files):
        for row in rows((file,)):
            first = seen.setdefault(row["Complaint ID"], row | {"file": str(place)})
            crossed += first["file"] != str(place)
            if {**row, "file": first["file"]} != first:
                changed += 1
                assert row["Company response to consumer"] != first["Company response to consumer"]
                assert row[NARRATIVE] == first[NARRATIVE]
    assert crossed > 10
    assert changed > 50


def test_mix_shift_changes_queues_and_companies(tmp_path: Path, clean: SimulatorSettings) -> None:
    before, after = _halves(tmp_path, "mix-shift")
    transfers = "Money transfer, virtual currency, or money service"
    assert _share(after, "Product", transfers) > 2 * _share(before, "Product", transfers)
    calm_before, calm_after = _halves(tmp_path / "calm", "calm")
    assert _share(calm_after, "Product", transfers) < 1.5 * _share(calm_before, "Product", transfers)
    assert _distance(before, after, "Company") > _distance(calm_before, calm_after, "Company") + 0.1


def test_new_vocabulary_changes_words(tmp_path: Path, clean: SimulatorSettings) -> None:
    before, after = _halves(tmp_path, "new-vocabulary")
    assert not any("neobank" in row[NARRATIVE].lower() for row in before)
    assert any("neobank" in row[NARRATIVE].lower() for row in after)
    assert before == _halves(tmp_path / "calm", "calm")[0]


def test_swapped_queues_change_what_texts_are_filed_under_and_nothing_else(
    tmp_path: Path, clean: SimulatorSettings
) -> None:
    (before, after), (calm_before, calm_after) = (_halves(tmp_path / name, name) for name in ("swapped-queues", "calm"))
    assert before == calm_before
    assert [row[NARRATIVE] for row in after] == [row[NARRATIVE] for row in calm_after]
    filed = {
        (calm["Product"], swapped["Product"])
        for calm, swapped in zip(calm_after, after, strict=True)
        if calm["Product"] != swapped["Product"]
    }
    assert ("Mortgage", "Credit card") in filed
    assert ("Credit card", "Mortgage") in filed
    assert ("Student loan", "Vehicle loan or lease") in filed
    products = ("Mortgage", "Credit card", "Prepaid card", "Student loan", "Vehicle loan or lease")
    assert not any(
        product.startswith(("Checking", "Debt collection", "Credit report")) for pair in filed for product in pair
    )
    assert {first for first, _ in filed} >= set(products)


def test_slow_change_comes_little_by_little(tmp_path: Path, clean: SimulatorSettings) -> None:
    files = simulate(tmp_path, date(2024, 1, 1), date(2024, 12, 31), 30, 1, "slow").files
    new = [sum("neobank" in row[NARRATIVE].lower() for row in rows((file,))) for file in files]
    assert sum(new[:4]) == 0
    assert 0 < sum(new[5:7]) < sum(new[7:9]) < sum(new[10:12])


def test_a_season_comes_every_year(tmp_path: Path, clean: SimulatorSettings) -> None:
    transfers = "Money transfer, virtual currency, or money service"
    files = simulate(tmp_path, date(2023, 11, 1), date(2025, 1, 31), 30, 1, "season").files
    shares = {file.stem[-7:]: _share(rows((file,)), "Product", transfers) for file in files}
    december = [shares.pop(month) for month in ("2023-12", "2024-12")]
    assert min(december) > 1.4 * max(shares.values())


def test_one_company_changes_alone(tmp_path: Path, clean: SimulatorSettings) -> None:
    _, after = _halves(tmp_path, "one-company")
    companies = {row["Company"] for row in after if "neobank" in row[NARRATIVE].lower()}
    assert len(companies) == 1


def test_taxonomy_change_renames_products(tmp_path: Path, clean: SimulatorSettings) -> None:
    before, after = _halves(tmp_path, "taxonomy-change")
    assert {row["Product"] for row in before} == _products(SECOND_FROM)
    assert {row["Product"] for row in after} == _products(NEWEST_FROM)


def test_products_are_those_of_their_time(tmp_path: Path, clean: SimulatorSettings) -> None:
    for start, taxonomy in ((date(2016, 5, 1), date(2016, 5, 1)), (date(2023, 8, 1), SECOND_FROM)):
        simulated = simulate(tmp_path / str(start), start, start.replace(day=24), 30, 1, "calm")
        assert {row["Product"] for row in rows(simulated.files)} == _products(taxonomy)


def test_schema_change_loses_two_columns(tmp_path: Path, clean: SimulatorSettings) -> None:
    files = simulate(tmp_path, date(2024, 1, 1), date(2024, 3, 31), 5, 1, "schema-change").files
    headers = [file.read_text().split("\n", 1)[0] for file in files]
    assert headers[0] == HEADER
    short = HEADER.replace("Consumer consent provided?,", "").replace("Consumer disputed?,", "")
    assert headers[1:] == [short, short]
    assert {len(row) for row in rows(files[1:])} == {16}


def _halves(folder: Path, scenario: str) -> tuple[list[Row], list[Row]]:
    """The rows before and after the date of change."""
    start, end = date(2024, 1, 1), date(2024, 2, 29)
    change = load_simulator_settings().scenario("mix-shift").change(start, end)
    found = rows(simulate(folder / scenario, start, end, 60, 1, scenario).files)
    return [r for r in found if r["Date received"] < str(change)], [
        r for r in found if r["Date received"] >= str(change)
    ]


def _share(found: list[Row], column: str, value: str) -> float:
    return sum(row[column] == value for row in found) / len(found)


def _distance(one: list[Row], two: list[Row], column: str) -> float:
    values = {row[column] for row in one + two}
    return sum(abs(_share(one, column, value) - _share(two, column, value)) for value in values) / 2


def _products(day: date) -> set[str]:
    return {product for queue in LABELS for product, *_ in categories(queue, day)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((END, START, 1, 1, "calm"), "--to 2024-01-20 lies before --from 2024-03-05"),
        ((START, END, 0, 1, "calm"), "--rate 0"),
        ((START, END, 100_001, 1, "calm"), "--rate 100001"),
        ((START, END, 1, -1, "calm"), "--seed -1"),
        ((date(1999, 1, 1), END, 1, 1, "calm"), "--from 1999-01-01"),
        ((START, END, 1, 1, "storm"), "unknown scenario 'storm'; configs/simulator.yaml has calm, new-vocabulary"),
    ],
)
def test_a_bad_argument_is_one_clear_line(tmp_path: Path, arguments, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)) as caught:
        simulate(tmp_path / "out", *arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_no_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made a folder"):
        simulate(tmp_path / "file", START, END, 1, 1, "calm")


@pytest.mark.parametrize(
    ("found", "replaced", "says"),
    [
        ("label_noise:", "label_nose:", "label_nose: unknown setting"),
        ("narrative_share: 0.6", "narrative_share: 6", "narrative_share: input should be less than or equal to 1"),
        ("  cards: 0.14", "  chess: 0.14", "queue_mix: unknown queue 'chess'"),
        ("  broken_quote: 0.002", "  broken_quote: 0.99", "dirt: the shares together exceed 1"),
        (
            "newest_taxonomy: true",
            "newest_taxonomi: true",
            "scenarios.taxonomy-change.newest_taxonomi: unknown setting",
        ),
        ("months: [12]", "months: [13]", "scenarios.season.months: there is no month 13 (found [13])"),
        ("[[cards, mortgage],", "[[cards, cards],", "swapped_queues: a queue can be swapped once"),
    ],
)
def test_a_bad_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str, replaced: str, says: str
) -> None:
    text = (settings_module.CONFIGS / "simulator.yaml").read_text()
    assert found in text
    (tmp_path / "simulator.yaml").write_text(text.replace(found, replaced, 1))
    monkeypatch.setattr(settings_module, "CONFIGS", tmp_path)
    with pytest.raises(SettingsError, match=re.escape(says)) as caught:
        load_simulator_settings()
    assert "\n" not in str(caught.value)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    simulate(tmp_path, START, START, 1, 1, "calm")
    assert capfd.readouterr() == ("", "")


def test_a_failed_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: SimulatorSettings
) -> None:
    (file,) = simulate(tmp_path, START, START, 3, 1, "calm").files
    earlier = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SettingsError, match="cannot be written: No space left on device"):
        simulate(tmp_path, START, START, 3, 2, "calm")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == earlier
