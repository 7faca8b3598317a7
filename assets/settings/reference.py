"""The reference of the settings, generated from their types: `python -m assets.settings.reference docs`."""

import json
import re
import sys
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic.fields import FieldInfo

from assets.display import Markdown, markdown_table
from assets.settings import (
    CONFIGS,
    AlertSettings,
    Domain,
    Environment,
    FrontSettings,
    LedgerSettings,
    NameHints,
    ServingSettings,
    Settings,
)
from assets.settings.section import Section

__all__ = ["domain_reference", "settings_reference"]

_DOMAIN = """# domain.yaml

The fields of a domain's `configs/domain.yaml`. [Your own data](your-own-data.md) shows how one is written. A mistake is
reported on one line that names the file and the field.
"""
_SETTINGS = """# Settings

Every threshold and size is in `configs/`, one file per section. A profile in `configs/profiles` overrides single
values, and so do the `configs/` of [a domain](your-own-data.md) of its own. The values below are the project's, with
those of the profiles that differ. An unknown or impossible value stops a run before it starts, with the file and the
field. `configs/domain.yaml` has [a page of its own](domain.md).
"""
_FILES: dict[str, type[Section]] = {
    **{name: kind for name, kind in get_type_hints(Settings).items() if issubclass(kind, Section)},
    "ledger": LedgerSettings,
    "front": FrontSettings,
    "alerts": AlertSettings,
    "serving": ServingSettings,
    "onboarding": NameHints,
}
_TYPES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def domain_reference() -> str:
    """The page of domain.yaml in Markdown: a table of its fields, and one for each of its sections."""
    sections = list(dict.fromkeys(_sections(Domain)))
    return "\n".join([_DOMAIN, *(line for section in sections for line in _domain_table(section))])


def settings_reference() -> str:
    """The page of all other files of `configs/` in Markdown: each field with the project's and the profiles' values."""
    profiles = {path.stem: _read(path) for path in sorted((CONFIGS / "profiles").glob("*.yaml"))}
    lines = [_SETTINGS]
    for name, section in _FILES.items():
        values = {"": _read(CONFIGS / f"{name}.yaml")} | {who: fields.get(name, {}) for who, fields in profiles.items()}
        lines += [f"## {name}.yaml\n", f"{section.__doc__}\n", *_settings_tables(section, values)]
    environments = {path.stem: _read(path) for path in sorted((CONFIGS / "environments").glob("*.yaml"))}
    lines += [f"## environments\n\n{getdoc(Environment)}\n", *_settings_tables(Environment, environments)]
    return "\n".join(lines)


def _settings_tables(section: type[Section], values: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The tables of a section's own fields and of its groups. `values`: by profile, the project's under ""."""
    rows, groups = [], list[str]()
    for name, field in section.model_fields.items():
        found = {who: fields[name] for who, fields in values.items() if name in fields}
        if isinstance(group := field.annotation, type) and issubclass(group, Section):
            groups += [f"### {name}\n\n{group.__doc__}\n", *_settings_tables(group, found)]
        else:
            differ = {who: value for who, value in found.items() if not who or value != found.get("")}
            shown = ", ".join(f"{who} `{json.dumps(value)}`".strip() for who, value in differ.items())
            rows.append(tuple(map(Markdown, (f"`{name}`", _is(field), shown, _meaning(field)))))
    if rows:
        yield f"{markdown_table(['field', 'is', 'value', 'means'], rows)}\n"
    yield from groups


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        for inner in _sections_in(field.annotation):
            yield from _sections(inner)


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)


def _domain_table(section: type[Section]) -> Iterator[str]:
    yield f"## {section.__name__}\n"
    if section.__doc__ and section is not Domain:
        yield f"{section.__doc__}\n"
    rows = [
        tuple(map(Markdown, (f"`{name}`", _is(field), _default(field), _meaning(field))))
        for name, field in section.model_fields.items()
    ]
    yield f"{markdown_table(['field', 'is', 'without it', 'means'], rows)}\n"


def _meaning(field: FieldInfo) -> str:
    return re.sub(r"\bNone\b", "`null`", " ".join((field.description or "").split()))


def _is(field: FieldInfo) -> str:
    """What values a field has: their kind, their bounds, and null where that has to be written."""
    bounds = [
        f"{word} {getattr(bound, name)}"
        for bound in field.metadata
        for name, word in _BOUNDS.items()
        if isinstance(getattr(bound, name, None), int | float)
    ]
    kind = f"{_kind(field.annotation)}{', ' if bounds else ''}{' and '.join(bounds)}"
    return f"{kind}; or `null`" if field.is_required() and type(None) in get_args(field.annotation) else kind


def _kind(annotation: Any) -> str:
    arguments, origin = get_args(annotation), get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{value!r}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument) for argument in arguments if argument is not type(None))
    if origin is tuple:
        return f"a list: {_kind(arguments[0])}"
    if origin is dict:
        return f"by name: {_kind(arguments[1])}"
    if origin is Annotated:
        return "a name" if arguments[0] is str else _kind(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _TYPES.get(annotation) or "a day"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "an error"
    value = field.get_default(call_default_factory=True)
    return "nothing" if value in (None, (), {}) else f"`{value}`"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "domain.md").write_text(domain_reference())
    (folder / "settings.md").write_text(settings_reference())
