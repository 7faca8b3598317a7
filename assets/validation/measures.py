"""Figures of a mart by aggregate queries, file by file: a file is read again only when its content changes.

<home>/cache/measures.json   by a hash of the queries, then of a file's content: what the queries gave
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb

from assets.duck import connect
from assets.hashing import hash_json
from assets.warehouse.marts import day_of, hashes
from assets.writing import write_atomically

__all__ = ["Measures", "Memory", "quoted"]

_Figures = dict[str, dict[str, list[Any]]]


@dataclass(frozen=True)
class Memory:
    """A cache of earlier measurements that are still in use."""

    path: Path
    _before: _Figures
    _used: _Figures = field(default_factory=dict)
    connection: duckdb.DuckDBPyConnection = field(default_factory=connect)
    """Runs the queries; to open one costs more than most of them."""

    @classmethod
    def of(cls, path: Path) -> "Memory":
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def known(self, queries: str) -> dict[str, list[Any]]:
        """What these queries gave, by a hash of a file's content."""
        return self._before.get(queries, {}) | self._used.get(queries, {})

    def keep(self, queries: str, figures: dict[str, list[Any]]) -> None:
        self._used[queries] = figures

    def save(self) -> None:
        """Write what was used since the cache was opened, and forget the rest."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self._used))


class Measures:
    """What is measured of a mart in a version of the marts."""

    def __init__(self, folder: Path, name: str, memory: Memory) -> None:
        self._hashes = {
            folder / file: content for file, content in hashes(folder).items() if file.startswith(f"{name}/")
        }
        self._folder, self._name = folder, name
        self._memory = memory

    def columns(self) -> list[str]:
        """The columns of all files, sorted; one that not every file has is named with the first that has it."""
        names = "list(name order by column_id) filter (num_children is null)"
        query = f"select file_name, {names} from parquet_schema($files) group by file_name"  # noqa: S608 - ours
        rows = self._remembered(query)
        files = {file: set(columns) for file, (columns,) in rows.items()}
        everywhere = set.intersection(*files.values())
        somewhere = {
            column: file for file, columns in sorted(files.items(), reverse=True) for column in columns - everywhere
        }
        return sorted([*everywhere, *(f"{column} in {self._named(file)}" for column, file in somewhere.items())])

    def by_file(self, aggregates: Iterable[str]) -> dict[str, list[Any]]:
        """The figure of each file that has rows, by aggregate. What they give must be what JSON can hold."""
        ordered = sorted(set(aggregates))
        query = f"select filename, {', '.join(ordered)} from {_FILES} group by filename"  # noqa: S608 - ours
        rows = [row for row in self._remembered(query).values() if row]
        return {aggregate: [row[place] for row in rows] for place, aggregate in enumerate(ordered)}

    def repeated(self, columns: Sequence[str]) -> int:
        """Rows of which there is another with the same columns.

        Files of different times cannot have the same row: each is looked at by itself, and once.
        """
        day, rows = day_of(self._name), ", ".join(map(quoted, columns))
        instant = f"epoch_us({quoted(day)})" if day and day in columns else "null::bigint"
        groups = (
            f"select filename, {instant} as instant, count(*) as n from {_FILES} group by filename, instant, {rows}"  # noqa: S608
        )
        figures = f"{_REPEATED}, min(instant), max(instant), bool_or(instant is null)"
        query = f"select filename, {figures} from ({groups}) group by filename"  # noqa: S608 - ours
        files = [figures for figures in self._remembered(query).values() if figures]
        if len(files) == 1 or _apart([(first, last) for _, first, last, undated in files if not undated], len(files)):
            return sum(repeated for repeated, *_ in files)
        query = f"select {_REPEATED} from (select count(*) as n from {_FILES} group by {rows})"  # noqa: S608 - ours
        return int(self._fetch(query, self._files())[0][0])

    def places(self, condition: str, most: int) -> list[str]:
        """The places of the first rows for which a condition holds: file and row, counted from 1."""
        query = f"select filename, file_row_number + 1 from {_FILES} where {condition} limit {most}"  # noqa: S608 - ours
        return [f"row {row} of {self._named(file)}" for file, row in self._fetch(query, self._files())]

    def _remembered(self, query: str) -> dict[str, list[Any]]:
        """What a query gives for each file, none for one without rows; only files that it has not seen are read."""
        key = hash_json(query)[:16]
        known = self._memory.known(key)
        unknown = [str(path) for path, content in self._hashes.items() if content not in known]
        known |= {self._hashes[Path(file)]: [] for file in unknown}
        known |= {
            self._hashes[Path(file)]: figures for file, *figures in (self._fetch(query, unknown) if unknown else [])
        }
        self._memory.keep(key, {content: known[content] for content in self._hashes.values()})
        return {str(path): known[content] for path, content in self._hashes.items()}

    def _fetch(self, query: str, files: list[str]) -> list[tuple[Any, ...]]:
        return self._memory.connection.execute(query, {"files": files}).fetchall()

    def _files(self) -> list[str]:
        return [str(path) for path in self._hashes]

    def _named(self, file: str) -> str:
        return Path(file).relative_to(self._folder).as_posix()


_FILES = "read_parquet($files, filename = true, file_row_number = true, union_by_name = true)"

_REPEATED = "coalesce(sum(n) filter (n > 1), 0)::bigint"


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _apart(spans: list[tuple[int, int]], files: int) -> bool:
    """Whether every file has a span of time, from its first to its last, that meets no other's."""
    ordered = sorted(spans)
    meet = any(last >= first for (_, last), (first, _) in pairwise(ordered))
    return len(spans) == files and not meet
