"""The sample that a domain is drafted from when no file is named: a column for everything that a domain can have."""

from pathlib import Path

from assets.onboarding.sample import Column, Sample

__all__ = ["EXAMPLE"]

_TEXTS = {
    "praise": ["the new screen is quick and clear", "thanks for the kind help on the phone"],
    "fault": ["the program stops when I open a file", "since the update nothing is saved any more"],
}
_ROWS = 40
_LABELS = tuple(list(_TEXTS)[row % 2] for row in range(_ROWS))

EXAMPLE = Sample(
    Path("records.csv"),
    (
        Column("id", tuple(str(row + 1) for row in range(_ROWS))),
        Column("arrived", tuple(f"2026-01-{1 + row // 2:02}T09:30:00+01:00" for row in range(_ROWS))),
        Column("shop", tuple(("north", "south", "west")[row % 3] for row in range(_ROWS))),
        Column("source", tuple(("mail", "form")[row // 3 % 2] for row in range(_ROWS))),
        Column("body", tuple(f"{_TEXTS[label][row // 2 % 2]}, case {row}" for row, label in enumerate(_LABELS))),
        Column("category", _LABELS),
    ),
    _ROWS,
    whole=False,
    delimiter=",",
)
