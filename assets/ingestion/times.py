"""Regular expressions for the ways to write days and instants."""

import re
from collections.abc import Sequence

__all__ = ["digits_first", "time_pattern"]

_DAY = r"\d{4}-\d\d-\d\d"
_ZONE = r"(?:Z|[+-]\d\d(?::?\d\d)?)"
_INSTANT = rf"{_DAY}(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?{_ZONE})?)?"
_LETTERS = {
    **dict.fromkeys("mdHMS", r"\d{1,2}"),
    **{"Y": r"\d{4}", "f": r"\d{1,6}", "z": _ZONE, "%": "%"},
}


def time_pattern(formats: Sequence[str], *, to_the_day: bool) -> str | None:
    """ISO 8601 and these formats (strptime codes); None when a format has a code that is not supported."""
    others = [_of_format(form) for form in formats]
    if any(other is None for other in others):
        return None
    return "|".join([_DAY if to_the_day else _INSTANT, *filter(None, others)])


def digits_first(formats: Sequence[str]) -> bool:
    """Whether times in all of these formats start with a digit, as in ISO 8601."""
    return all(re.match(r"%[YmdHMSf]|\d", form) for form in formats)


def _of_format(form: str) -> str | None:
    parts = re.findall(r"%(.)|([^%])", form, re.DOTALL)
    if any(letter and letter not in _LETTERS for letter, _ in parts):
        return None
    return "".join(_LETTERS[letter] if letter else re.escape(literal) for letter, literal in parts)
