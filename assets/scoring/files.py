"""`evergreen score`: one answer per row of a file, in the file's order."""

import errno
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from assets.exceptions import EvergreenError
from assets.features.serving import online_store, served
from assets.hashing import hash_file, hash_json
from assets.home import Home
from assets.ingestion.reading import read_rows
from assets.ingestion.records import Record, Reject
from assets.registry.registry import RegisteredVersion
from assets.scoring.champion import ANSWER, Champion
from assets.scoring.parts import Parts, resumable
from assets.scoring.request import look
from assets.settings import Settings

__all__ = ["ScoredFile", "score_file"]

_SCHEMA = pa.schema([(name, pa.float64() if name == "confidence" else pa.string()) for name in ANSWER])
_FORMULA = r"\A(['=+\-@\t\r\n＝＋－＠])"  # noqa: RUF001 - spreadsheets know the wide ones, too
"""The first characters of a text that are not safe in a spreadsheet."""


@dataclass(frozen=True)
class ScoredFile:
    """A file of answers that was written."""

    output: Path
    rows: int
    scored: int
    """Rows with an answer."""
    unscored: dict[str, int]
    """Rows without one, by reason, the most frequent first."""
    model_version: str


def score_file(home: Home, path: Path, output: Path, settings: Settings) -> ScoredFile:
    """Score any file of the domain's source with the champion; outcomes may be missing.

    One output row per input row, in order: record_id, predicted, confidence, model_version, reason. A row that cannot
    be read keeps its place with the reader's reason. In a CSV file, text that a spreadsheet would read as a formula, or
    that starts with an apostrophe, gets an apostrophe in front.

    `output` ends in .parquet or .csv and appears in one step, when it is complete. The same call after a kill continues
    with the chunks not yet scored, and the same call in several processes shares them. Raises SettingsError for another
    ending or a missing folder, RegistryError without a champion or for one that does not answer as it was evaluated,
    SourceError for an unreadable input.
    """
    look(path, output, settings.ingestion, home.domain)
    champion = Champion.load(home, settings.scoring)
    with _disk_of(output), resumable(output.parent, output.name, _key(home, path, champion.version, settings)) as parts:
        parts.fill(
            lambda: _chunks(read_rows(path, settings.ingestion, home.domain), settings.scoring.chunk_rows),
            lambda chunk: pa.Table.from_pandas(champion.answer(chunk), schema=_SCHEMA, preserve_index=False),
        )
        rows, unscored = _assemble(parts, output)
    return ScoredFile(output, rows, rows - unscored.total(), dict(unscored.most_common()), champion.version.version)


@contextmanager
def _disk_of(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EvergreenError(
            f"--output {output}: its disk is full; free some space and run the same command again to continue"
        ) from None


def _key(home: Home, path: Path, champion: RegisteredVersion, settings: Settings) -> str:
    """A hash of everything that decides the answers."""
    source = hash_file(path) if path.is_file() else ""
    store = asdict(online_store(served(home)))
    how = [settings.ingestion.model_dump(), settings.scoring.deciding(), home.domain.model_dump(mode="json")]
    return hash_json([source, store, champion.version, champion.training_id, how])[:16]


def _assemble(parts: Parts, output: Path) -> tuple[int, Counter[str]]:
    """Write the output elsewhere and rename it when it is complete; the number of rows, and of those without an answer
    by reason.
    """
    rows, unscored = 0, Counter[str]()
    writer = pyarrow.parquet.ParquetWriter if output.suffix == ".parquet" else pyarrow.csv.CSVWriter
    with tempfile.TemporaryDirectory(dir=parts.folder) as folder:
        temporary = Path(folder) / output.name
        with writer(temporary, _SCHEMA) as opened:
            for table in parts.tables():
                opened.write_table(table if output.suffix == ".parquet" else _without_formulas(table))
                rows += len(table)
                unscored.update(table.filter(pc.is_null(table["predicted"]))["reason"].to_pylist())
        temporary.replace(output)
    return rows, unscored


def _without_formulas(table: pa.Table) -> pa.Table:
    """Keep text from becoming a formula (OWASP, CSV Injection); removing one apostrophe restores the original."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = pc.replace_substring_regex(table[place], _FORMULA, r"'\1")
            table = table.set_column(place, field, column)
    return table


def _chunks(rows: Iterable[Record | Reject], size: int) -> Iterator[list[Record | Reject]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk
