"""Warns of problems in a sample that would be expensive to discover later."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from assets.features.duplicates import hash_starts
from assets.onboarding.guess import leaked_share
from assets.settings import Domain, Settings

__all__ = ["Reading", "advise"]

_TEMPLATE, _REPEATED, _BACKWARDS = 0.2, 0.5, 0.01
_TEST_ROWS = 20
"""The fewest test rows of a label by which it can be judged: one wrong answer is five points."""
_NAMED = 5


@dataclass(frozen=True)
class Reading:
    """A sample as the domain reads it."""

    rows: pd.DataFrame
    """The rows of the mart of records."""
    raw: pd.DataFrame
    """The source's fields, all text."""
    labels: dict[str, int]
    """The number of records by label, for every label of the domain."""
    repeated: int
    """Records beyond the first of their id."""


def advise(reading: Reading, domain: Domain, settings: Settings) -> Iterator[str]:
    """Warnings, one line each."""
    yield from _leaks(reading, domain)
    yield from _rare_labels(reading, settings)
    if reading.repeated > _REPEATED * len(reading.raw):
        yield (
            f"{reading.repeated:,} of {len(reading.raw):,} records repeat an id: they are versions of one record, of "
            f"which the newest counts; is {domain.id} the right field for `id`?"
        )
    yield from _times(reading, domain)
    yield from _templates(reading)


def _leaks(reading: Reading, domain: Domain) -> Iterator[str]:
    labelled = reading.rows[reading.rows["label"].notna()]
    labels, one = labelled["label"].tolist(), domain.label.one
    for name in domain.known:
        share = leaked_share(labelled[name].fillna("").tolist(), labels)
        if share is not None:
            yield (
                f"{name} gives the {one} away in {share:.0%} of records: if it is filled in when the {one} is, set "
                "`outcome: true` for it and remove it from entities and request"
            )


def _rare_labels(reading: Reading, settings: Settings) -> Iterator[str]:
    total = sum(reading.labels.values())
    if missing := [label for label, rows in reading.labels.items() if not rows]:
        yield f"no record has the label {', '.join(missing[:_NAMED])}: remove it from `labels`, or check its mapping"
    test = min(settings.snapshot.test_rows, max(total // 5, 1))
    rare = [label for label, rows in reading.labels.items() if 0 < rows * test < _TEST_ROWS * total]
    if rare:
        more = f" and {len(rare) - _NAMED} more" if len(rare) > _NAMED else ""
        yield (
            f"{', '.join(rare[:_NAMED])}{more}: fewer than {_TEST_ROWS} of {test:,} test rows would have this label, "
            "too few to judge it; bring more records, raise snapshot.test_rows, or merge labels"
        )


def _times(reading: Reading, domain: Domain) -> Iterator[str]:
    """Compares the source's times, since the marts never have a label before its record."""
    received, known = domain.received.field, domain.label.known.field
    if known is None:
        return
    both = reading.raw[[received, known]].dropna()
    days = both.apply(pd.to_datetime, errors="coerce", utc=True, format="mixed").apply(
        lambda times: times.dt.floor("D")
    )
    backwards = float((days[known] < days[received]).mean()) if len(days) else 0.0
    if backwards > _BACKWARDS:
        yield f"{known} is before {received} in {backwards:.0%} of the records: a label cannot come before its record"


def _templates(reading: Reading) -> Iterator[str]:
    starts = hash_starts(pa.chunked_array([pa.array(reading.rows["text"].dropna(), pa.string())]))
    _, counts = np.unique(starts[starts > 0], return_counts=True)
    share = counts.max() / len(starts) if len(counts) else 0.0
    if share >= _TEMPLATE:
        yield (
            f"{share:.0%} of the texts start with the same 120 characters: a template or a disclaimer, from which a "
            "model learns nothing; remove it with text.replace"
        )
