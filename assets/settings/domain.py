"""What is particular to a domain: what a record is, what is known of it, and what it can be labelled with."""

import re
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from assets.settings.section import Section

__all__ = ["Domain", "Replacement", "TextReading", "Words"]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=50)]
"""What may be part of a column's name, as labels and entities are."""

_OWN = ("record_id", "known_at", "label_known_at", "label", "text")
"""What a row has in every domain."""


class Words(Section):
    """What people call one of something, and many."""

    one: str = Field(min_length=1)
    many: str = Field(min_length=1)


class Replacement(Section):
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
    """How a model reads a text."""

    before: tuple[Name, ...] = ()
    """Columns whose values are read before it, what decides most first."""
    whole: tuple[Name, ...] = ()
    """Columns whose value weighs as much as all words of the text, in the model's linear branch."""
    replace: tuple[Replacement, ...] = ()
    """What is replaced in it, in order, before anything else."""


class Domain(Section):
    name: Name
    title: str = Field(min_length=1)
    """What a model of the domain does, as a heading."""
    purpose: str = Field(min_length=1)
    """The same in a sentence or two, for the registry and the model's page."""
    limits: tuple[str, ...] = ()
    """What a model of the domain is not for or does not see, a sentence each."""
    record: Words
    label: Words
    labels: dict[Name, str] = Field(min_length=2)
    """What the model answers with, in the order of its outputs, and what people call it."""
    entities: tuple[Name, ...] = ()
    """Columns of the records whose past makes features: each has a mart `<entity>_daily`."""
    request: tuple[Name, ...] = ()
    """What else is known of a record when it comes in."""
    text: TextReading = TextReading()
    slices: dict[Name, tuple[str, ...]] = Field(default={})
    """Columns by which an evaluation is broken down: by their most frequent values or, where words are given, by which
    of these the value holds."""
    watched: tuple[Name, ...] = ()
    """Columns whose drift is watched, beside text, features, predictions and labels."""
    simulator: str | None = None
    """A module of the domain with `simulate`, which writes sources of a world that changes."""

    @property
    def known(self) -> tuple[str, ...]:
        """The columns of a record that are known when it comes in, its text aside."""
        return (*self.entities, *self.request)

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row of a training set has before its features."""
        return (*_OWN, *self.known)

    @model_validator(mode="after")
    def _names_its_columns(self) -> "Domain":
        if repeated := [name for place, name in enumerate(self.columns) if name in self.columns[:place]]:
            raise ValueError(f"{repeated[0]!r} is named twice; entities, request and {', '.join(_OWN)} are all columns")
        named = {"text.before": self.text.before, "text.whole": self.text.whole, "watched": self.watched}
        for field, names in (named | {"slices": tuple(self.slices)}).items():
            if unknown := [name for name in names if name not in self.known]:
                raise ValueError(f"{field}: {unknown[0]!r} is neither of entities nor of request: {self.known}")
        return self
