"""API keys: a file with the hash of each, and how much each may send."""

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from assets.exceptions import SettingsError
from assets.hashing import hash_bytes
from assets.writing import write_atomically

__all__ = ["Bucket", "Keys", "add_key"]

_LINE = re.compile(r"([A-Za-z0-9_.-]{1,64}):([0-9a-f]{64})")


@dataclass(frozen=True)
class Keys:
    """The keys of a file, by the SHA-256 of each: who reads the file cannot ask with it."""

    hashes: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """A key a line, `name:SHA-256 in hex`; empty lines and lines with # at the start are skipped.

        Raises SettingsError for a file without keys, or with a line that is none.
        """
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: cannot be read: {error}") from None
        found = []
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                match = _LINE.fullmatch(line.strip())
                if match is None:
                    raise SettingsError(f"{path}: line {number} is not `name:SHA-256 of the key`, in 64 hex digits")
                found.append((match[1], match[2]))
        if not found:
            raise SettingsError(f"{path}: there is no key in it; `evergreen serve --new-key NAME` adds one")
        return cls(tuple(found))

    def name(self, key: str) -> str | None:
        """The name of a key; None for one that is not known. All are compared, each in constant time."""
        digest, names = hash_bytes(key.encode()), []
        for name, known in self.hashes:
            if hmac.compare_digest(digest, known):
                names.append(name)
        return names[0] if names else None


def add_key(path: Path, name: str) -> str:
    """Make a key, add its hash to a file that only the owner can read, and return the key, which is kept nowhere.

    Raises SettingsError for a name that cannot be in the file, or is there already.
    """
    if not _LINE.fullmatch(f"{name}:{'0' * 64}"):
        raise SettingsError(f"--new-key {name}: a name has at most 64 letters, digits, dots, dashes and underscores")
    before = path.read_text() if path.exists() else ""
    if any(line.startswith(f"{name}:") for line in before.splitlines()):
        raise SettingsError(f"--new-key {name}: {path} has a key of that name; remove its line first")
    key = secrets.token_urlsafe(32)
    line = f"{name}:{hash_bytes(key.encode())}\n"
    write_atomically(path, f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}{line}")
    return key


@dataclass
class Bucket:
    """A token bucket: `rate` units a second on average, and `burst` at once."""

    rate: float
    burst: float
    clock: Callable[[], float] = monotonic
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._left, self._at = self.burst, self.clock()

    def take(self, units: int) -> float:
        """Take some units; 0 if they were there, else the seconds until they will be, and nothing is taken.

        More than fit into the bucket are lent while it is full, so that no size is refused for ever.
        """
        now = self.clock()
        self._left, self._at = min(self.burst, self._left + (now - self._at) * self.rate), now
        wanted = min(units, self.burst)
        if self._left < wanted:
            return (wanted - self._left) / self.rate
        self._left -= units
        return 0.0
