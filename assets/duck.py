"""Connections to DuckDB, which draws a progress bar on stdout for each query of over two seconds unless told not to."""

from pathlib import Path

import duckdb

__all__ = ["connect"]


def connect(database: Path | None = None, *, read_only: bool = False, **options: str) -> duckdb.DuckDBPyConnection:
    """A connection to a database's file, or to one in memory; stdout stays the program's.

    options: DuckDB's own, such as `memory_limit`. Raises duckdb.Error.
    """
    connection = duckdb.connect(str(database or ":memory:"), read_only=read_only, config=dict(options))
    connection.execute("set enable_progress_bar = false")
    return connection
