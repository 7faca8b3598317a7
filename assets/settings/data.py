"""Settings of ingestion, of the limits that stop a publication, and of training sets."""

import re

from pydantic import Field, field_validator

from assets.settings.section import Section

__all__ = ["IngestionSettings", "NameHints", "SnapshotSettings", "WarehouseSettings"]


class IngestionSettings(Section):
    """What bounds the reading of sources."""

    max_record_bytes: int = Field(ge=1024)
    """A record that is longer, or whose quotes are still open after this many bytes, is broken."""
    chunk_bytes: int = Field(ge=4096)
    """The part of an object held in memory at a time."""
    max_object_bytes: int = Field(ge=1)
    """A larger object is refused unread."""
    max_expansion: int = Field(ge=1)
    """A compressed object that expands to more than this many times its size is refused from there on."""
    max_expanded_bytes: int = Field(ge=1)
    """The same limit, in bytes."""
    batch_records: int = Field(ge=1)
    """Records held in memory before they are written."""
    published_in_key: str | None
    """A regular expression for the time of publication in an object's key, with the groups year, month and, if the key
    has them, day and hour (UTC); None where keys do not say."""

    @field_validator("published_in_key")
    @classmethod
    def _names_a_month(cls, pattern: str | None) -> str | None:
        try:
            groups = set(re.compile(pattern).groupindex) if pattern is not None else {"year", "month"}
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if not {"year", "month"} <= groups <= {"year", "month", "day", "hour"}:
            raise ValueError("name its groups year, month and, as far as keys tell, day and hour")
        return pattern


class WarehouseSettings(Section):
    """What stops a publication, and where a share of an object is judged."""

    max_unmapped_share: float = Field(ge=0, le=1)
    """The largest share of valid records whose label value maps to no label: of all, of an object, of a night."""
    max_quarantined_share: float = Field(ge=0, le=1)
    """The largest share of landed records that may be quarantined: of all, of an object, of a night."""
    min_object_rows: int = Field(ge=1)
    """Objects and nights with fewer records are not judged by shares."""
    max_staleness_days: int = Field(ge=0)
    """The most days that the newest known record may be older than as-of."""
    max_mix_shift: float = Field(ge=0, le=1)
    """The largest total variation distance between a label mix and the previous publication's: of all records, of a new
    object, of a night."""


class SnapshotSettings(Section):
    """Which rows a training set has."""

    test_rows: int = Field(ge=1)
    """Rows in the test part: the newest records with a known label."""
    min_train_rows: int = Field(ge=1)
    """With fewer rows to train on than this, the graph stops."""
    max_train_rows: int = Field(ge=1)
    """The most rows used for training; the newest are kept."""
    max_copies: int | None = Field(ge=1)
    """The most training rows that may start with the same 120 characters; the newest are kept. None for no limit."""
    near_duplicate_similarity: float = Field(gt=0, le=1)
    """The Jaccard similarity of word shingles from which two texts are near duplicates."""
    reference_share: float = Field(ge=0, lt=1)
    """The share of texts that no training ever sees; 0 for none."""
    max_adversarial_auc: float = Field(ge=0.5, le=1)
    """The area under the ROC curve with which a small model may separate test rows from train rows by their features
    before that is reported."""
    reference_rows: int = Field(ge=0)
    """How many of those texts challenger and champion are compared on: always the same ones, until there are more."""


class NameHints(Section):
    """Words, or parts of words, in a column's name that hint at its role."""

    id: tuple[str, ...]
    """Identifies a record."""
    title: tuple[str, ...]
    """Is read before the text."""
    received: tuple[str, ...]
    """When a record came in."""
    settled: tuple[str, ...]
    """When its label became known."""
    label: tuple[str, ...]
    """Is the label, or part of it."""
    entities: tuple[str, ...]
    """Whom or what a record is about: its history gives features."""
    request: tuple[str, ...]
    """Is known when a record comes in."""
