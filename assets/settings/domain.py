"""What is specific to a domain: how its source is read, what is known about a record, and its labels."""

import re
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from assets.as_of import Cadence
from assets.settings.section import Section

__all__ = [
    *("RESERVED", "Domain", "Label", "LabelKnown", "Received", "Replacement"),
    *("Source", "SourceField", "TextReading", "Words"),
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=50)]
"""A name that may be part of a column's name, as labels and entities are."""

_OWN = ("record_id", "known_at", "label_known_at", "label", "text")
"""Columns of a row in every domain."""
_OF_THE_MARTS = ("known_until", "received_at", "label_reason", "event_timestamp")
_OF_STAGING = ("position", "status", "reason", "known_from", "raw_text", "is_new")
"""Other columns of the marts and of the models behind them."""
_OF_THE_READER = ("object_id", "line", "content_hash")
"""Columns that the reader adds to the fields of a record."""
RESERVED = frozenset((*_OWN, *_OF_THE_MARTS, *_OF_STAGING, *_OF_THE_READER))
"""Columns that tables have in every domain."""


class Words(Section):
    """What people call one of something, and many of them."""

    one: str = Field(min_length=1)
    """Such as review."""
    many: str = Field(min_length=1)
    """Such as reviews."""


class SourceField(Section):
    """A field of a record."""

    names: tuple[str, ...] = ()
    """The source's names for it, current and former: a column header, or in JSON Lines a key, where dots reach into
    nested objects. By default the field's own name. Case and surrounding blanks do not count."""
    type: Literal["text", "number", "day", "instant"] = "text"
    """A day is a calendar day; an instant has a time of day, and is UTC unless it names a zone."""
    formats: tuple[str, ...] = ()
    """The formats of days and instants besides ISO 8601, as strptime codes."""
    required: bool = True
    """Whether an object without it is refused; otherwise it is empty there."""
    outcome: bool = False
    """Whether it becomes known only after a record has come in: it is then never a feature, and a file to be scored
    may lack it."""

    @model_validator(mode="after")
    def _formats_are_of_times(self) -> "SourceField":
        if self.formats and self.type not in ("day", "instant"):
            raise ValueError(f"only a day or an instant has formats, not a {self.type}")
        return self


class Source(Section):
    """How the source's files are read: .csv, .jsonl and .parquet, by their endings."""

    delimiter: Literal[",", ";", "|", "\t"] = ","
    """The separator of fields in a CSV file."""
    fields: dict[Name, SourceField] = Field(min_length=1)
    """The fields of a record, by the names that the rest of the domain uses for them."""

    @model_validator(mode="after")
    def _tells_its_fields_apart(self) -> "Source":
        if reserved := [name for name in self.fields if name in _OF_THE_READER]:
            raise ValueError(
                f"fields.{reserved[0]}: {', '.join(_OF_THE_READER)} are the reader's own; choose another name"
            )
        heads = [head.strip().casefold() for name in self.fields for head in self.names(name)]
        if repeated := [head for place, head in enumerate(heads) if head in heads[:place]]:
            raise ValueError(f"fields: two have the name {repeated[0]!r} in the source")
        return self

    def names(self, field: str) -> tuple[str, ...]:
        """The source's names for a field."""
        return self.fields[field].names or (field,)


class Received(Section):
    """When a record came in."""

    field: Name
    """Of type day or instant."""
    not_before: date = date(1970, 1, 1)
    """Records from an earlier day are quarantined."""


class LabelKnown(Section):
    """When a record's label became known."""

    field: Name | None = None
    """Of type day or instant. A label is not known yet while it is empty, unless `after_days` says otherwise."""
    after_days: int | None = Field(default=None, ge=0, le=10_000)
    """The days after the record came in until its label is known, where no field says when."""

    @model_validator(mode="after")
    def _says_when(self) -> "LabelKnown":
        if self.field is None and self.after_days is None:
            raise ValueError("name a field or after_days (0: together with the record)")
        return self


class Label(Words):
    """What people call a label, and how a record gets one."""

    fields: tuple[Name, ...] = Field(min_length=1)
    """The source's fields that it is read from; dbt/models/mapped_labels.sql maps them. Without that model it must be
    one field whose values are the labels' names or display names."""
    known: LabelKnown
    """When it becomes known."""


class Replacement(Section):
    """A replacement in a text, wherever its pattern occurs."""

    pattern: str
    """A regular expression."""
    by: str
    """The text to put there; `\\1` is the first group."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class TextReading(Section):
    """What a record's text consists of, and how a model reads it."""

    fields: tuple[Name, ...] = Field(min_length=1)
    """The source's fields that it consists of, one paragraph each: a title first."""
    before: tuple[Name, ...] = ()
    """Columns whose values the model reads before the text, the most decisive first."""
    whole: tuple[Name, ...] = ()
    """Columns whose value weighs as much as all words of the text together, in the model's linear branch."""
    replace: tuple[Replacement, ...] = ()
    """Replacements made in the text, in order, before anything else."""


class Domain(Section):
    """Everything that is specific to one kind of records."""

    name: Name
    """Lower-case letters, digits and underscores. A home belongs to one domain, by this name."""
    title: str = Field(min_length=1)
    """What a model of the domain does, as a heading."""
    purpose: str = Field(min_length=1)
    """The same in a sentence or two, for the registry and the model's page."""
    limits: tuple[str, ...] = ()
    """What a model of the domain is not meant for or does not see, one sentence each."""
    record: Words
    """What people call a record."""
    cadence: Cadence = "day"
    """How often records come in, are answered and are looked at, and what an as-of is: a day, written `2024-07-01`, or
    an hour in UTC, written `2024-07-01T13`. Choose it before the first run."""
    source: Source
    """How files are read, and the fields of a record in them."""
    id: Name
    """The field that identifies a record: the same in all of its versions."""
    received: Received
    """When a record came in."""
    label: Label
    """What people call a label, which fields it is read from, and when it becomes known."""
    labels: dict[Name, str] = Field(min_length=2)
    """The labels that the model answers with, in the order of its outputs, with their display names."""
    entities: tuple[Name, ...] = ()
    """Fields whose history gives features: each has a mart `<entity>_daily`."""
    request: tuple[Name, ...] = ()
    """Other fields that are known when a record comes in."""
    text: TextReading
    """What a record's text consists of, and how a model reads it."""
    slices: dict[Name, tuple[str, ...]] = Field(default={})
    """Columns by which an evaluation is broken down: by their most frequent values or, where words are given, by the
    words that the value contains."""
    watched: tuple[Name, ...] = ()
    """Columns whose drift is watched, in addition to text, features, predictions and labels."""
    expected: dict[Name, tuple[str, ...]] = Field(default={})
    """Values that a column is expected to have; others are reported but stop nothing."""
    sensitive: tuple[Name, ...] = ()
    """Fields whose values are never shown, in any report, slice or check."""
    example: dict[Name, str] = Field(default={})
    """A record as it comes in, by the source's fields: what the description of the server's interface shows."""
    simulator: str | None = None
    """A module in the domain's folder with a function `simulate`, which writes sources of a changing world."""

    @property
    def known(self) -> tuple[str, ...]:
        """The columns of a record that are known when it comes in, apart from its text."""
        return (*self.entities, *self.request)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a training set before its features."""
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
        others = {"sensitive": self.sensitive, "example": tuple(self.example)}
        for where, names in (named | late | others).items():
            _require(where, names, fields, "not one of source.fields:")
        known_first = [name for name in fields if name not in self.outcomes]
        for where, names in (named | {"example": tuple(self.example)}).items():
            _require(where, names, known_first, "an outcome, which is not known when a record comes in; choose from")
        _require(
            "label.fields", self.label.fields, self.outcomes, "not an outcome; set `outcome: true`, or name one of"
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
            if reserved := [name for name in names if name in (*_OWN, *_OF_THE_MARTS, *_OF_STAGING)]:
                raise ValueError(
                    f"{where}: {reserved[0]!r} is a column of Evergreen's own; in source.fields give the field another "
                    f"name, with names: [{reserved[0]}]"
                )
        return self

    @model_validator(mode="after")
    def _names_its_columns(self) -> "Domain":
        if repeated := [name for place, name in enumerate(self.columns) if name in self.columns[:place]]:
            raise ValueError(f"{repeated[0]!r} is named twice; entities and request are all columns")
        named = {"text.before": self.text.before, "text.whole": self.text.whole, "watched": self.watched}
        for where, names in (named | {"slices": tuple(self.slices), "expected": tuple(self.expected)}).items():
            _require(where, names, self.known, "not in entities or request:")
        for where, names in (("watched", self.watched), ("slices", tuple(self.slices))):
            if shown := [name for name in names if name in self.sensitive]:
                raise ValueError(f"{where}: {shown[0]!r} is sensitive, and would be shown")
        called = [name.strip().casefold() for name in self.labels.values()]
        if repeated := [name for place, name in enumerate(called) if name in called[:place]]:
            raise ValueError(f"labels: two have the name {repeated[0]!r}")
        return self


def _require(where: str, names: Iterable[str], among: Iterable[str], what: str) -> None:
    allowed = tuple(among)
    if unknown := [name for name in names if name not in allowed]:
        raise ValueError(f"{where}: {unknown[0]!r} is {what} {', '.join(allowed)}")
