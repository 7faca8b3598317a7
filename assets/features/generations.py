"""A server's online features: whole fills beside each other, of which a pointer names the one that is served.

A fill is a generation with a name of its own, which no reader knows until it is whole and the pointer moves, in one
step of the server. The one before it stays for a while: a reader looks up the pointer, then reads that generation. What
a killed process has left is removed by a later fill. Without a pointer, the server was never filled or has lost it all.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from getpass import getuser
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString
from uuid import uuid4

from assets.database import connected, prepare
from assets.exceptions import DatabaseError, NotPublished, Superseded
from assets.features.redis_client import redis_errors, redis_of
from assets.hashing import hash_json
from assets.home import Home

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["GRACE_SECONDS", "Generation", "OnlineStore", "Server", "server_of"]

GRACE_SECONDS = 3600
"""How long a generation stays that is not served any more, or whose fill has not ended."""


@dataclass(frozen=True)
class OnlineStore:
    """The content of the online store, a function of the date, the marts and the definitions."""

    as_of: str
    marts: str
    definitions: str
    keys: dict[str, int]
    """The number of its keys, by feature view."""


@dataclass(frozen=True)
class Generation:
    """One fill of a server."""

    server: "Server"
    name: str

    @property
    def content(self) -> OnlineStore | None:
        """None while it is filled, and when the server has lost it."""
        text = self.server.content(self.name)
        return OnlineStore(**json.loads(text)) if text else None

    @property
    def is_lost(self) -> bool:
        """Whether the server has lost it, where it would not say so when it is read."""
        return self.server.loses_silently and self.content is None

    def describe(self, content: OnlineStore) -> None:
        """Say what it was filled with: the last thing written."""
        self.server.describe(self.name, json.dumps(asdict(content)))


@dataclass(frozen=True)
class Server(ABC):
    """The online features of a home on a server, which homes may share. Raises DatabaseError without an answer."""

    url: str
    home: str
    """A hash that tells homes apart."""

    loses_silently: ClassVar[bool] = False
    """Whether a key of a generation that is gone reads as one about which nothing is known."""

    @property
    def project(self) -> str | None:
        """Feast's project, if a generation is not one of its own."""
        return None

    @abstractmethod
    def errors(self) -> AbstractContextManager[None]:
        """Turns the errors of the server's client into DatabaseError, on one line."""

    @abstractmethod
    def feast(self, generation: str) -> dict[str, Any]:
        """Feast's configuration of a generation."""

    @abstractmethod
    def current(self) -> str | None:
        """The generation that the pointer names."""

    @abstractmethod
    def content(self, generation: str) -> str | None: ...

    @abstractmethod
    def describe(self, generation: str, content: str) -> None: ...

    @abstractmethod
    def count(self, generation: str, view: str) -> int:
        """The keys of a feature view."""

    @abstractmethod
    def begin(self, generation: str) -> None:
        """Remember a generation before its first key is written."""

    @abstractmethod
    def publish(self, generation: str) -> bool:
        """Move the pointer, in one step; false if the generation was given up in the meantime."""

    @abstractmethod
    def given_up(self) -> list[str]:
        """Forget, and name, the generations that nobody has used for a while."""

    @abstractmethod
    def remove(self, generation: str) -> None: ...

    @contextmanager
    def filling(self) -> Iterator[tuple[Generation, Callable[[], None]]]:
        """A generation to be filled, and how to let readers see it; it is removed if that is never called."""
        generation, seen = Generation(self, f"evergreen_{self.home}_{uuid4().hex[:12]}"), Event()

        def show() -> None:
            self.show(generation)
            seen.set()

        self.begin(generation.name)
        try:
            yield generation, show
        finally:
            with suppress(DatabaseError):  # it will be given up
                if not seen.is_set() and self.current() != generation.name:
                    self.remove(generation.name)

    def show(self, generation: Generation) -> None:
        """Let readers see a generation, and remove those that were given up. Raises Superseded."""
        if not self.publish(generation.name):
            raise Superseded(
                f"online features: this fill took longer than {GRACE_SECONDS} s and was given up; run again"
            )
        for old in self.given_up():
            self.remove(old)

    def served(self) -> Generation:
        """The generation that is served. Raises NotPublished without one."""
        if (name := self.current()) is None:
            raise NotPublished(
                f"the online store {self.url} is empty: it was never filled, or has lost its content; materialize "
                "online_features first"
            )
        return Generation(self, name)


_PUBLISH = """
    if not redis.call('zscore', KEYS[1], ARGV[1]) or redis.call('hexists', KEYS[2], ARGV[1]) == 0 then return 0 end
    local now = redis.call('time')[1]
    local before = redis.call('get', KEYS[3])
    if before then redis.call('zadd', KEYS[1], now, before) end
    redis.call('zadd', KEYS[1], now, ARGV[1])
    redis.call('set', KEYS[3], ARGV[1])
    return 1
"""
_GIVE_UP = """
    local until_ = redis.call('time')[1] - ARGV[1]
    local current = redis.call('get', KEYS[3])
    for _, name in ipairs(redis.call('zrangebyscore', KEYS[1], '-inf', until_)) do
        if name ~= current then
            redis.call('zrem', KEYS[1], name)
            redis.call('hdel', KEYS[2], name)
            redis.call('sadd', KEYS[4], name)
        end
    end
    return redis.call('smembers', KEYS[4])
"""


class RedisServer(Server):
    """Keys end with the generation's name, which is Feast's project."""

    loses_silently = True

    def errors(self) -> AbstractContextManager[None]:
        return redis_errors(self.url)

    def feast(self, generation: str) -> dict[str, Any]:  # noqa: ARG002 - it is Feast's project
        return {"type": "assets.features.redis_store.SharedRedisOnlineStore", "url": self.url}

    def current(self) -> str | None:
        with self.errors():
            return _text(self._client.get(self._key("current")))

    def content(self, generation: str) -> str | None:
        with self.errors():
            return _text(self._client.hget(self._key("contents"), generation))

    def describe(self, generation: str, content: str) -> None:
        with self.errors():
            self._client.hset(self._key("contents"), generation, content)

    def count(self, generation: str, view: str) -> int:
        with self.errors(), self._client.pipeline(transaction=False) as pipe:
            for key in self._keys(generation):
                pipe.hexists(key, f"_ts:{view}")
            return sum(pipe.execute())

    def begin(self, generation: str) -> None:
        with self.errors():
            self._client.zadd(self._key("used"), {generation: self._client.time()[0]})

    def publish(self, generation: str) -> bool:
        with self.errors():
            return bool(self._client.eval(_PUBLISH, len(self._names), *self._names, generation))

    def given_up(self) -> list[str]:
        with self.errors():
            return [
                name.decode() for name in self._client.eval(_GIVE_UP, len(self._names), *self._names, GRACE_SECONDS)
            ]

    def remove(self, generation: str) -> None:
        with self.errors():
            self._client.zrem(self._key("used"), generation)
            self._client.hdel(self._key("contents"), generation)
            with self._client.pipeline(transaction=False) as pipe:
                for key in self._keys(generation):
                    pipe.unlink(key)
                pipe.execute()
            self._client.srem(self._key("given_up"), generation)

    @cached_property
    def _client(self) -> Any:
        return redis_of(self.url)

    @property
    def _names(self) -> list[str]:
        return [self._key(name) for name in ("used", "contents", "current", "given_up")]

    def _key(self, name: str) -> str:
        return f"evergreen:{self.home}:{name}"

    def _keys(self, generation: str) -> Iterator[bytes]:
        yield from self._client.scan_iter(match=f"*{generation}", count=1000, _type="hash")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


_TABLES = """
    create schema if not exists evergreen_online;
    create table if not exists evergreen_online.generations (
        name text primary key, home text not null, used timestamptz not null default now(), content text
    );
    create table if not exists evergreen_online.current (
        home text primary key, generation text not null references evergreen_online.generations
    )
"""
_BEFORE = """
    update evergreen_online.generations set used = now()
    where name in (select generation from evergreen_online.current where home = %(home)s)
"""
_MOVE = """
    insert into evergreen_online.current (home, generation)
    select home, name from evergreen_online.generations where name = %(name)s and content is not null
    on conflict (home) do update set generation = excluded.generation
"""
_OLD = """
    select name from evergreen_online.generations
    where home = %(home)s and used < now() - make_interval(secs => %(grace)s)
    and name not in (select generation from evergreen_online.current)
"""


class PostgresServer(Server):
    """A generation is a schema, which holds a table for each feature view."""

    @property
    def project(self) -> str:
        return "evergreen"

    @contextmanager
    def errors(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise DatabaseError(f"online store {self.url}: {' '.join(str(error).split())}") from None

    def feast(self, generation: str) -> dict[str, Any]:
        from psycopg.conninfo import conninfo_to_dict

        about = conninfo_to_dict(self.url)
        user = about.get("user") or os.environ.get("PGUSER") or getuser()
        return {
            "type": "postgres",
            "host": about.get("host", "127.0.0.1"),
            "port": int(about.get("port") or 5432),
            "user": user,
            "database": about.get("dbname", user),
            "db_schema": generation,
            "password": "",  # libpq takes it from PGPASSFILE
            "sslmode": None,  # and this from PGSSLMODE
        }

    def current(self) -> str | None:
        return self._value("select generation from evergreen_online.current where home = %(home)s", home=self.home)

    def content(self, generation: str) -> str | None:
        return self._value("select content from evergreen_online.generations where name = %(name)s", name=generation)

    def describe(self, generation: str, content: str) -> None:
        with self._prepared() as connection:
            update = "update evergreen_online.generations set content = %s where name = %s"
            connection.execute(update, (content, generation))

    def count(self, generation: str, view: str) -> int:
        from psycopg import sql

        table = sql.Identifier(generation, f"{self.project}_{view}")
        with connected(self.url) as connection:
            row = connection.execute(sql.SQL("select count(distinct entity_key) from {}").format(table)).fetchone()
        assert row is not None
        return int(row[0])

    def begin(self, generation: str) -> None:
        with self._prepared() as connection:
            insert = "insert into evergreen_online.generations (name, home) values (%s, %s)"
            connection.execute(insert, (generation, self.home))

    def publish(self, generation: str) -> bool:
        with self._prepared() as connection, connection.transaction():
            connection.execute(_BEFORE, {"home": self.home})
            return bool(connection.execute(_MOVE, {"name": generation}).rowcount)

    def given_up(self) -> list[str]:
        with self._prepared() as connection:
            return [name for (name,) in connection.execute(_OLD, {"home": self.home, "grace": GRACE_SECONDS})]

    def remove(self, generation: str) -> None:
        from psycopg import errors, sql

        is_served = errors.ForeignKeyViolation  # another process has just published it
        with self._prepared() as connection, suppress(is_served), connection.transaction():
            connection.execute("delete from evergreen_online.generations where name = %s", (generation,))
            connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(generation)))

    def _value(self, query: LiteralString, **given: str) -> str | None:
        with self._prepared() as connection:
            row = connection.execute(query, given).fetchone()
        return str(row[0]) if row and row[0] is not None else None

    @contextmanager
    def _prepared(self) -> Iterator["Connection"]:
        prepare(self.url, _TABLES)
        with connected(self.url) as connection:
            yield connection


def server_of(home: Home) -> Server | None:
    """The server of a home's online features; None for a home that has them in a file."""
    if (url := home.environment.online) is None:
        return None
    which = hash_json([home.objects or str(home.root), home.domain.name])[:12]
    return (PostgresServer if url.startswith("postgresql:") else RedisServer)(url, which)
