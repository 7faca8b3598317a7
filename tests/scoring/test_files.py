import csv
import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.exceptions import EvergreenError, RegistryError, SettingsError, SourceError
from assets.home import Home
from assets.scoring.files import score_file
from assets.scoring.parts import Parts
from assets.settings import load_settings
from complaints.simulation.world import COLUMNS

HEADER = list(COLUMNS)
SETTINGS = load_settings("quick")


def record(record_id: str, text: str, **fields: str) -> list[str]:
    values = {"Date received": "2024-01-05", "Company": "ACME", "State": "CA", "Submitted via": "Web"}
    values |= {"Complaint ID": record_id, "Consumer complaint narrative": text, **fields}
    return [values.get(name, "") for name in HEADER]


@pytest.fixture
def scored(home: Home, bundle: Any, champion: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("assets.scoring.champion._fetch", lambda _: (champion, bundle))
    return home


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    rows = [
        record("1", "mortgage is\nlate, twice"),
        ["2024-01-05", "too", "few"],
        record("3", ""),
        record("4", "cards stolen"),
        [*record("5", "other"), "too many"],
        record("6", "money_transfer lost"),
    ]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])
    return path


@pytest.mark.parametrize("chunk_rows", [1, 2, 1000])
def test_every_row_keeps_its_place(scored: Home, source: Path, tmp_path: Path, chunk_rows: int) -> None:
    settings = SETTINGS.model_copy(update={"scoring": SETTINGS.scoring.model_copy(update={"chunk_rows": chunk_rows})})
    found = score_file(scored, source, tmp_path / "out.parquet", settings)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["record_id", "predicted", "confidence", "model_version", "reason"]
    rows = table.to_pydict()
    assert rows["record_id"] == ["1", None, "3", "4", None, "6"]
    assert rows["predicted"] == ["mortgage", None, None, "cards", None, "money_transfer"]
    assert rows["reason"] == [None, "too-few-fields", "no-text", None, "too-many-fields", None]
    assert rows["confidence"] == [pytest.approx(0.6), None, None, pytest.approx(0.6), None, pytest.approx(0.6)]
    assert rows["model_version"] == ["3"] * 6
    assert (found.rows, found.scored, found.model_version) == (6, 3, "3")


def test_csv_holds_the_same(scored: Home, source: Path, tmp_path: Path) -> None:
    score_file(scored, source, tmp_path / "out.csv", SETTINGS)
    score_file(scored, source, tmp_path / "out.parquet", SETTINGS)
    read = pd.read_csv(tmp_path / "out.csv", dtype=str).fillna("").to_dict("list")
    written = pd.read_parquet(tmp_path / "out.parquet").astype(object).fillna("").astype(str).to_dict("list")
    assert read == written


def test_no_id_is_a_formula_in_a_spreadsheet_and_each_can_be_had_back(scored: Home, tmp_path: Path) -> None:
    ids = ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "'", "＝1", "7 = 7", "4711", '=cmd|" /C calc"!A0']  # noqa: RUF001
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *(record(one, "cards stolen") for one in ids)])
    score_file(scored, tmp_path / "in.csv", tmp_path / "out.csv", SETTINGS)
    score_file(scored, tmp_path / "in.csv", tmp_path / "out.parquet", SETTINGS)
    with (tmp_path / "out.csv").open(newline="") as file:
        written = [row["record_id"] for row in csv.DictReader(file)]
    assert pq.read_table(tmp_path / "out.parquet")["record_id"].to_pylist() == ids
    assert [one.removeprefix("'") for one in written] == ids
    assert [one for one in written if one[0] != "'"] == ["7 = 7", "4711"]


def test_rows_of_a_mebibyte_are_scored(scored: Home, tmp_path: Path) -> None:
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *(record(str(n), f"cards {'word ' * 209_000}") for n in range(4))])
    found = score_file(scored, tmp_path / "in.csv", tmp_path / "out.csv", SETTINGS)
    assert (found.rows, found.scored) == (4, 4)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_failure_while_it_is_written_leaves_what_was_there(
    scored: Home, source: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / f"out.{ending}"
    output.write_text("before")
    whole = Parts.tables

    def broken(parts: Parts) -> Iterator[pa.Table]:
        yield from whole(parts)
        raise OSError("no space left on device")

    monkeypatch.setattr(Parts, "tables", broken)
    with pytest.raises(OSError, match="no space"):
        score_file(scored, source, output, SETTINGS)
    assert output.read_text() == "before"


def test_a_full_disk_is_one_line_and_the_same_call_goes_on(
    scored: Home, source: Path, tmp_path: Path, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"scoring": SETTINGS.scoring.model_copy(update={"chunk_rows": 2})})
    write, written = Parts._write, []

    def full(parts: Parts, number: int, table: pa.Table) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(number)
        write(parts, number, table)

    monkeypatch.setattr(Parts, "_write", full)
    with pytest.raises(EvergreenError, match=r"--output .*out\.csv: its disk is full; free some space"):
        score_file(scored, source, tmp_path / "out.csv", settings)
    assert not (tmp_path / "out.csv").exists()
    monkeypatch.setattr(Parts, "_write", write)
    bundle.seen.clear()
    assert score_file(scored, source, tmp_path / "out.csv", settings).rows == 6
    assert "mortgage is\nlate, twice" not in bundle.seen


def test_a_champion_that_answers_otherwise_than_evaluated_scores_nothing(
    scored: Home, source: Path, tmp_path: Path, champion_evaluated_as: Any, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.scoring.champion._fetch", lambda _: (champion_evaluated_as("cards"), bundle))
    with pytest.raises(RegistryError, match="1 of 1 golden rows another label"):
        score_file(scored, source, tmp_path / "out.csv", SETTINGS)
    assert bundle.seen == []
    assert list(tmp_path.glob("*out*")) == []


def test_two_processes_share_a_file(scored: Home, source: Path, tmp_path: Path, bundle: Any) -> None:
    """Each of them answers while the other does, no row is answered twice, and both end with the whole output."""
    settings = SETTINGS.model_copy(update={"scoring": SETTINGS.scoring.model_copy(update={"chunk_rows": 1})})
    score_file(scored, source, tmp_path / "alone.csv", settings)
    texts, together = sorted(bundle.seen), threading.Barrier(2)
    bundle.seen.clear()
    answer, met = bundle.predict_proba, []

    def predict_proba(rows: pd.DataFrame, *settings: Any) -> Any:
        if "golden" not in rows["text"].iloc[0] and threading.get_ident() not in met:
            met.append(threading.get_ident())
            together.wait()
        return answer(rows, *settings)

    bundle.predict_proba = predict_proba
    output = tmp_path / "out.csv"
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: score_file(scored, source, output, settings), range(2)))
    assert [(each.rows, each.scored) for each in found] == [(6, 3), (6, 3)]
    assert sorted(bundle.seen) == texts
    assert output.read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_killed_scoring_goes_on_where_it_stopped(
    scored: Home, source: Path, tmp_path: Path, bundle: Any, ending: str
) -> None:
    settings = SETTINGS.model_copy(update={"scoring": SETTINGS.scoring.model_copy(update={"chunk_rows": 2})})
    score_file(scored, source, tmp_path / f"whole.{ending}", settings)
    texts, output = list(bundle.seen), tmp_path / f"out.{ending}"
    bundle.seen.clear()
    bundle.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        score_file(scored, source, output, settings)
    assert not output.exists()
    bundle.fail_after = None
    assert score_file(scored, source, output, settings).rows == 6
    assert bundle.seen == texts
    assert output.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_unknown_ending_is_refused_before_anything_is_loaded(home: Home, source: Path) -> None:
    with pytest.raises(SettingsError, match=r"out\.xlsx: its ending must be \.parquet or \.csv"):
        score_file(home, source, source.with_name("out.xlsx"), SETTINGS)


def test_a_missing_folder_is_refused(home: Home, source: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        score_file(home, source, tmp_path / "nowhere" / "out.csv", SETTINGS)


def test_without_a_champion(home: Home, source: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no champion yet"):
        score_file(home, source, tmp_path / "out.csv", SETTINGS)


def test_a_missing_input(scored: Home, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        score_file(scored, tmp_path / "none.csv", tmp_path / "out.csv", SETTINGS)
    assert list(tmp_path.glob("out*")) == []
