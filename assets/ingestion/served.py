"""Served records: what requests have asked and been answered, as a table of the lake and as a source of records.

<home>/served/spool/<segment>.open.jsonl       what a server writes, an event a line; it holds the file's lock
<home>/served/spool/<segment>.jsonl            a closed segment
lake/served/<segment>/<version>/events.parquet all of its events
lake/served/<segment>/<version>/records.parquet its records, each a line in the domain's own format
<home>/served/source/0-served/<segment>.jsonl  these lines, until ingestion has read them

The spool is of the machine that answers, which lands it. The table is of all machines that share a home, and the source
is copied from it, so that an object has the same key and bytes on each of them.

Records have no label yet when they are asked about. Feedback that has the domain's outcomes makes a new version of the
record. The keys of these objects come before those of other sources, whose versions of a record are therefore newer;
records that are known from another source already are left to it.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets.duck import connect
from assets.hashing import hash_file
from assets.home import Home
from assets.ingestion.forgotten import Forgotten
from assets.ingestion.landing import TABLE as RAW
from assets.ingestion.landing import objects
from assets.ingestion.records import readable
from assets.ingestion.seen import Seen
from assets.lake import Lake
from assets.locks import locked
from assets.settings import Domain
from assets.writing import replacing

__all__ = [
    *("CLOSED", "KEY", "OPEN", "TABLE"),
    *("drop_read", "land", "record_id_of", "served_events", "served_files", "served_sources", "spool"),
]

OPEN, CLOSED = ".open.jsonl", ".jsonl"
TABLE, KEY, _RECORDS = "served", "0-served", "records.parquet"
_EVENTS = pa.schema(
    [
        *((name, pa.string()) for name in ("kind", "at", "request", "key", "record_id", "predicted")),
        ("confidence", pa.float64()),
        *((name, pa.string()) for name in ("reason", "version", "training_id")),
        ("ledger_entry", pa.int64()),
        *((name, pa.string()) for name in ("role", "features", "features_as_of", "label", "record")),
    ]
)
"""kind: answer, shadow (recorded, never returned) or feedback; at: ISO 8601, UTC; record: its fields, as JSON."""
_ASKED = """
    select record_id, arg_max(record, "at") from read_parquet($events)
    where kind = 'answer' and record_id in (select unnest($ids)) group by record_id
"""
_KNOWN = """
    select distinct records.record_id from read_parquet($records) records
    join read_parquet($objects) objects using (object_id)
    where records.record_id in (select unnest($ids)) and not starts_with(objects.key, $own)
"""


def spool(home: Home) -> Path:
    """The folder of the segments."""
    return home.root / "served" / "spool"


def served_sources(home: Home) -> list[str]:
    """The source of the records that were served, by whichever machine, and not read yet; none if there are none."""
    folder = home.root / "served" / "source"
    read = {each.key for each in objects(home.lake.current(RAW))} if home.lake.version(RAW) else set()
    for table in home.lake.tables(TABLE):
        key = f"{KEY}/{PurePosixPath(table).name}{CLOSED}"
        target = folder / key
        if key not in read and not target.exists() and (lines := _lines(home.lake, table)):
            with replacing(target) as file:
                file.writelines(line.encode() + b"\n" for line in lines)
    return [str(folder)] if any(folder.glob(f"{KEY}/*{CLOSED}")) else []


def served_files(home: Home) -> Iterator[Path]:
    """The segments of the spool, and the objects that were not read yet."""
    yield from sorted(spool(home).glob(f"*{OPEN}"))
    # Looked for later: one that is closed in the meantime is among these.
    closed = (home.root / "served").glob(f"*/**/*{CLOSED}")
    yield from sorted(path for path in closed if not path.name.endswith(OPEN))


def record_id_of(domain: Domain, line: bytes) -> str:
    """The id in a line of such a file."""
    row = json.loads(line)
    return row.get("record_id") or row.get(domain.source.names(domain.id)[0]) or ""


def drop_read(home: Home) -> None:
    """Remove the objects that the raw table has: it keeps their records, and reads no object twice."""
    if not served_sources(home) or home.lake.version(RAW) is None:
        return
    with home.lake.staging(RAW):  # nobody ingests in the meantime
        known = {(read.key, read.sha256) for read in objects(home.lake.current(RAW))}
        paths = sorted((home.root / "served" / "source" / KEY).glob(f"*{CLOSED}"))
        read = [path for path in paths if (f"{KEY}/{path.name}", hash_file(path)) in known]
        Seen.load(home.lake.root / RAW).drop(readable(str(path.absolute())) for path in read)
        for path in read:
            path.unlink()


def _lines(lake: Lake, table: str) -> list[str]:
    """The records of a segment; none if all of them were left to other sources."""
    version = lake.version(table)
    content = lake.read(table, version, _RECORDS) if version else None
    return pq.read_table(BytesIO(content))["line"].to_pylist() if content else []


def served_events(lake: Lake) -> list[str]:
    """The files of the table `served`, oldest first."""
    return [str(lake.current(table) / "events.parquet") for table in lake.tables(TABLE)]


def land(home: Home) -> list[str]:
    """Publish every closed segment, and those of servers that have died; returns their names.

    Repeating it changes nothing. A line that a killed server has not finished was never acknowledged, and is left out.
    Raises EvergreenError when the home lacks the key by which records were forgotten.
    """
    folder = spool(home)
    if not folder.is_dir():
        return []
    with locked(folder.parent / ".landing.lock"):
        for path in sorted(folder.glob(f"*{OPEN}")):
            _close_abandoned(path)
        segments = sorted(path for path in folder.glob(f"*{CLOSED}") if not path.name.endswith(OPEN))
        for path in segments:
            _land(home, path, Forgotten.read(home))
    return [path.name.removesuffix(CLOSED) for path in segments]


def _close_abandoned(path: Path) -> None:
    """Close a segment that no server holds."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if os.fstat(file.fileno()).st_nlink and path.exists():
            path.rename(path.with_name(path.name.removesuffix(OPEN) + CLOSED))


def _land(home: Home, path: Path, forgotten: Forgotten) -> None:
    table = f"{TABLE}/{path.name.removesuffix(CLOSED)}"
    events = [event for event in _read(path) if not forgotten.of(event["record_id"] or "")]
    if events:
        with home.lake.staging(table) as staged:
            rows = [event | {"record": _text(event.get("record"))} for event in events]
            pq.write_table(pa.Table.from_pylist(rows, schema=_EVENTS), staged / "events.parquet", compression="zstd")
            _write_records(home, events, staged / _RECORDS)
            # Named by its events alone: after a kill the version that is there stays, with the records that it has.
            home.lake.publish(table, hash_file(staged / "events.parquet")[:16], staged)
    path.unlink()


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from (json.loads(line) for line in file if line.endswith(b"\n"))


def _text(record: Any) -> str | None:
    return None if record is None else json.dumps(record, ensure_ascii=False)


def _write_records(home: Home, events: list[dict[str, Any]], path: Path) -> None:
    """The segment's records, but for those that are left to other sources; no file without any."""
    versions = list(_versions(home, events))
    known = _known_elsewhere(home, {record_id for record_id, _ in versions})
    rows = [
        {"record_id": record_id, "line": json.dumps(_in_source(home.domain, record), ensure_ascii=False)}
        for record_id, record in versions
        if record_id not in known
    ]
    if rows:
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _versions(home: Home, events: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, str | None]]]:
    """The records that were asked about, and those that feedback has completed, in order."""
    asked = {event["record_id"]: event["record"] for event in events if event["kind"] == "answer"}
    told = [event for event in events if event["kind"] == "feedback" and event.get("record")]
    before = _asked_before(home.lake, [event["record_id"] for event in told if event["record_id"] not in asked])
    for event in events:
        if event["kind"] == "answer" and event["record_id"]:
            yield event["record_id"], event["record"]
    for event in told:
        if record := asked.get(event["record_id"]) or before.get(event["record_id"]):
            yield event["record_id"], record | event["record"]


def _asked_before(lake: Lake, ids: list[str]) -> dict[str, dict[str, str | None]]:
    if not ids or not (events := served_events(lake)):
        return {}
    with connect() as connection:
        return {
            record_id: json.loads(record)
            for record_id, record in connection.execute(_ASKED, {"events": events, "ids": ids}).fetchall()
        }


def _known_elsewhere(home: Home, ids: Iterable[str]) -> set[str]:
    """The ids that the marts know from objects of other sources."""
    lake = home.lake
    if lake.version("marts") is None or lake.version("raw_records") is None:
        return set()
    parameters = {
        "records": str(lake.current("marts") / "fct_records" / "*.parquet"),
        "objects": str(lake.current("raw_records") / "objects.parquet"),
        "ids": sorted(ids),
        "own": f"{KEY}/",
    }
    with connect() as connection:
        return {record_id for (record_id,) in connection.execute(_KNOWN, parameters).fetchall()}


def _in_source(domain: Domain, record: dict[str, str | None]) -> dict[str, str | None]:
    """All fields by their names in the source: one that is missing is null, so that no object lacks it."""
    return {domain.source.names(name)[0]: record.get(name) for name in domain.source.fields}
