"""The PostgreSQL database of a home that machines share: connections, and leases in place of locks on a shared disk.

A lease is a row that its holder's process keeps renewing; one that was not renewed for `PATIENCE` seconds is from a
process that died or cannot be reached, and may be taken. All times are the database's, so that no machine's clock
counts. What a process does after it has lost a lease is harmless: every publication is conditional.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, LiteralString, TypeVar
from uuid import uuid4

from assets.exceptions import DatabaseError, Superseded

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["PATIENCE", "Leases", "Unreachable", "connected", "persistently", "prepare"]

PATIENCE = 60.0
"""Seconds after which a lease that was not renewed counts as given up: longer than a database takes to restart."""
_RENEWALS = 6
"""Renewals within the patience."""
_LOOK = 0.5
"""Seconds between two looks at a lease that another holds."""
_CONNECT_SECONDS = 10

_SCHEMA = """
    create schema if not exists evergreen;
    create table if not exists evergreen.leases (
        name text primary key,
        holder uuid not null,
        since timestamptz not null default now(),
        renewed timestamptz not null default now()
    )
"""
_TAKE = """
    insert into evergreen.leases (name, holder) values (%(name)s, %(holder)s)
    on conflict (name) do update set holder = excluded.holder, since = now(), renewed = now()
    where leases.holder = excluded.holder or leases.renewed < now() - make_interval(secs => %(patience)s)
    returning name
"""
_RENEW = "update evergreen.leases set renewed = now() where name = %(name)s and holder = %(holder)s"
_RELEASE = "delete from evergreen.leases where name = %(name)s and holder = %(holder)s"
_HELD = """
    select name, since, renewed >= now() - make_interval(secs => %(patience)s) from evergreen.leases
    where starts_with(name, %(prefix)s) order by name
"""

_T = TypeVar("_T")

_log = logging.getLogger("evergreen")


class Unreachable(DatabaseError):  # noqa: N818 - reads as what it says
    """The database does not answer, or the connection broke: it may only be restarting."""


@contextmanager
def connected(url: str) -> Iterator["Connection"]:
    """A connection that commits each statement outside `connection.transaction()`.

    Raises Unreachable without an answer and DatabaseError for a statement that is refused, both on one line.
    """
    try:
        import psycopg
    except ImportError:
        raise DatabaseError("a PostgreSQL database needs the extra: pip install 'evergreen[stack]'") from None
    try:
        with psycopg.connect(
            url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="evergreen"
        ) as connection:
            yield connection
    except psycopg.Error as error:
        kind = Unreachable if isinstance(error, psycopg.OperationalError) else DatabaseError
        raise kind(f"database {url}: {' '.join(str(error).split())}") from None


def persistently(work: Callable[[], _T], patience: float = PATIENCE / 2) -> _T:
    """The result of some work that is done again while it raises Unreachable, for as many seconds as the patience.

    It must be such that doing it twice changes nothing: a connection may break after a commit.
    """
    until, wait = monotonic() + patience, _LOOK
    while True:
        try:
            return work()
        except Unreachable:
            if monotonic() > until:
                raise
        Event().wait(wait)
        wait *= 2


@dataclass(frozen=True)
class Leases:
    """The leases in a database."""

    url: str
    patience: float = PATIENCE

    @contextmanager
    def hold(self, name: str, what: str | None = None) -> Iterator[None]:
        """Hold a lease; waits while another process holds it.

        `what`: what it protects, for the message that says what is waited for; None where the wait is brief. Raises
        Superseded at the end if it was lost in the meantime, as when this machine could not reach the database.
        """
        holder = str(uuid4())
        self._wait_for(name, holder, what)
        ended, lost = Event(), Event()
        renewing = Thread(target=self._renew, args=(name, holder, ended, lost), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            if not self._run(_RENEW, name, holder):
                lost.set()
            self._run(_RELEASE, name, holder)
        if lost.is_set():
            raise Superseded(f"{name}: another process has taken over in the meantime; run again")

    def held(self, prefix: str) -> dict[str, datetime]:
        """The leases under a prefix that their holders renew, by name, and since when they hold them."""
        return {name: since for name, since, alive in self._rows(prefix) if alive}

    def given_up(self, prefix: str) -> list[str]:
        """The names of the leases under a prefix whose holders do not renew them any more."""
        return [name for name, _, alive in self._rows(prefix) if not alive]

    def _rows(self, prefix: str) -> list[tuple[str, datetime, bool]]:
        def rows() -> list[tuple[str, datetime, bool]]:
            with connected(self.url) as connection:
                found = connection.execute(_HELD, {"prefix": prefix, "patience": self.patience}).fetchall()
                return [(str(name), since, bool(alive)) for name, since, alive in found]

        prepare(self.url, _SCHEMA)
        return persistently(rows)

    def _wait_for(self, name: str, holder: str, what: str | None) -> None:
        prepare(self.url, _SCHEMA)
        said = what is None
        while not self._run(_TAKE, name, holder):
            if not said:
                _log.warning("waiting for another run to finish with %s", what)
                said = True
            Event().wait(_LOOK)

    def _renew(self, name: str, holder: str, ended: Event, lost: Event) -> None:
        while not ended.wait(self.patience / _RENEWALS):
            try:
                if not self._run(_RENEW, name, holder):
                    lost.set()
            except DatabaseError as error:
                _log.warning("%s; trying again", error)

    def _run(self, statement: LiteralString, name: str, holder: str) -> int:
        """The number of rows that a statement about a holder's lease has changed."""

        def run() -> int:
            with connected(self.url) as connection:
                wanted = {"name": name, "holder": holder, "patience": self.patience}
                return int(connection.execute(statement, wanted).rowcount)

        return persistently(run)


@cache
def prepare(url: str, tables: LiteralString) -> None:
    """Create tables that may exist; of two processes that do so at once, one waits for the other: both would fail."""

    def create() -> None:
        with connected(url) as connection, connection.transaction():
            connection.execute("select pg_advisory_xact_lock(hashtext(%s))", (tables,))
            connection.execute(tables)

    persistently(create)
