"""Looks up in the ledger what `evergreen prune` has removed, and when."""

from pathlib import Path

from assets.home import Home
from assets.registry.shared_ledger import ledger_of

__all__ = ["ENTRY", "names_gone", "why_gone"]

ENTRY = "prune"
"""The kind of the ledger's entries about removals: body["removed"] has the names by setting."""


def why_gone(home: Home, path: Path, setting: str) -> str | None:
    """A clause saying when a file of the home was removed, and by which setting; None if it was not, or is back."""
    if path.exists():
        return None
    name = path.relative_to(home.root)
    names = {name.as_posix(), *(parent.as_posix() for parent in name.parents)}
    for entry in reversed(ledger_of(home).entries(ENTRY)):
        if any(names & set(group["names"]) for group in entry.body["removed"].values()):
            return f"`evergreen prune` removed it on {entry.as_of} ({setting} in configs/retention.yaml)"
    return None


def names_gone(home: Home, family: str) -> list[str]:
    """The sorted names of the tables of a family that were removed and are not back, such as days of `predictions`."""
    names = (
        Path(name)
        for entry in ledger_of(home).entries(ENTRY)
        for group in entry.body["removed"].values()
        for name in group["names"]
    )
    there = {table for table, _ in home.lake.versions(family)}
    gone = (name for name in names if name.parent == Path("lake", family) and f"{family}/{name.name}" not in there)
    return sorted({name.name for name in gone})
