"""Every exception that Evergreen raises on purpose.

EvergreenError                  one line for a person: what is wrong, where, and what to do
├── SettingsError               a file under configs/, a profile or an option (also a ValueError)
├── SourceError                 a source that cannot be listed or read (also a ValueError)
├── NotPublished                a table that has no publication yet
├── ObjectsError                what machines share on S3 cannot be read or written
├── Superseded                  another run has published in the meantime
├── AuditError                  what was about to be published failed its audit
├── SnapshotError               no training set can be built as of this date
├── BaseModelError              the base model is missing or is not the file it should be (also a ValueError)
├── TrainingError               the training processes failed
│   └── Stopped                 they were asked to stop, and have saved the run
├── ClusterError                the Ray cluster does not answer, or a job of it failed
├── BundleError                 a bundle is incomplete or its hashes do not match
├── RegistryError               the registry or the ledger refuses a request
└── DatabaseError               the database of a shared home cannot be reached, or refuses a statement
"""

__all__ = [
    "AuditError",
    "BaseModelError",
    "BundleError",
    "ClusterError",
    "DatabaseError",
    "EvergreenError",
    "NotPublished",
    "ObjectsError",
    "RegistryError",
    "SettingsError",
    "SnapshotError",
    "SourceError",
    "Stopped",
    "Superseded",
    "TrainingError",
    "describe",
]


class EvergreenError(Exception):
    """Base of every error that names what is wrong and what to do about it."""


class SettingsError(EvergreenError, ValueError):
    """A setting is unknown, missing or out of range."""


class SourceError(EvergreenError, ValueError):
    """A source cannot be listed or read."""


class NotPublished(EvergreenError):  # noqa: N818 - reads as what it says
    """A table has no publication yet."""


class ObjectsError(EvergreenError):
    """What machines share on S3 cannot be read or written."""


class Superseded(EvergreenError):  # noqa: N818 - reads as what it says
    """Another run has published in the meantime."""


class AuditError(EvergreenError):
    """What was about to be published failed its audit."""


class SnapshotError(EvergreenError):
    """No training set can be built as of this date."""


class BaseModelError(EvergreenError, ValueError):
    """The base model is missing or is not the file it should be."""


class TrainingError(EvergreenError):
    """The training processes failed."""


class Stopped(TrainingError):  # noqa: N818 - reads as what it says
    """The training processes were asked to stop, and have saved the run where it can be saved."""


class ClusterError(EvergreenError):
    """The Ray cluster does not answer, or a job of it failed."""


class BundleError(EvergreenError):
    """A bundle is incomplete, or one of its files is not the one that was written."""


class RegistryError(EvergreenError):
    """The registry or the ledger refuses a request."""


class DatabaseError(EvergreenError):
    """The database of a home that machines share cannot be reached, or refuses a statement."""


def describe(error: BaseException) -> str:
    """An error on one line that is never empty: the first line of its message, after its class if that is not ours."""
    message = str(error).strip().partition("\n")[0]
    if isinstance(error, EvergreenError) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
