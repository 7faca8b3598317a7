"""The marts as files: every mart is a folder of Parquet files, one per partition, in each version of the marts.

<version>/<mart>/<partition>.parquet
<version>/MANIFEST.json                 SHA-256 of each file; the version is named by its hash

A partition is a week, so that a night's records touch few. Its file is a function of its rows alone, and one that has
the content of the version before is a hard link of that version's.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.lake import hash_file, hash_json

__all__ = ["MARTS", "content", "mart", "new_files", "partition_file", "seal", "write_partitions"]

MARTS = ("fct_complaints", "labels", "company_daily", "state_daily", "quarantined_complaints", "record_counts")
"""The tables that are staged by a build, audited and published together."""

_MANIFEST = "MANIFEST.json"
_EMPTY = "empty"
_ROW_GROUP = 100_000


def mart(folder: Path, name: str) -> str:
    """The files of a mart in a version of the marts, as the pattern that DuckDB's read_parquet takes.

    Its rows are in the order of the files' names.
    """
    alone = folder / f"{name}.parquet"  # as in versions that were published before marts had partitions
    return str(alone if alone.exists() else folder / name / "*.parquet")


def partition_file(folder: Path, name: str, partition: str) -> Path:
    """Where a partition of a mart is written; makes the mart's folder."""
    (folder / name).mkdir(exist_ok=True)
    return folder / name / f"{partition}.parquet"


def new_files(folder: Path, name: str, before: Path | None) -> list[Path]:
    """The files of a mart in a version that are not the same files in another, sorted; all of them without another."""
    files = sorted((folder / name).glob("*.parquet"))
    return [path for path in files if before is None or not _same(path, before / name / path.name)]


def write_partitions(database: duckdb.DuckDBPyConnection, name: str, folder: Path) -> None:
    """Write a mart of the warehouse into a folder of marts; one file without rows when it has none."""
    key, order = _LAYOUT[name]
    rows = database.sql(f"select {key} as partition, * from {name} order by partition, {order}")  # noqa: S608
    reader = rows.to_arrow_reader(_ROW_GROUP)
    assert reader is not None
    schema = reader.schema.remove(0)
    for partition, parts in groupby(_split(reader), key=lambda part: part[0]):
        _write(partition_file(folder, name, partition), schema, (rows for _, rows in parts))
    if not (folder / name).exists():
        _write(partition_file(folder, name, _EMPTY), schema, iter(()))


def seal(folder: Path, before: Path | None) -> str:
    """Name a folder of marts by its content; files with the content of another version's become links of those."""
    found = _hashes(folder, before)
    known = _manifest(before)
    for name in found.keys() & known.keys():
        if before is not None and found[name] == known[name] and not _same(folder / name, before / name):
            (folder / name).unlink()
            (folder / name).hardlink_to(before / name)
    (folder / _MANIFEST).write_text(json.dumps(found, indent=0, sort_keys=True))
    return _version(found)


def content(folder: Path, before: Path | None = None) -> str:
    """The version that a folder's files make, by reading them; those that are another version's files are not read."""
    return _version(_hashes(folder, before))


_LAYOUT = {
    "fct_complaints": ("date_trunc('week', known_at)::date", "complaint_id, known_at"),
    "labels": ("date_trunc('week', known_at)::date", "complaint_id, known_at"),
    "company_daily": ("date_trunc('week', event_timestamp)::date", "company, event_timestamp"),
    "state_daily": ("date_trunc('week', event_timestamp)::date", "state, event_timestamp"),
    "quarantined_complaints": (
        "coalesce(date_trunc('week', known_from)::date::varchar, 'history')",
        "object_key, line, reason, raw_text",
    ),
    "record_counts": ("'all'", "object_key, object_id"),
}
"""Of each mart the partition that a row is in, and the order of the rows in it."""


def _split(reader: pa.RecordBatchReader) -> Iterator[tuple[str, pa.Table]]:
    """The rows by partition, which is the first column and sorted."""
    for batch in reader:
        column = batch.column(0)
        ends = pc.run_end_encode(column).run_ends.to_pylist()
        for start, end in zip([0, *ends], ends, strict=False):
            yield str(column[start]), pa.Table.from_batches([batch.slice(start, end - start)]).remove_column(0)


def _write(path: Path, schema: pa.Schema, parts: Iterator[pa.Table]) -> None:
    """Write rows in groups that do not depend on how they arrive: the same rows make the same bytes."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        held = schema.empty_table()
        for part in parts:
            held = pa.concat_tables([held, part])
            while len(held) >= _ROW_GROUP:
                writer.write_table(held.slice(0, _ROW_GROUP).combine_chunks())
                held = held.slice(_ROW_GROUP)
        if len(held):
            writer.write_table(held.combine_chunks())


def _hashes(folder: Path, before: Path | None) -> dict[str, str]:
    """SHA-256 of each file by its name in the folder."""
    known = _manifest(before)
    found = {}
    for path in sorted(folder.glob("*/*.parquet")):
        name = path.relative_to(folder).as_posix()
        same = before is not None and name in known and _same(path, before / name)
        found[name] = known[name] if same else hash_file(path)
    return found


def _manifest(folder: Path | None) -> dict[str, str]:
    if folder is None or not (folder / _MANIFEST).exists():
        return {}
    found: dict[str, str] = json.loads((folder / _MANIFEST).read_text())
    return found


def _version(hashes: dict[str, str]) -> str:
    return hash_json(hashes)[:16]


def _same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)
