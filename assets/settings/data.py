"""What is read, what stops a publication, and what a training set is."""

import re

from pydantic import Field, field_validator

from assets.settings.section import Section

__all__ = ["IngestionSettings", "NameHints", "SnapshotSettings", "WarehouseSettings"]


class IngestionSettings(Section):
    max_record_bytes: int = Field(ge=1024)
    """A record that is longer, or whose quotes are still open after this many bytes, is broken."""
    chunk_bytes: int = Field(ge=4096)
    """The stretch of an object that is in memory at a time."""
    max_object_bytes: int = Field(ge=1)
    """A larger object is refused unread."""
    max_expansion: int = Field(ge=1)
    """A packed object that expands to more than this many times its size is refused from there on."""
    max_expanded_bytes: int = Field(ge=1)
    """The same, in bytes."""
    batch_records: int = Field(ge=1)
    """Records held in memory before they are written."""
    published_in_key: str | None
    """A regular expression for the day of publication in an object's key, with the groups year, month and, if there
    are days, day; None where keys do not tell."""

    @field_validator("published_in_key")
    @classmethod
    def _names_a_month(cls, pattern: str | None) -> str | None:
        try:
            groups = set(re.compile(pattern).groupindex) if pattern is not None else {"year", "month"}
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if not {"year", "month"} <= groups <= {"year", "month", "day"}:
            raise ValueError("name its groups year, month and, if there are days, day")
        return pattern


class WarehouseSettings(Section):
    max_unmapped_share: float = Field(ge=0, le=1)
    """The largest share of valid records whose product no label is mapped to: of all, of an object, of a night."""
    max_quarantined_share: float = Field(ge=0, le=1)
    """The largest share of landed records that may be quarantined: of all, of an object, of a night."""
    min_object_rows: int = Field(ge=1)
    """Objects and nights of fewer records are not judged by shares."""
    max_staleness_days: int = Field(ge=0)
    """The newest known record may be at most this many days older than as-of."""
    max_mix_shift: float = Field(ge=0, le=1)
    """The largest total variation distance of a label mix from the previous publication's: of all, of a new object, of
    a night."""


class SnapshotSettings(Section):
    test_rows: int = Field(ge=1)
    """Rows in the test part: the newest records with a known label."""
    min_train_rows: int = Field(ge=1)
    """Fewer rows than this to train on stop the graph."""
    max_train_rows: int = Field(ge=1)
    """The newest rows kept for training."""
    max_copies: int | None = Field(ge=1)
    """Training rows that may begin with the same 120 characters, the newest; None for any number."""
    near_duplicate_similarity: float = Field(gt=0, le=1)
    """Jaccard similarity of word shingles at which two texts are near duplicates."""
    reference_share: float = Field(ge=0, lt=1)
    """The share of texts that no training ever sees; 0 for none."""
    max_adversarial_auc: float = Field(ge=0.5, le=1)
    """How well a small model may tell test rows from train rows by their features before it is reported."""
    reference_rows: int = Field(ge=0)
    """How many of them challenger and champion are compared on: always the same ones, until there are more."""


class NameHints(Section):
    """What a column's name hints at: words, or parts of words."""

    id: tuple[str, ...]
    title: tuple[str, ...]
    received: tuple[str, ...]
    settled: tuple[str, ...]
    """When its label became known."""
    label: tuple[str, ...]
    entities: tuple[str, ...]
    request: tuple[str, ...]
