"""Reads JSON Lines: one object per line; dotted names reach fields of nested objects."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from assets.ingestion.layout import HeaderError, plain, require_fields
from assets.ingestion.records import (
    NOT_UTF_8,
    NUL_BYTE,
    TOO_LONG,
    Record,
    Reject,
    Rows,
    make_record,
    no_records,
    readable,
    tabulate_records,
)
from assets.ingestion.windows import Limits, Window, windows
from assets.settings import Domain

__all__ = ["json_rows"]

_NOT_JSON, _NO_OBJECT = "not-json", "not-an-object"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ONE_VALUE = "one-json-value: write one object per line"
_SHOWN_NAMES, _SHOWN_DEPTH = 20, 3
_KEPT_KEYS, _LONGEST_KEPT = 1 << 10, 200
"""How many keys are cached with their roles, and the longest that is."""


class _Number(str):
    """A number, as written."""

    __slots__ = ()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_refuse)


def json_rows(
    blocks: Iterable[bytes], limits: Limits, domain: Domain, optional: frozenset[str], *, whole: bool
) -> Iterator[Rows]:
    """The rows of an object, in order, a stretch at a time; blocks, limits and `whole` as for `split`.

    Text is kept as it is, numbers and booleans as JSON writes them, lists and objects as JSON without blanks; null,
    empty text and a missing key are null. A key that itself contains dots takes precedence over nested objects. Of a
    field's several names the first with a value counts, of a repeated key the last. The object is refused when no
    record of the first stretch with records has some field that is not in `optional`, and when it is one array.
    """
    reader = _Reader(domain, optional, limits.record)
    for window in windows(blocks, limits, whole):
        line = reader.line
        try:
            yield reader.rows(window)
        except HeaderError as fault:
            reject = Reject(1 if reader.is_empty else line, str(fault), "", of_object=True)
            yield Rows(no_records(domain), [reject], header_fault=fault.fault)
            return


class _Reader:
    """Keeps track of the place in an object."""

    def __init__(self, domain: Domain, optional: frozenset[str], max_record: int) -> None:
        self._domain, self._max_record = domain, max_record
        self._fields = _Fields(domain, optional)
        self.line = 1
        self.is_empty = True
        """Whether all lines so far were blank."""
        self._skips = False
        """Whether the rest of a line rejected as too long is still to come."""

    def rows(self, window: Window) -> Rows:
        """The rows of these lines. Raises HeaderError when the object is refused."""
        rows = [row for row in self._rows(window) if row is not None]
        if window.final and self.is_empty and not rows:
            raise HeaderError("empty-object")
        records = [row for row in rows if isinstance(row, Record)]
        if records:
            self._fields.require_all()
        rejects = [row for row in rows if isinstance(row, Reject)]
        return Rows(tabulate_records(self._domain, records), rejects)

    def _rows(self, window: Window) -> Iterator[Record | Reject | None]:
        *lines, last = window.data.split(b"\n")
        for data in lines:
            if not self._skips:
                yield self._row(data)
            self._skips = False
            self.line += 1
        if window.damage:
            yield Reject(self.line, window.damage, "" if self._skips else _shown(last), of_object=True)
        elif last and not self._skips:
            yield self._unended_row(last, window)
        self._skips = bool(last) and not window.final

    def _unended_row(self, data: bytes, window: Window) -> Record | Reject | None:
        """The last line. JSON that is cut short does not parse, so a line that does needs no line end."""
        if not window.final:
            if self.is_empty:
                _require_lines(data)
            self.is_empty = False
            return Reject(self.line, TOO_LONG, _shown(data))
        row = self._row(data)
        return Reject(self.line, window.cut, row.raw_text) if window.cut and isinstance(row, Reject) else row

    def _row(self, data: bytes) -> Record | Reject | None:
        if self.line == 1:
            data = data.removeprefix(_BYTE_ORDER_MARK)
        if not data.strip():
            return None
        row = self._parsed(data)
        if self.is_empty and not isinstance(row, Record):
            _require_lines(data)
        self.is_empty = False
        return row if isinstance(row, Record) else Reject(self.line, row, _shown(data))

    def _parsed(self, data: bytes) -> Record | str:
        if len(data) > self._max_record:
            return TOO_LONG
        if b"\0" in data:
            return NUL_BYTE
        try:
            value = _DECODER.decode(data.decode())
            return (
                make_record(self._domain, self._fields.of(value), self.line) if isinstance(value, dict) else _NO_OBJECT
            )
        except UnicodeDecodeError:
            return NOT_UTF_8
        except (ValueError, RecursionError):
            return _NOT_JSON


class _Fields:
    """The domain's fields, and the names that the first records used for them."""

    def __init__(self, domain: Domain, optional: frozenset[str]) -> None:
        self._source, self._optional = domain.source, optional
        self._names = {field: [plain(name) for name in domain.source.names(field)] for field in domain.source.fields}
        self._wanted = {name for names in self._names.values() for name in names}
        self._above = {name[:place] for name in self._wanted for place, mark in enumerate(name) if mark == "."}
        self._roles = defaultdict[str, dict[str, _Role]](dict)
        self._checked = False
        self._seen, self._shown = set[str](), dict[str, None]()

    def of(self, value: Mapping[str, Any]) -> list[str]:
        """The fields of a record, in the order of the domain."""
        values = self._values(value, "")
        if not self._checked:
            self._seen |= values.keys()
            if len(self._shown) < _SHOWN_NAMES:
                self._shown |= dict.fromkeys(_dotted(value, _SHOWN_DEPTH))
        return [_first(values, names) for names in self._names.values()]

    def require_all(self) -> None:
        """Raises HeaderError, 'missing-column: NAME', if no record so far had a required field."""
        self._checked = True
        missing = [name for name, names in self._names.items() if self._seen.isdisjoint(names)]
        require_fields(self._source, [name for name in missing if name not in self._optional], list(self._shown))

    def _values(self, value: Mapping[str, Any], above: str) -> dict[str, Any]:
        """The values of the wanted names."""
        here, inside, roles = dict[str, Any](), dict[str, Any](), self._roles[above]
        for key, item in value.items():
            role = roles.get(key) or self._role(above, key)
            if role.leads_inside:
                inside |= self._values(item, role.above) if isinstance(item, dict) else self._none(item, role.above)
            if role.is_wanted:
                here[role.name] = item
        return inside | here if inside else here

    def _role(self, above: str, key: str) -> "_Role":
        name = above + plain(key)
        role = _Role(name, f"{name}.", name in self._wanted, name in self._above)
        if len(key) <= _LONGEST_KEPT and len(self._roles[above]) < _KEPT_KEYS:
            self._roles[above][key] = role
        return role

    def _none(self, item: object, above: str) -> dict[str, None]:
        """The names nested under a null."""
        return dict.fromkeys(name for name in self._wanted if item is None and name.startswith(above))


class _Role(NamedTuple):
    """What a key means for the fields."""

    name: str
    above: str
    """The prefix of the names of nested keys."""
    is_wanted: bool
    leads_inside: bool


def _dotted(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict) and depth > 1:
            yield from (f"{key}.{name}" for name in _dotted(item, depth - 1))
        else:
            yield key


def _first(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first value that is not empty, as text."""
    for name in names:
        value = values.get(name)
        if value is not None and (text := value if isinstance(value, str) else _json(value)):
            return text
    return ""


def _json(value: Any) -> str:
    """JSON without blanks, numbers as written."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(_json, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_json(key)}:{_json(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _require_lines(data: bytes) -> None:
    """Raises HeaderError for the first line of a file that is one array, or one object over several lines."""
    begun = data.strip()
    if begun == b"{" or (begun.startswith(b"[") and not _is_plain_list(begun)):
        raise HeaderError(_ONE_VALUE, f"the whole file is one JSON value; {_ONE_VALUE.partition(': ')[2]}")


def _is_plain_list(data: bytes) -> bool:
    """Whether a line is a complete list without an object in it."""
    try:
        value = _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        return False
    return not any(isinstance(item, dict) for item in value)


def _shown(data: bytes) -> str:
    return readable(data.rstrip(b"\r").decode(errors="surrogateescape"))
