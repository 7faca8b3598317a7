"""The asset `raw_records`: what a person sees of it, and that a bad source stops it with one line."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.home import Home
from assets.ingestion.definitions import IngestionConfig, raw_records
from assets.resources import Evergreen

AS_OF = "2023-02-01"

Shown = Callable[[Any], list[list[Any]]]
WriteCsv = Callable[[Path, Iterable[list[str]]], Path]


def materialize(home: Home, *sources: Path | str) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [AS_OF])
        return dg.materialize(
            [raw_records],
            partition_key=AS_OF,
            resources={"evergreen": Evergreen()},
            run_config=dg.RunConfig({"raw_records": IngestionConfig(sources=[str(source) for source in sources])}),
            instance=instance,
            raise_on_error=False,
        )


def evaluation(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    return next(check for check in result.get_asset_check_evaluations() if check.check_name == name)


@pytest.fixture
def source(tmp_path: Path, write_csv: WriteCsv, complaint: Callable[..., list[str]]) -> Path:
    return write_csv(tmp_path / "in" / "a.csv", [complaint(1), complaint(2)[:-1]])


def test_the_asset_reports_its_numbers_and_its_check(home: Home, source: Path, shown: Shown) -> None:
    result = materialize(home, source)
    (event,) = result.asset_materializations_for_node("raw_records")
    numbers = {name: event.metadata[name].value for name in ("landed", "records", "rejects", "version")}
    assert numbers == {"landed": 2, "records": 1, "rejects": 1, "version": home.lake.version("raw_records")}
    assert shown(event.metadata["reasons"]) == [["reason", "rejects"], ["too-few-fields", 1]]
    assert [row[0] for row in shown(event.metadata["objects"])] == ["object", "a.csv"]
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == {"conservation": True, "sources_only_grow": True}


def test_the_name_of_an_object_is_text(
    home: Home,
    tmp_path: Path,
    write_csv: WriteCsv,
    complaint: Callable[..., list[str]],
    shown: Shown,
) -> None:
    name = "<img src=x onerror=alert(1)>|**b**|`c`|[d](e).csv"
    write_csv(tmp_path / name, [complaint(1)])
    (event,) = materialize(home, tmp_path / name).asset_materializations_for_node("raw_records")
    assert [row[0] for row in shown(event.metadata["objects"])] == ["object", name]


def test_rows_that_vanish_after_publication_fail_the_check(home: Home, source: Path, shown: Shown) -> None:
    materialize(home, source)
    (part,) = home.lake.current("raw_records").glob("records/*.parquet")
    none = pq.read_table(part).slice(0, 0)
    part.unlink()
    pq.write_table(none, part)
    check = evaluation(materialize(home, source), "conservation")
    assert (check.passed, check.blocking) == (False, True)
    assert shown(check.metadata["imbalances"])[1:] == [["a.csv", 2, 0, 1]]


def test_sources_may_come_from_the_environment(home: Home, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_SOURCES", f"{source}, {source}")
    assert materialize(home).success
    monkeypatch.delenv("EVERGREEN_SOURCES")
    assert not materialize(home).success


def test_a_source_that_does_not_exist_fails_once_with_its_name(home: Home) -> None:
    result = materialize(home, "/no/such/folder")
    failures = [event for event in result.all_events if event.event_type_value.startswith("STEP_")]
    assert [event.event_type_value for event in failures] == ["STEP_START", "STEP_FAILURE"]
    assert "/no/such/folder: there is no such file or folder" in str(failures[-1].step_failure_data.error)


def test_sources_of_another_header_fail_before_anything_is_built(home: Home, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("number;text\n1;x\n")
    result = materialize(home, tmp_path / "a.csv")
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    error = str(failure.step_failure_data.error)
    assert "a.csv: there is no Date received, " in error
    assert (
        "; found number;text; configs/domain.yaml declares a source's fields; docs/your-own-data.md explains how"
        in error
    )
    assert home.lake.version("raw_records") is None


def test_what_is_not_as_it_was_is_seen_and_stops_nothing(home: Home, source: Path, shown: Shown) -> None:
    source.with_name("sheet.xlsx").touch()
    source.with_name("broken.csv").touch()
    materialize(home, source.parent)
    source.unlink()
    result = materialize(home, source.parent)
    assert result.success
    check = evaluation(result, "sources_only_grow")
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert check.metadata["deleted"].value == [str(source)]
    (event,) = result.asset_materializations_for_node("raw_records")
    assert event.metadata["not_read"].value == [str(source.with_name("sheet.xlsx"))]
    assert shown(event.metadata["refused_objects"])[1:] == [["broken.csv", "empty-object"]]
    assert evaluation(materialize(home, source.parent), "sources_only_grow").passed
