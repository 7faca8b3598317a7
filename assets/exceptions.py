"""Everything that Evergreen raises on purpose.

EvergreenError                  one line for a person: what is wrong, where, and what to do
├── SettingsError               a file under configs/, a profile or an option (also a ValueError)
├── SourceError                 a source that cannot be listed or read (also a ValueError)
├── NotPublished                a table that has no publication yet
├── Superseded                  another run has published meanwhile
├── AuditError                  what was about to be published failed its audit
├── SnapshotError               no training set can be made as of this date
├── BaseModelError              the base model is missing or is not the file it should be (also a ValueError)
├── TrainingError               the training processes failed
│   └── Stopped                 they were told to stop, and have saved the run
├── BundleError                 a bundle is incomplete or its hashes do not match
└── RegistryError               the registry or the ledger refuses what was asked
"""

__all__ = [
    "AuditError",
    "BaseModelError",
    "BundleError",
    "EvergreenError",
    "NotPublished",
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


class Superseded(EvergreenError):  # noqa: N818 - reads as what it says
    """Another run has published meanwhile."""


class AuditError(EvergreenError):
    """What was about to be published failed its audit."""


class SnapshotError(EvergreenError):
    """No training set can be made as of this date."""


class BaseModelError(EvergreenError, ValueError):
    """The base model is missing or is not the file that it should be."""


class TrainingError(EvergreenError):
    """The training processes failed."""


class Stopped(TrainingError):  # noqa: N818 - reads as what it says
    """The training processes were told to stop, and have saved the run."""


class BundleError(EvergreenError):
    """A bundle is incomplete, or a file of it is not the one that was written."""


class RegistryError(EvergreenError):
    """The registry or the ledger refuses what was asked."""


def describe(error: BaseException) -> str:
    """An error in one line that is never empty: the first line of what it says, after its class if that is not ours."""
    said = str(error).strip().partition("\n")[0]
    if isinstance(error, EvergreenError) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
