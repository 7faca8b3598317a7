"""Looks at what is to be scored before anything is loaded."""

from pathlib import Path

from assets.exceptions import SettingsError, SourceError
from assets.ingestion.reading import FORMATS, is_read, read_rows
from assets.settings import Domain, IngestionSettings

__all__ = ["look"]

_READ = tuple(ending for ending in FORMATS if ending != ".zip")
_WRITTEN = (".parquet", ".csv")


def look(source: Path, output: Path, settings: IngestionSettings, domain: Domain) -> None:
    """Read the beginning of an input, and check where the output goes.

    Raises SettingsError for an output with another ending than .parquet and .csv, or in no folder; SourceError for an
    input that is missing, has an ending that is not read, or lacks a field in its header.
    """
    if output.suffix not in _WRITTEN:
        raise SettingsError(f"--output {output}: its ending must be .parquet or .csv")
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"--output {output}: there is no folder {output.parent}")
    if source.is_file() and not is_read(source.name):
        raise SourceError(f"{source}: the name of a file to score ends in {', '.join(_READ)}")
    next(read_rows(source, settings, domain), None)
