"""Connections to DuckDB leave stdout to the program."""

from pathlib import Path

import pytest
import yaml

from assets.duck import connect

PROFILE = Path(__file__).parents[1] / "assets" / "warehouse" / "dbt" / "profiles.yml"


@pytest.mark.parametrize("file", [None, "some.duckdb"])
def test_no_connection_draws_a_progress_bar(tmp_path: Path, file: str | None) -> None:
    with connect(tmp_path / file if file else None, memory_limit="1GB") as connection:
        for each in (connection, connection.cursor()):
            drawn, memory = each.execute(
                "select current_setting('enable_progress_bar'), current_setting('memory_limit')"
            ).fetchall()[0]
            assert drawn is False
            assert memory == "953.6 MiB"


def test_dbt_draws_none() -> None:
    settings = yaml.safe_load(PROFILE.read_text())["evergreen"]["outputs"]["embedded"]["settings"]
    assert settings["enable_progress_bar"] is False
