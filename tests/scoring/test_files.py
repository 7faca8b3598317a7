import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from assets.exceptions import RegistryError, SettingsError, SourceError
from assets.ingestion.records import COLUMNS
from assets.lake import Home
from assets.scoring.files import score_file
from assets.settings import load_settings

HEADER = list(COLUMNS)
SETTINGS = load_settings("quick")


def record(complaint_id: str, narrative: str, **fields: str) -> list[str]:
    values = {"Date received": "2024-01-05", "Company": "ACME", "State": "CA", "Submitted via": "Web"}
    values |= {"Complaint ID": complaint_id, "Consumer complaint narrative": narrative, **fields}
    return [values.get(name, "") for name in HEADER]


@pytest.fixture
def scored(home: Home, bundle: Any, champion: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("assets.scoring.files._champion", lambda _: (champion, bundle))
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
    assert table.column_names == ["complaint_id", "queue", "confidence", "model_version", "reason"]
    rows = table.to_pydict()
    assert rows["complaint_id"] == ["1", None, "3", "4", None, "6"]
    assert rows["queue"] == ["mortgage", None, None, "cards", None, "money_transfer"]
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


def test_a_failure_leaves_what_was_there(scored: Home, source: Path, tmp_path: Path, bundle: Any) -> None:
    output = tmp_path / "out.csv"
    output.write_text("before")
    bundle.features = ("a_feature_that_is_not_there",)
    with pytest.raises(AssertionError):
        score_file(scored, source, output, SETTINGS)
    assert output.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


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
