"""The reference of domain.yaml, generated from its types: `python -m assets.onboarding.reference > docs/domain.md`."""

import sys
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from assets.display import Markdown, markdown_table
from assets.settings import Domain
from assets.settings.section import Section

__all__ = ["reference"]

_HEAD = """# domain.yaml

The fields of a domain's `configs/domain.yaml`. [Your own data](your-own-data.md) shows how one is written. A mistake is
reported on one line that names the file and the field.
"""
_TYPES = {str: "text", int: "a whole number", bool: "true or false"}


def reference() -> str:
    """The page in Markdown: a table of the domain's fields, and one for each of its sections."""
    sections = list(dict.fromkeys(_sections(Domain)))
    return "\n".join([_HEAD, *(line for section in sections for line in _table(section))])


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


def _table(section: type[Section]) -> Iterator[str]:
    yield f"## {section.__name__}\n"
    if section.__doc__ and section is not Domain:
        yield f"{section.__doc__}\n"
    rows = [_row(name, field) for name, field in section.model_fields.items()]
    yield f"{markdown_table(['field', 'is', 'without it', 'means'], rows)}\n"


def _row(name: str, field: FieldInfo) -> tuple[Markdown, ...]:
    meaning = " ".join((field.description or "").split())
    return tuple(map(Markdown, (f"`{name}`", _kind(field.annotation), _default(field), meaning)))


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
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _TYPES.get(annotation) or ("a day" if annotation.__name__ == "date" else "a name")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "an error"
    value = field.get_default(call_default_factory=True)
    return "nothing" if value in (None, (), {}) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
