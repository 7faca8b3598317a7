"""What is particular to a domain: how its source is read, what is known of a record, and what its labels are."""

import re
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from assets.settings.section import Section

__all__ = [
    *("RESERVED", "Domain", "Label", "LabelKnown", "Received", "Replacement"),
    *("Source", "SourceField", "TextReading", "Words"),
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=50)]
"""What may be part of a column's name, as labels and entities are."""

_OWN = ("record_id", "known_at", "label_known_at", "label", "text")
"""What a row has in every domain."""
_OF_THE_MARTS = ("known_until", "received_at", "label_reason", "event_timestamp")
_OF_STAGING = ("position", "status", "reason", "known_from", "raw_text", "is_new")
"""What the marts and their making have beside it."""
_OF_THE_READER = ("object_id", "line", "content_hash")
"""What the reader adds to the fields of a record."""
RESERVED = frozenset((*_OWN, *_OF_THE_MARTS, *_OF_STAGING, *_OF_THE_READER))
"""Columns that tables have in every domain."""


class Words(Section):
    """What people call one of something, and many."""

    one: str = Field(min_length=1)
    """Such as review."""
    many: str = Field(min_length=1)
    """Such as reviews."""


class SourceField(Section):
    """A field of a record."""

    names: tuple[str, ...] = ()
    """What the source has called it, now or before: a column's head, or in JSON Lines a key, whose dots lead into
    objects. By default the field's own name. Read without regard to case and outer blanks."""
    type: Literal["text", "number", "day", "instant"] = "text"
    """A day is one of the calendar; an instant has a time of day, and is UTC where it names no zone."""
    formats: tuple[str, ...] = ()
    """How days and instants are written, beside ISO 8601, in the letters of strptime."""
    required: bool = True
    """Whether an object without it is refused; it is empty otherwise."""
    outcome: bool = False
    """Whether it becomes known only after a record has come in: it is never a feature, and a file to be answered may
    lack it."""

    @model_validator(mode="after")
    def _formats_are_of_times(self) -> "SourceField":
        if self.formats and self.type not in ("day", "instant"):
            raise ValueError(f"formats are those of a day or an instant, not of a {self.type}")
        return self


class Source(Section):
    """How the source's files are read: .csv, .jsonl and .parquet, by their endings."""

    delimiter: Literal[",", ";", "|", "\t"] = ","
    """What stands between the fields of a CSV file."""
    fields: dict[Name, SourceField] = Field(min_length=1)
    """The fields of a record, by the names that the rest of the domain calls them."""

    @model_validator(mode="after")
    def _tells_its_fields_apart(self) -> "Source":
        if reserved := [name for name in self.fields if name in _OF_THE_READER]:
            raise ValueError(
                f"fields.{reserved[0]}: {', '.join(_OF_THE_READER)} are the reader's own; choose another name"
            )
        heads = [head.strip().casefold() for name in self.fields for head in self.names(name)]
        if repeated := [head for place, head in enumerate(heads) if head in heads[:place]]:
            raise ValueError(f"fields: two are called {repeated[0]!r} in the source")
        return self

    def names(self, field: str) -> tuple[str, ...]:
        """What the source has called a field."""
        return self.fields[field].names or (field,)


class Received(Section):
    """When a record came in."""

    field: Name
    """Of type day or instant."""
    not_before: date = date(1970, 1, 1)
    """A record of an earlier day is quarantined."""


class LabelKnown(Section):
    """When a record's label became known."""

    field: Name | None = None
    """Of type day or instant. A label without it is not known yet, unless `after_days` says otherwise."""
    after_days: int | None = Field(default=None, ge=0, le=10_000)
    """So many days after the record came in, where no field says when."""

    @model_validator(mode="after")
    def _says_when(self) -> "LabelKnown":
        if self.field is None and self.after_days is None:
            raise ValueError("name a field or after_days (0: together with the record)")
        return self


class Label(Words):
    """What people call a label, and how a record gets its own."""

    fields: tuple[Name, ...] = Field(min_length=1)
    """Fields of the source that it is read from; dbt/models/mapped_labels.sql maps them. Without that model it is one
    field, whose values are the labels' names or what people call them."""
    known: LabelKnown
    """From when on."""


class Replacement(Section):
    """What is replaced in a text, wherever it occurs."""

    pattern: str
    """A regular expression."""
    by: str
    """What stands in its place; `\\1` is the first group."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class TextReading(Section):
    """What a record's text is, and how a model reads it."""

    fields: tuple[Name, ...] = Field(min_length=1)
    """Fields of the source that it is made of, a paragraph each: a title first."""
    before: tuple[Name, ...] = ()
    """Columns whose values are read before it, what decides most first."""
    whole: tuple[Name, ...] = ()
    """Columns whose value weighs as much as all words of the text, in the model's linear branch."""
    replace: tuple[Replacement, ...] = ()
    """What is replaced in it, in order, before anything else."""


class Domain(Section):
    """What is particular to a kind of records."""

    name: Name
    """Lower-case letters, digits and underscores. A home is one domain's, by its name."""
    title: str = Field(min_length=1)
    """What a model of the domain does, as a heading."""
    purpose: str = Field(min_length=1)
    """The same in a sentence or two, for the registry and the model's page."""
    limits: tuple[str, ...] = ()
    """What a model of the domain is not for or does not see, a sentence each."""
    record: Words
    """What people call a record."""
    source: Source
    """How files are read, and the fields of a record in them."""
    id: Name
    """The field that says which record it is: the same in each of its versions."""
    received: Received
    """When a record came in."""
    label: Label
    """What people call a label, where it is read from, and when it is known."""
    labels: dict[Name, str] = Field(min_length=2)
    """What the model answers with, in the order of its outputs, and what people call it."""
    entities: tuple[Name, ...] = ()
    """Fields whose past makes features: each has a mart `<entity>_daily`."""
    request: tuple[Name, ...] = ()
    """Fields that are known besides when a record comes in."""
    text: TextReading
    """What a record's text is, and how a model reads it."""
    slices: dict[Name, tuple[str, ...]] = Field(default={})
    """Columns by which an evaluation is broken down: by their most frequent values or, where words are given, by which
    of these the value holds."""
    watched: tuple[Name, ...] = ()
    """Columns whose drift is watched, beside text, features, predictions and labels."""
    expected: dict[Name, tuple[str, ...]] = Field(default={})
    """Values that a column is expected to have; others are reported, and stop nothing."""
    sensitive: tuple[Name, ...] = ()
    """Fields whose values are shown to nobody: in no report, slice or check."""
    simulator: str | None = None
    """A module of the domain's folder with `simulate`, which writes sources of a world that changes."""

    @property
    def known(self) -> tuple[str, ...]:
        """The columns of a record that are known when it comes in, its text aside."""
        return (*self.entities, *self.request)

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row of a training set has before its features."""
        return (*_OWN, *self.known)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The source's fields that are known only after a record has come in."""
        return tuple(name for name, field in self.source.fields.items() if field.outcome)

    @model_validator(mode="after")
    def _names_fields_of_its_source(self) -> "Domain":
        named = {"id": (self.id,), "received.field": (self.received.field,), "text.fields": self.text.fields}
        named |= {"entities": self.entities, "request": self.request}
        late = {"label.fields": self.label.fields, "label.known.field": (self.label.known.field or self.id,)}
        fields = tuple(self.source.fields)
        for where, names in (named | late | {"sensitive": self.sensitive}).items():
            _require(where, names, fields, "no field of source.fields")
        known_first = [name for name in fields if name not in self.outcomes]
        for where, names in named.items():
            _require(where, names, known_first, "an outcome, which is not known when a record comes in; not one of")
        _require(
            "label.fields", self.label.fields, self.outcomes, "no outcome; give it `outcome: true`, or name one of"
        )
        times = [name for name, field in self.source.fields.items() if field.type in ("day", "instant")]
        _require("received.field", (self.received.field,), times, "neither a day nor an instant, as are")
        if self.label.known.field:
            _require("label.known.field", (self.label.known.field,), times, "neither a day nor an instant, as are")
        return self

    @model_validator(mode="after")
    def _names_no_column_of_ours(self) -> "Domain":
        named = {"entities": self.entities, "request": self.request, "label.fields": self.label.fields}
        for where, names in named.items():
            if taken := [name for name in names if name in (*_OWN, *_OF_THE_MARTS, *_OF_STAGING)]:
                raise ValueError(
                    f"{where}: {taken[0]!r} is a column of Evergreen's own; in source.fields give the field another "
                    f"name, with names: [{taken[0]}]"
                )
        return self

    @model_validator(mode="after")
    def _names_its_columns(self) -> "Domain":
        if repeated := [name for place, name in enumerate(self.columns) if name in self.columns[:place]]:
            raise ValueError(f"{repeated[0]!r} is named twice; entities and request are all columns")
        named = {"text.before": self.text.before, "text.whole": self.text.whole, "watched": self.watched}
        for where, names in (named | {"slices": tuple(self.slices), "expected": tuple(self.expected)}).items():
            _require(where, names, self.known, "neither of entities nor of request:")
        for where, names in (("watched", self.watched), ("slices", tuple(self.slices))):
            if shown := [name for name in names if name in self.sensitive]:
                raise ValueError(f"{where}: {shown[0]!r} is sensitive, and would be shown")
        called = [name.strip().casefold() for name in self.labels.values()]
        if repeated := [name for place, name in enumerate(called) if name in called[:place]]:
            raise ValueError(f"labels: two are called {repeated[0]!r}")
        return self


def _require(where: str, names: Iterable[str], among: Iterable[str], what: str) -> None:
    allowed = tuple(among)
    if unknown := [name for name in names if name not in allowed]:
        raise ValueError(f"{where}: {unknown[0]!r} is {what} {', '.join(allowed)}")
