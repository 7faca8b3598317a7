"""Writes the folder of a new domain: configs/domain.yaml with a line on every choice, and what to do next."""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from assets.display import plain
from assets.exceptions import SettingsError
from assets.lake import write_atomically
from assets.onboarding.guess import Guess, Guesses
from assets.onboarding.sample import Column, Sample
from assets.settings.domain import RESERVED

__all__ = ["CONFIRM", "Draft", "draft", "write_draft"]

CONFIRM = "CONFIRM"
"""What marks a line that a person has to confirm."""


@dataclass(frozen=True)
class Draft:
    """The files of a domain by their place in its folder, and what is to be confirmed in them."""

    files: dict[str, str]

    @property
    def doubts(self) -> tuple[str, ...]:
        """The marked lines, without their mark."""
        lines = self.files["configs/domain.yaml"].splitlines()
        return tuple(line.split(f"{CONFIRM}: ")[1] for line in lines if f"{CONFIRM}: " in line)


def write_draft(folder: Path, made: Draft) -> None:
    """Write the files of a domain. Raises SettingsError where there is one already."""
    if (folder / "configs" / "domain.yaml").exists():
        raise SettingsError(f"{folder}: there is a domain already; name another folder")
    for name, text in made.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, text)


def draft(name: str, sample: Sample, guesses: Guesses) -> Draft:
    """A domain for files like the sampled one. `name` is made fit to be one."""
    fields = _field_names(sample.columns)
    text = "\n".join(_domain(_slug(name, "domain"), sample, guesses, fields)) + "\n"
    files = {"configs/domain.yaml": text, ".gitignore": ".evergreen/\n"}
    if small := _small(sample, guesses):
        files["configs/profiles/quick.yaml"] = small
    return Draft(files)


def _domain(name: str, sample: Sample, guesses: Guesses, fields: dict[str, str]) -> Iterator[str]:
    yield f"# What is particular to this domain, drafted from {sample.rows:,} rows of {plain(sample.path.name)}."
    yield f"# A line with {CONFIRM} rests on a guess: read it, mend it, and delete the mark."
    yield ""
    yield f"name: {_key(name)}"
    yield "# What a model of it does, in words: of the registry, and of each version's page."
    yield f"title: {name.replace('_', ' ').capitalize()}"
    yield "purpose: Answers the label of a record from its text and what is known when it comes in."
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
    found = guesses.of(column)
    early = (guesses.id, guesses.received, *guesses.text, *guesses.entities, *guesses.request)
    parts = [f"names: [{_quoted(column.name)}]"]
    parts += _type(column, guesses)
    if found not in early:
        parts.append("outcome: true")
    if len(column.filled) < len(column.values) and found is not guesses.label:
        parts.append("required: false")
    why = found.why if found else f"{_filled(column)}; not used"
    doubt = f"; {CONFIRM}: {plain(column.name)}: {found.doubt}" if found and found.doubt else ""
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
    yield "# A record of before that day is quarantined."
    yield f"received: {{field: {fields[guesses.received.column.name]}, not_before: {_first_day(guesses.received)}}}"
    yield "# How a record gets its label: by the field's value, which is one of `labels`. For anything else write"
    yield "# dbt/models/mapped_labels.sql. `known` says from when on: by a field, or so many days after it came in."
    if guesses.settled:
        known = f"{{field: {fields[guesses.settled.column.name]}}}"
    else:
        known = "{after_days: 0}"
        yield f"# {CONFIRM}: known: that the label is known when the record comes in; else say after how many days"
    yield f"label: {{one: label, many: labels, fields: [{label}], known: {known}}}"


def _first_day(received: Guess) -> str:
    form = received.column.time
    assert form is not None
    days = sorted(found for value in received.column.filled if (found := form.read(value)))
    return f"{days[0].year}-01-01"


def _labels(guesses: Guesses) -> Iterator[str]:
    yield "# What the model answers with, and what the source and people call it; the rows are those of the sample."
    yield "labels:"
    taken: set[str] = set()
    for value, rows in guesses.labels:
        yield f"  {_key(_unique(_slug(value, 'label'), taken))}: {_quoted(value)}  # {rows:,} rows"


def _known(guesses: Guesses, fields: dict[str, str]) -> Iterator[str]:
    entities = [fields[each.column.name] for each in guesses.entities]
    request = [fields[each.column.name] for each in guesses.request]
    yield "# Fields whose past makes features: how many records, and with which labels, of late."
    yield f"entities: [{', '.join(entities)}]"
    yield "# Fields that are known besides when a record comes in."
    yield f"request: [{', '.join(request)}]"
    yield "# What a model reads: these fields, a paragraph each; the values of the columns in `before` come first."
    texts = [fields[each.column.name] for each in guesses.text]
    yield f"text: {{fields: [{', '.join(texts)}], before: [{', '.join(entities)}]}}"
    if request:
        yield "# By what an evaluation is broken down, and whose drift is watched."
        yield f"slices: {{{', '.join(f'{name}: []' for name in request)}}}"
        yield f"watched: [{', '.join(request)}]"


def _small(sample: Sample, guesses: Guesses) -> str | None:
    """Settings for a file of few rows."""
    labelled = len(guesses.label.column.filled)
    if not sample.whole or labelled >= 4_000:
        return None
    test, least = max(50, labelled // 6), max(50, labelled // 2)
    return (
        f"# {labelled:,} rows have a label: there are fewer to test on, and to learn from, than a first run has.\n"
        f"snapshot: {{test_rows: {min(test, 500)}, min_train_rows: {min(least, 500)}, max_train_rows: 6000}}\n"
        f"gate: {{min_test_rows: {min(test, 200)}}}\n"
    )


def _field_names(columns: Sequence[Column]) -> dict[str, str]:
    taken = {*RESERVED, "seq"}
    return {column.name: _key(_unique(_slug(column.name, "field"), taken)) for column in columns}


def _slug(text: str, kind: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss"))
    name = re.sub(r"[^a-z0-9]+", "_", letters.encode("ascii", "ignore").decode()).strip("_")[:40].strip("_")
    return name if name[:1].isalpha() else f"{kind}_{name}".strip("_")


def _key(name: str) -> str:
    """A name as YAML has it, in quotes where it would be something else, as `no` is."""
    return name if yaml.safe_load(name) == name else json.dumps(name)


def _unique(name: str, taken: set[str]) -> str:
    """A name that is none of those taken, and is taken from now on."""
    found = next(n for place in range(len(taken) + 1) if (n := f"{name}_{place + 1}" if place else name) not in taken)
    taken.add(found)
    return found


def _quoted(text: str) -> str:
    """A string as YAML has it, which is JSON's way, too."""
    return json.dumps(plain(text), ensure_ascii=False)
