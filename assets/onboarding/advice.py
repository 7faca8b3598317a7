"""What in a sample would cost weeks if it were found later."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from assets.features.duplicates import hash_starts
from assets.onboarding.guess import gives_away
from assets.settings import Domain, Settings

__all__ = ["Seen", "advise"]

_TEMPLATE, _REPEATED, _BACKWARDS = 0.2, 0.5, 0.01
_TEST_ROWS = 20
"""So many test rows of a label say something of it: one wrong answer is five points."""
_NAMED = 5


@dataclass(frozen=True)
class Seen:
    """A sample as the domain reads it."""

    rows: pd.DataFrame
    """The mart of records."""
    raw: pd.DataFrame
    """The source's fields, all text."""
    labels: dict[str, int]
    """Records by label, each label of the domain named."""
    repeated: int
    """Records beyond the first of their id."""


def advise(seen: Seen, domain: Domain, settings: Settings) -> Iterator[str]:
    """Warnings, a line each."""
    yield from _leaks(seen, domain)
    yield from _rare_labels(seen, settings)
    if seen.repeated > _REPEATED * len(seen.raw):
        yield (
            f"{seen.repeated:,} of {len(seen.raw):,} records repeat an id: they are versions of one record, of which "
            f"the newest counts; is {domain.id} the right field for `id`?"
        )
    yield from _times(seen, domain)
    yield from _templates(seen)


def _leaks(seen: Seen, domain: Domain) -> Iterator[str]:
    labelled = seen.rows[seen.rows["label"].notna()]
    labels, one = labelled["label"].tolist(), domain.label.one
    for name in domain.known:
        told = gives_away(labelled[name].fillna("").tolist(), labels)
        if told is not None:
            yield (
                f"{name} gives the {one} away in {told:.0%} of records: if it is filled in when the {one} is, give it "
                "`outcome: true` and take it out of entities and request"
            )


def _rare_labels(seen: Seen, settings: Settings) -> Iterator[str]:
    total = sum(seen.labels.values())
    if missing := [label for label, rows in seen.labels.items() if not rows]:
        yield f"no record has the label {', '.join(missing[:_NAMED])}: take it out of `labels`, or see how it is mapped"
    test = min(settings.snapshot.test_rows, max(total // 5, 1))
    rare = [label for label, rows in seen.labels.items() if 0 < rows * test < _TEST_ROWS * total]
    if rare:
        more = f" and {len(rare) - _NAMED} more" if len(rare) > _NAMED else ""
        yield (
            f"{', '.join(rare[:_NAMED])}{more}: fewer than {_TEST_ROWS} of {test:,} test rows would have this label, "
            "which is too few to judge it; bring more records, raise snapshot.test_rows, or join labels"
        )


def _times(seen: Seen, domain: Domain) -> Iterator[str]:
    """The marts never have a label before its record, so times are compared as the source has them."""
    received, known = domain.received.field, domain.label.known.field
    if known is None:
        return
    both = seen.raw[[received, known]].dropna()
    days = both.apply(pd.to_datetime, errors="coerce", utc=True, format="mixed").apply(
        lambda times: times.dt.floor("D")
    )
    backwards = float((days[known] < days[received]).mean()) if len(days) else 0.0
    if backwards > _BACKWARDS:
        yield f"{known} is before {received} in {backwards:.0%} of the records: time runs backwards there"


def _templates(seen: Seen) -> Iterator[str]:
    starts = hash_starts(pa.chunked_array([pa.array(seen.rows["text"].dropna(), pa.string())]))
    _, counts = np.unique(starts[starts > 0], return_counts=True)
    share = counts.max() / len(starts) if len(counts) else 0.0
    if share >= _TEMPLATE:
        yield (
            f"{share:.0%} of the texts begin with the same 120 letters: a template or a disclaimer, of which a model "
            "learns nothing; cut it by text.replace"
        )
