"""Figures: a name, what it means, and a value for each combination of its labels."""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock

from assets.exceptions import describe

__all__ = ["Busy", "Figure", "Part", "Watch", "gauge", "labelled"]

_log = logging.getLogger("evergreen")


class Busy(Exception):  # noqa: N818 - reads as what it says
    """Something is being written at this moment: what was known of it stays."""


@dataclass(frozen=True)
class Figure:
    """A metric and its values. Label values come from settings or code, never from records."""

    name: str
    help: str
    values: Mapping[tuple[str, ...], float]
    """By the values of the labels, in their order; by the empty tuple without labels."""
    labels: tuple[str, ...] = ()
    only_grows: bool = False
    """Whether it is a counter."""


def gauge(name: str, help_: str, value: float | None) -> Iterator[Figure]:
    """A figure without labels; none for a value that is not known."""
    if value is not None:
        yield Figure(name, help_, {(): float(value)})


def labelled(name: str, help_: str, label: str, values: Mapping[str, float | None]) -> Figure:
    """A figure by one label, without the values that are not known."""
    known: dict[tuple[str, ...], float] = {(key,): float(value) for key, value in values.items() if value is not None}
    return Figure(name, help_, known, (label,))


@dataclass(frozen=True)
class Part:
    """Some figures, and what they depend on."""

    key: Callable[[], Hashable]
    """Cheap to ask. While its answer stays the same, the figures do; None: they change all the time."""
    make: Callable[[], Iterable[Figure]]
    """Raises Busy when what it reads is being written."""


@dataclass
class Watch:
    """All figures of a home. A part that cannot be read is left out and named; the others are there all the same."""

    parts: Mapping[str, Part]
    _known: dict[str, tuple[Hashable, tuple[Figure, ...]]] = field(default_factory=dict)
    _unreadable: dict[str, str] = field(default_factory=dict)
    _alone: Lock = field(default_factory=Lock)

    def figures(self) -> list[Figure]:
        """Every figure, and for each part whether it could be read. One caller at a time reads, others wait."""
        with self._alone:
            found = [figure for name, part in self.parts.items() for figure in self._figures(name, part)]
        readable = {name: name not in self._unreadable for name in self.parts}
        return [*found, labelled("evergreen_part_readable", "1 if these figures could be read.", "part", readable)]

    def _figures(self, name: str, part: Part) -> tuple[Figure, ...]:
        try:
            key = part.key()
            if key is None or name not in self._known or self._known[name][0] != key:
                self._known[name] = (key, tuple(part.make()))
            self._unreadable.pop(name, None)
            return self._known[name][1]
        except Busy:
            return self._known[name][1] if name in self._known else ()
        except Exception as error:  # whatever it is, it must not hide the other parts
            self._tell(name, describe(error))
            return ()

    def _tell(self, name: str, why: str) -> None:
        """Once, not at every scrape."""
        if self._unreadable.get(name) != why:
            _log.warning("the figures of %s cannot be read: %s", name, why)
        self._unreadable[name] = why
        self._known.pop(name, None)
