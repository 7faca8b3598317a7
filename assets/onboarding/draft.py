"""Writes the folder of a new domain: configs/domain.yaml with a comment on every choice."""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from assets.display import plain
from assets.exceptions import SettingsError
from assets.onboarding.guess import Guess, Guesses
from assets.onboarding.sample import Column, Sample
from assets.settings.domain import RESERVED
from assets.writing import write_atomically

__all__ = ["CONFIRM", "Draft", "draft", "write_draft"]

CONFIRM = "CONFIRM"
"""Marks a line that a person has to confirm."""


@dataclass(frozen=True)
class Draft:
    """The files of a domain by relative path, and what has to be confirmed in them."""

    files: dict[str, str]

    @property
    def doubts(self) -> tuple[str, ...]:
        """The marked lines, without their mark."""
        lines = self.files["configs/domain.yaml"].splitlines()
        return tuple(line.split(f"{CONFIRM}: ")[1] for line in lines if f"{CONFIRM}: " in line)


def write_draft(folder: Path, drafted: Draft) -> None:
    """Write the files of a domain. Raises SettingsError if the folder already has one."""
    if (folder / "configs" / "domain.yaml").exists():
        raise SettingsError(f"{folder}: already has a domain; name another folder")
    for name, text in drafted.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, text)


def draft(name: str, sample: Sample, guesses: Guesses) -> Draft:
    """A domain for files like the sampled one. `name` is turned into a valid name."""
    fields = _field_names(sample.columns)
    text = "\n".join(_domain(_slug(name, "domain"), sample, guesses, fields)) + "\n"
    files = {"configs/domain.yaml": text, ".gitignore": ".evergreen/\n"}
    if small := _small(sample, guesses):
        files["configs/profiles/quick.yaml"] = small
    return Draft(files)


def _domain(name: str, sample: Sample, guesses: Guesses, fields: dict[str, str]) -> Iterator[str]:
    yield f"# What is specific to this domain, drafted from {sample.rows:,} rows of {plain(sample.path.name)}."
    yield f"# A line with {CONFIRM} is a guess: check it, correct it, and delete the mark."
    yield ""
    yield f"name: {_key(name)}"
    yield "# What a model of it does, in words, for the registry and each version's page."
    yield f"title: {name.replace('_', ' ').capitalize()}"
    yield "purpose: Predicts the label of a record from its text and what is known when it comes in."
    yield "# What people call a record."
    yield "record: {one: record, many: records}"
    yield "# How the source is read. An outcome is known only later: never a feature, and absent from a file to score."
    yield "source:"
    if sample.delimiter not in (None, ","):
        yield f"  delimiter: {json.dumps(sample.delimiter)}"
    yield "  fields:"
    for column in sample.columns:
        yield f"    {fields[column.name]}: {_field(column, guesses)}"
    yield from _roles(guesses, fields)
    yield from _labels(guesses)
    yield from _known(guesses, fields)


def _field(column: Column, guesses: Guesses) -> str:
    role = guesses.of(column)
    early = (guesses.id, guesses.received, *guesses.text, *guesses.entities, *guesses.request)
    parts = [f"names: [{_quoted(column.name)}]"]
    parts += _type(column, guesses)
    if role not in early:
        parts.append("outcome: true")
    if len(column.filled) < len(column.values) and role is not guesses.label:
        parts.append("required: false")
    why = role.why if role else f"{_filled(column)}; not used"
    doubt = f"; {CONFIRM}: {plain(column.name)}: {role.doubt}" if role and role.doubt else ""
    return f"{{{', '.join(parts)}}}  # {plain(why + doubt)}"


def _type(column: Column, guesses: Guesses) -> list[str]:
    if column.time:
        formats = [f"formats: [{json.dumps(column.time.format)}]"] if column.time.format else []
        return [f"type: {column.time.type}", *formats]
    return ["type: number"] if column is guesses.id.column and column.is_number else []


def _filled(column: Column) -> str:
    return f"filled in {len(column.filled) / max(len(column.values), 1):.0%}, {column.distinct:,} values"


def _roles(guesses: Guesses, fields: dict[str, str]) -> Iterator[str]:
    label = fields[guesses.label.column.name]
    yield f"id: {fields[guesses.id.column.name]}"
    yield "# Records from before that day are quarantined."
    yield f"received: {{field: {fields[guesses.received.column.name]}, not_before: {_first_day(guesses.received)}}}"
    yield "# How a record gets its label: by the field's value, which is one of `labels`. For anything else write"
    yield "# dbt/models/mapped_labels.sql. `known` says when: by a field, or a number of days after the record came in."
    if guesses.settled:
        known = f"{{field: {fields[guesses.settled.column.name]}}}"
    else:
        known = "{after_days: 0}"
        yield f"# {CONFIRM}: known: that the label is known when the record comes in; if not, after how many days"
    yield f"label: {{one: label, many: labels, fields: [{label}], known: {known}}}"


def _first_day(received: Guess) -> str:
    form = received.column.time
    assert form is not None
    days = sorted(day for value in received.column.filled if (day := form.read(value)))
    return f"{days[0].year}-01-01"


def _labels(guesses: Guesses) -> Iterator[str]:
    yield "# The labels that the model answers with, and their names in the source; with their rows in the sample."
    yield "labels:"
    used: set[str] = set()
    for value, rows in guesses.labels:
        yield f"  {_key(_unique(_slug(value, 'label'), used))}: {_quoted(value)}  # {rows:,} rows"


def _known(guesses: Guesses, fields: dict[str, str]) -> Iterator[str]:
    entities = [fields[each.column.name] for each in guesses.entities]
    request = [fields[each.column.name] for each in guesses.request]
    yield "# Fields whose history gives features: how many records lately, and with which labels."
    yield f"entities: [{', '.join(entities)}]"
    yield "# Other fields that are known when a record comes in."
    yield f"request: [{', '.join(request)}]"
    yield "# What a model reads: these fields, one paragraph each; the values of the columns in `before` come first."
    texts = [fields[each.column.name] for each in guesses.text]
    yield f"text: {{fields: [{', '.join(texts)}], before: [{', '.join(entities)}]}}"
    if request:
        yield "# Columns by which an evaluation is broken down, and columns whose drift is watched."
        yield f"slices: {{{', '.join(f'{name}: []' for name in request)}}}"
        yield f"watched: [{', '.join(request)}]"


def _small(sample: Sample, guesses: Guesses) -> str | None:
    """Settings for a file with few rows."""
    labelled = len(guesses.label.column.filled)
    if not sample.whole or labelled >= 4_000:
        return None
    test, least = max(50, labelled // 6), max(50, labelled // 2)
    return (
        f"# {labelled:,} rows have a label: fewer to test on, and to learn from, than a first run usually has.\n"
        f"snapshot: {{test_rows: {min(test, 500)}, min_train_rows: {min(least, 500)}, max_train_rows: 6000}}\n"
        f"gate: {{min_test_rows: {min(test, 200)}}}\n"
    )


def _field_names(columns: Sequence[Column]) -> dict[str, str]:
    used = {*RESERVED, "seq"}
    return {column.name: _key(_unique(_slug(column.name, "field"), used)) for column in columns}


def _slug(text: str, kind: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss"))
    name = re.sub(r"[^a-z0-9]+", "_", letters.encode("ascii", "ignore").decode()).strip("_")[:40].strip("_")
    return name if name[:1].isalpha() else f"{kind}_{name}".strip("_")


def _key(name: str) -> str:
    """A name in YAML, quoted where it would be read as something else, like `no`."""
    return name if yaml.safe_load(name) == name else json.dumps(name)


def _unique(name: str, used: set[str]) -> str:
    """A name that is not used yet, added to those used."""
    unique = next(n for place in range(len(used) + 1) if (n := f"{name}_{place + 1}" if place else name) not in used)
    used.add(unique)
    return unique


def _quoted(text: str) -> str:
    """A string in YAML, which is written as in JSON."""
    return json.dumps(plain(text), ensure_ascii=False)
