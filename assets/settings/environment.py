"""Where state is kept and where work runs: the environment, one file of `configs/environments`."""

import re

from pydantic import ValidationInfo, field_validator, model_validator

from assets.settings.section import Section

__all__ = ["EMBEDDED", "Environment"]

_SHARED = ("objects", "database", "mlflow")
_ALONG = ("online", "code", "ray")
_SERVER = r"://([\w.-]+@)?[\w.-]+(:\d+)?(/[\w.-]+)?"
"""A user, but no password; a host or its address, a port and a path."""
_FORMS = {
    "objects": (r"s3://[a-z0-9][a-z0-9.-]+(/[\w-][\w.-]*)*", "s3://bucket/prefix"),
    "database": (rf"postgresql{_SERVER}", "postgresql://user@host:port/database"),
    "mlflow": (rf"https?{_SERVER}", "http://host:port"),
    "online": (
        rf"(rediss?|postgresql){_SERVER}",
        "redis://user@host:port/number or postgresql://user@host:port/database",
    ),
    "code": (r"[\w.-]+:\d+", "host:port"),
    "ray": (rf"https?{_SERVER}", "http://host:port"),
}


class Environment(Section):
    """The environment that `EVERGREEN_ENVIRONMENT` names, `local` without it. A variable replaces a value: that of
    `objects` is `EVERGREEN_OBJECTS`. No value holds a password: each server's client has a file for it."""

    objects: str | None
    """An s3://bucket/prefix for the lake, the reports and checkpoints; None for the home's folder."""
    database: str | None
    """The PostgreSQL database of the ledger, Dagster and Feast's registry, whose password `PGPASSFILE` has; None for
    SQLite files in the home."""
    mlflow: str | None
    """The address of an MLflow server; None for a registry in the home."""
    online: str | None
    """The server of the online features; None for an SQLite file in the home. The file that
    `EVERGREEN_REDIS_PASSWORD_FILE` names has the password of Redis, `PGPASSFILE` that of PostgreSQL."""
    code: str | None
    """The host:port of the process that serves the graph's definitions and starts the processes of runs; None for one
    that `evergreen ui` starts on its machine."""
    ray: str | None
    """The address of a Ray cluster's dashboard, which takes the jobs that train, and those that score many records;
    None to train on this machine, or on those of a hostfile, and to score here."""

    @field_validator("*")
    @classmethod
    def _is_an_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        pattern, form = _FORMS[str(info.field_name)]
        if value is not None and not re.fullmatch(pattern, value):
            raise ValueError(f"write it as {form}, without a password")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Environment":
        named = [name for name in _SHARED if getattr(self, name)]
        if 0 < len(named) < len(_SHARED):
            missing = next(name for name in _SHARED if name not in named)
            raise ValueError(f"{named[0]} is shared by machines, so {missing} has to be: set it, too, or neither")
        if not named and (lone := next((name for name in _ALONG if getattr(self, name)), None)):
            raise ValueError(f"{lone} is for a home that machines share: set objects, too")
        return self

    @property
    def is_shared(self) -> bool:
        """Whether several machines work on one home: then nothing in its folder is more than a copy."""
        return self.objects is not None


EMBEDDED = Environment(objects=None, database=None, mlflow=None, online=None, code=None, ray=None)
"""The environment of a home on one machine, with nothing outside its folder."""
