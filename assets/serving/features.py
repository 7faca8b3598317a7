"""The features of requests: from the home's online store, with a stated answer when it cannot give them."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pandas as pd

from assets.as_of import instant
from assets.exceptions import NotPublished, describe
from assets.features.serving import OnlineReader, online_store, served
from assets.features.store import digest
from assets.home import Home
from assets.settings import ServingSettings

__all__ = ["Features", "Looked"]

_log = logging.getLogger("evergreen.serving")


@dataclass(frozen=True)
class Looked:
    """Rows with their features, and what is known about those."""

    rows: pd.DataFrame
    state: Literal["online", "stale", "absent"]
    """online: from the store; stale: from a store whose as-of is too old; absent: the store could not be read."""
    as_of: str | None
    """The store's as-of, None when absent."""


class Features:
    """Reads the online store for one thread, and opens it again when it was filled again."""

    def __init__(self, home: Home, settings: ServingSettings) -> None:
        self._home, self._settings = home, settings
        self._definitions = digest()
        """A process keeps the code of the request features that it has loaded."""
        self._reader: OnlineReader | None = None
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Why the store cannot give features now, or only old ones; None when it can."""
        try:
            content = online_store(served(self._home))
        except Exception as error:  # whatever the store's own library raises
            return f"the online store cannot be read: {describe(error)}"
        if content.definitions != self._definitions:
            return "the online store was filled with other feature definitions than the server's; restart the server"
        return self._stale(content.as_of)

    def warm(self) -> None:
        """Read once, in the thread that will: the libraries and the store are loaded before the first request."""
        domain = self._home.domain
        self.look(pd.DataFrame([dict.fromkeys(("record_id", "text", *domain.known), "")], dtype=object), ())

    def look(self, rows: pd.DataFrame, names: tuple[str, ...]) -> Looked:
        """Rows with the columns `names`, NaN where nothing is known."""
        try:
            found, as_of = self._read(rows)
        except Exception as error:  # as above
            self._reader = None
            if describe(error) != self._problem:
                self._problem = describe(error)
                _log.warning("answering without features, or refusing: %s", self._problem)
            absent = pd.DataFrame(np.nan, index=rows.index, columns=list(names))
            return Looked(rows.join(absent), "absent", None)
        self._problem = None
        return Looked(found, "stale" if self._stale(as_of) else "online", as_of)

    def _read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """The features of one content of the store, never a mixture."""
        while True:
            if self._reader is None or not self._reader.is_current:
                self._reader = OnlineReader.open(self._home)
            if self._reader.content.definitions != self._definitions:
                raise NotPublished("it was filled with other feature definitions than the server's")
            found = self._reader.features(rows)
            if self._reader.is_current:
                return found, self._reader.content.as_of

    def _stale(self, as_of: str) -> str | None:
        days = self._settings.max_features_age_days
        if days is None or datetime.now(UTC).replace(tzinfo=None) - instant(as_of) <= timedelta(days):
            return None
        return f"the online store is as of {as_of}, and may be {days} days old"
