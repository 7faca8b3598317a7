"""Connections to Redis. The file that `EVERGREEN_REDIS_PASSWORD_FILE` names has the password, if there is one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from assets.exceptions import DatabaseError, SettingsError

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["redis_errors", "redis_of"]

_PASSWORD_FILE = "EVERGREEN_REDIS_PASSWORD_FILE"  # noqa: S105 - the name of a variable
_SECONDS = 5
"""How long Redis may take to answer: what it does here takes milliseconds."""


def redis_of(url: str) -> "Redis":
    """A client of the Redis at redis://user@host:port/number; rediss:// is with TLS. Raises SettingsError."""
    return _client(url, _password())


@cache
def _client(url: str, password: str | None) -> "Redis":
    try:
        from redis import Redis
    except ImportError:
        raise SettingsError("Redis needs the extra: pip install 'evergreen[stack]'") from None
    parts = urlsplit(url)
    number = parts.path.lstrip("/") or "0"
    if not number.isdigit():
        raise SettingsError(f"online: {url}: a database of Redis has a number, not the name {number}")
    return Redis(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 6379,
        db=int(number),
        username=parts.username,
        password=password,
        ssl=parts.scheme == "rediss",
        socket_timeout=_SECONDS,
        socket_connect_timeout=_SECONDS,
    )


def _password() -> str | None:
    if not (name := os.environ.get(_PASSWORD_FILE)):
        return None
    try:
        return Path(name).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{_PASSWORD_FILE}: {name}: {error.strerror}") from None


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Raises DatabaseError, on one line, when Redis does not answer or refuses."""
    from redis import RedisError

    try:
        yield
    except RedisError as error:
        raise DatabaseError(f"online store {url}: {' '.join(str(error).split())}") from None
