"""The objects of the raw table, for people to look at."""

from assets.display import Table
from assets.ingestion.landing import Landing, ObjectRead

__all__ = ["objects_table", "refused_table"]


def objects_table(landing: Landing, most: int) -> Table:
    """The newest objects, and what was read of each."""
    rows = [
        (r.key, r.known_from or "", r.bytes, r.landed, r.records, r.rejects, _state(r), r.notes or "")
        for r in landing.objects[-most:]
    ]
    return Table(["object", "known from", "bytes", "landed", "records", "rejects", "error", "notes"], rows)


def refused_table(landing: Landing, most: int) -> Table:
    """The newest objects that could not be read as a whole, but for those that were withdrawn, and why."""
    rows = [(read.key, read.error) for read in landing.objects if read.error and read.withdrawn is None]
    return Table(["object", "error"], rows[-most:])


def _state(read: ObjectRead) -> str:
    return f"withdrawn: {read.withdrawn}" if read.withdrawn is not None else read.error or ""
