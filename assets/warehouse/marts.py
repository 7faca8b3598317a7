"""The marts as files: in each version, every mart is a folder of Parquet files, one per partition.

<version>/<mart>/<partition>.parquet
<version>/MANIFEST.json                 SHA-256 of each file; its hash names the version

A partition is a week, so that a night's records touch few of them. A file depends only on its rows, and one with the
same content as in the version before is a hard link to it.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from zlib import crc32

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.as_of import date_of
from assets.duck import connect
from assets.hashing import hash_file, hash_json
from assets.lake import Lake
from assets.settings import Domain

__all__ = [
    "adopt",
    "content",
    "counted_objects",
    "damaged",
    "day_of",
    "hashes",
    "link_others",
    "mart",
    "mart_names",
    "partition_file",
    "partitions",
    "seal",
    "visible",
    "week",
    "write_partitions",
]

_DAILY = "_daily"

_MANIFEST = "MANIFEST.json"
_TURNS = 29
"""Days in which every file is verified once: a prime, so that this also holds where objects land weekly."""
_EMPTY, _UNDATED, _ALL = "empty", "undated", "all"
_ROW_GROUP = 100_000
_WEEK = timedelta(days=7)

_log = logging.getLogger("evergreen")


def mart_names(domain: Domain) -> tuple[str, ...]:
    """The tables that a build stages, and that are audited and published together."""
    daily = (f"{entity}{_DAILY}" for entity in domain.entities)
    return ("fct_records", "labels", *daily, "quarantined_records", "record_counts")


def mart(folder: Path, name: str) -> str:
    """The files of a mart in a version of the marts, as a pattern for DuckDB's read_parquet.

    Rows come in the order of the file names.
    """
    return str(folder / name / "*.parquet")


def visible(rows: str, as_of: str = "$as_of::timestamp") -> str:
    """SQL for: this version of a record is the newest known as of an instant. Both arguments are SQL expressions."""
    return f"({rows}.known_at <= {as_of} and ({rows}.known_until is null or {rows}.known_until > {as_of}))"


def adopt(lake: Lake) -> None:
    """Move marts from before partitions, one file each, to where a mart's files are now."""
    for single in sorted(lake.root.glob("marts/[!.]*/*.parquet")):
        single.rename(partition_file(single.parent, single.stem, _ALL))


def counted_objects(folder: Path) -> set[str]:
    """The ids of the source objects whose records count in a version of the marts."""
    counts = "select object_id from read_parquet(?) where landed > 0"
    with connect() as connection:
        return {object_id for (object_id,) in connection.execute(counts, [mart(folder, "record_counts")]).fetchall()}


def partition_file(folder: Path, name: str, partition: str) -> Path:
    """The path of a mart's partition; creates the mart's folder."""
    (folder / name).mkdir(exist_ok=True)
    return folder / name / f"{partition}.parquet"


def partitions(folder: Path, name: str) -> set[str]:
    """The partitions with rows of a mart in a version."""
    return {path.stem for path in (folder / name).glob("*.parquet")} - {_EMPTY}


def day_of(name: str) -> str | None:
    """The column whose week gives a row's partition in a mart; None for a mart with a single partition."""
    return _layout(name)[0]


def week(day: str | None) -> str:
    """The partition of a day or an as-of: its Monday, or the partition for rows without a day."""
    if day is None:
        return _UNDATED
    named = date_of(day)
    return (named - timedelta(days=named.weekday())).isoformat()


def write_partitions(
    database: duckdb.DuckDBPyConnection, name: str, folder: Path, only: Iterable[str] | None = None
) -> None:
    """Write partitions of a warehouse's mart into a folder of marts, by default all of them.

    A partition without rows has no file; but when the mart would have no file at all, one without rows is written.
    """
    for condition in ["true"] if only is None else _within(name, set(only)):
        _write_rows(database, name, folder, condition)
    if not any((folder / name).glob("*.parquet")):
        schema = database.sql(f"from {name} limit 0").to_arrow_table().schema
        _write(partition_file(folder, name, _EMPTY), schema, iter(()))


def link_others(before: Path, name: str, folder: Path, written: Iterable[str]) -> None:
    """Hard-link the files of a mart's other partitions from another version of the marts."""
    for partition in partitions(before, name) - set(written):
        partition_file(folder, name, partition).hardlink_to(before / name / f"{partition}.parquet")


def damaged(before: Path, name: str, day: date) -> set[str]:
    """The partitions of a mart whose files no longer have the content written, among those due on a day.

    A file that is linked from night to night is never read in full otherwise, and disks lose data.
    """
    written, turn = hashes(before), day.toordinal() % _TURNS
    files = {partition: f"{name}/{partition}.parquet" for partition in partitions(before, name)}
    due = {partition: file for partition, file in files.items() if crc32(file.encode()) % _TURNS == turn}
    changed = {partition for partition, file in due.items() if hash_file(before / file) != written.get(file)}
    for partition in sorted(changed):
        _log.warning("%s is not what was written: it is written again from the warehouse", before / files[partition])
    return changed


def seal(folder: Path, before: Path | None) -> str:
    """Name a folder of marts by its content; files with the same content as another version's become links to them."""
    digests = _hashes(folder, before)
    for name, digest in digests.items():
        old = before / name if before else None
        if old and old.exists() and not _same(folder / name, old) and hash_file(old) == digest:
            (folder / name).unlink()
            (folder / name).hardlink_to(old)
    (folder / _MANIFEST).write_text(json.dumps(digests, indent=0, sort_keys=True))
    return _version(digests)


def content(folder: Path, before: Path | None = None) -> str:
    """The version of a folder, from the content of its files; links to another version's files are not read."""
    return _version(_hashes(folder, before))


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a version of the marts when written, by name in the folder; empty without a manifest."""
    manifest = folder / _MANIFEST
    digests: dict[str, str] = json.loads(manifest.read_text()) if manifest.exists() else {}
    return digests


_LAYOUT: dict[str, tuple[str | None, str]] = {
    "fct_records": ("known_at", "record_id, known_at"),
    "labels": ("known_at", "record_id, known_at"),
    "quarantined_records": ("known_from", "object_key, line, reason, raw_text"),
    "record_counts": (None, "object_key, object_id"),
}


def _layout(name: str) -> tuple[str | None, str]:
    """A mart's column whose week gives the partition, and the order of rows within a partition."""
    if name.endswith(_DAILY):
        return "event_timestamp", f"{name.removesuffix(_DAILY)}, event_timestamp"
    return _LAYOUT[name]


def _write_rows(database: duckdb.DuckDBPyConnection, name: str, folder: Path, condition: str) -> None:
    day, order = _layout(name)
    key = f"coalesce(date_trunc('week', {day})::date::varchar, '{_UNDATED}')" if day else f"'{_ALL}'"
    sql = f"select {key} as partition, * from {name} where {condition} order by partition, {order}"  # noqa: S608
    reader = database.sql(sql).to_arrow_reader(_ROW_GROUP)
    assert reader is not None
    for partition, parts in groupby(_split(reader), key=lambda part: part[0]):
        _write(partition_file(folder, name, partition), reader.schema.remove(0), (rows for _, rows in parts))


def _within(name: str, only: set[str]) -> Iterator[str]:
    """Conditions for the rows of some partitions, by bounds, so that DuckDB does not read the texts of other weeks.

    Consecutive weeks share one condition.
    """
    day = day_of(name)
    if day is None:
        yield "true"
        return
    if _UNDATED in only:
        yield f"{day} is null"
    mondays = {date.fromisoformat(partition) for partition in only - {_UNDATED}}
    firsts = sorted(monday for monday in mondays if monday - _WEEK not in mondays)
    ends = sorted(after for monday in mondays if (after := monday + _WEEK) not in mondays)
    for first, end in zip(firsts, ends, strict=True):
        yield f"{day} >= '{first}' and {day} < '{end}'"


def _split(reader: pa.RecordBatchReader) -> Iterator[tuple[str, pa.Table]]:
    """The rows by partition; the first column is the partition, and sorted."""
    for batch in reader:
        column = batch.column(0)
        ends = pc.run_end_encode(column).run_ends.to_pylist()
        for start, end in zip([0, *ends], ends, strict=False):
            yield str(column[start]), pa.Table.from_batches([batch.slice(start, end - start)]).remove_column(0)


def _write(path: Path, schema: pa.Schema, parts: Iterator[pa.Table]) -> None:
    """Write rows in groups that do not depend on the batches they come in: the same rows give the same bytes."""
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
    known = hashes(before) if before else {}
    digests = {}
    for path in sorted(folder.glob("*/*.parquet")):
        name = path.relative_to(folder).as_posix()
        same = before is not None and name in known and _same(path, before / name)
        digests[name] = known[name] if same else hash_file(path)
    return digests


def _version(digests: dict[str, str]) -> str:
    return hash_json(digests)[:16]


def _same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)
