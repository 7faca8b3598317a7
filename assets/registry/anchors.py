"""Anchors of a ledger: each remembers its last entry, out of reach of whoever can only change the ledger."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from assets.exceptions import RegistryError
from assets.objects import Objects
from assets.writing import write_atomically

__all__ = ["Anchor", "FileAnchor", "Head", "ObjectAnchor"]


class Head(NamedTuple):
    """The last entry: its number, 0 for none, and its hash."""

    seq: int
    hash: str


class Anchor(Protocol):
    """Where an entry is remembered; as text, the place."""

    def read(self) -> Head | None:
        """The entry; None before the first. Raises RegistryError if it is damaged."""

    def write(self, head: Head, ledger: str) -> None:
        """Remember an entry of a ledger, whose lock is held, which is named for people who look here."""

    def remove(self) -> None:
        """Forget the entry: of a ledger that is begun anew."""


@dataclass(frozen=True)
class FileAnchor:
    """A small file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> Head | None:
        try:
            return _head(self.path.read_bytes(), str(self))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _damaged(str(self), error) from None

    def write(self, head: Head, ledger: str) -> None:
        write_atomically(self.path, _text(head, ledger))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class ObjectAnchor:
    """An object on S3, which only moves forward. Every method also raises ObjectsError."""

    objects: Objects
    name: str = "ledger.anchor"

    def __str__(self) -> str:
        return self.objects.address(self.name)

    def read(self) -> Head | None:
        stored = self.objects.read(self.name)
        return _head(stored.content, str(self)) if stored else None

    def write(self, head: Head, ledger: str) -> None:
        """A database that restarts ends the lock: others may have gone on since, and what they wrote stays."""
        while True:
            stored = self.objects.read(self.name)
            if stored and _head(stored.content, str(self)).seq >= head.seq:
                return
            # False if others were faster, and each of them has moved it: so this ends.
            if self.objects.replace(self.name, _text(head, ledger).encode(), stored):
                return

    def remove(self) -> None:
        self.objects.remove([self.name])


def _text(head: Head, ledger: str) -> str:
    return json.dumps({"ledger": ledger, **head._asdict()})


def _head(content: bytes, where: str) -> Head:
    try:
        read = json.loads(content)
        return Head(int(read["seq"]), str(read["hash"]))
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(where, error) from None


def _damaged(where: str, error: Exception) -> RegistryError:
    return RegistryError(f"{where} is damaged ({error}); delete it when the ledger is as you left it")
