"""Reads a sample of a source through a domain, with the engine's own reader and SQL, and reports what it shows.

Nothing is kept: the sample is ingested and built in a temporary home.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from assets.display import plain
from assets.duck import connect
from assets.exceptions import SourceError
from assets.home import Home
from assets.ingestion.landing import ingest
from assets.ingestion.reading import contents
from assets.ingestion.records import Reject
from assets.ingestion.sources import list_objects
from assets.onboarding.advice import Reading, advise
from assets.onboarding.guess import majority
from assets.settings import Domain, Settings
from assets.warehouse.marts import mart
from assets.warehouse.project import build_marts, built

__all__ = ["SAMPLE_ROWS", "Check", "FieldCheck", "check_source"]

SAMPLE_ROWS = 20_000
_SHOWN = 5
_CUT = 32
_AS_OF = "2199-12-31"
"""Later than everything, so that everything is known."""


@dataclass(frozen=True)
class FieldCheck:
    """How a field of the source was read."""

    name: str
    type: str
    filled: float
    """The share of records that have a value for it."""
    distinct: int
    example: str
    """The most frequent value, shortened, or the first and the last time; empty for a sensitive field."""


@dataclass(frozen=True)
class Check:
    """The result of checking a sample."""

    objects: int
    records: int
    """Records that the reader got from the sample."""
    rejects: dict[str, int]
    """Pieces that are no record, by reason."""
    places: dict[str, str]
    """The place of the first reject of each reason."""
    quarantined: dict[str, int]
    """Records not used, by reason."""
    duplicates: int
    versions: int
    """Records beyond the first of their id, with other content."""
    used: int
    fields: tuple[FieldCheck, ...]
    months: tuple[tuple[str, int, int], ...]
    """By month of receipt: the number of records, and of those with a label."""
    labels: dict[str, int]
    """The number of records by label, for every label of the domain."""
    unmapped: dict[str, int]
    """The most frequent values that map to no label."""
    delay_days: tuple[float, float] | None
    """Days from receipt to label: the median and the 90th percentile; None without labels."""
    words: tuple[int, int] | None
    """Words per text: the median and the 95th percentile; None without texts."""
    without_text: int
    entities: dict[str, tuple[int, float]]
    """For each entity, the number of values, and the share of records with the most frequent one."""
    newest: str | None
    """The day of the newest record."""
    warnings: tuple[str, ...] = ()


def check_source(sources: Sequence[str], domain: Domain, settings: Settings) -> Check:
    """Read at most 20,000 records of the sources through a domain.


    Raises SourceError for sources that cannot be read or hold no record, AuditError when the domain's SQL fails.
    """
    with tempfile.TemporaryDirectory(prefix="evergreen-check-") as folder:
        home = Home(Path(folder) / "home")
        sampled = _sample(sources, domain, settings, Path(folder))
        ingest([str(sampled.path)], home.lake, settings.ingestion, domain, _AS_OF, history=True)
        build_marts(home)
        return _look(home, sampled, domain, settings)


@dataclass(frozen=True)
class _Sampled:
    path: Path
    objects: int
    records: pa.Table
    rejects: tuple[tuple[str, Reject], ...]
    """Each after the key of its object."""


def _sample(sources: Sequence[str], domain: Domain, settings: Settings, folder: Path) -> _Sampled:
    """The first rows of each object, equally many of each, in a Parquet file with the source's own names."""
    listed = list_objects(sources).objects
    tables, rejects = [], list[tuple[str, Reject]]()
    for source in listed:
        with ExitStack() as stack:
            fetched = stack.enter_context(source.fetch(folder))
            opened = contents(fetched.path, source.key, fetched.sha256, settings.ingestion, domain, whole=True)
            for content in stack.enter_context(opened):
                left = max(1, SAMPLE_ROWS // len(listed))
                for rows in content.rows():
                    tables.append(rows.records.slice(0, left))
                    rejects += [(content.key, reject) for reject in rows.rejects]
                    left -= len(rows.records)
                    if left <= 0:
                        break
    records = pa.concat_tables(tables) if tables else None
    if not records:
        refused = "; ".join(f"{key}, line {reject.line}: {reject.reason}" for key, reject in rejects[:1])
        raise SourceError(f"{', '.join(sources)}: no record can be read: {refused or 'the files are empty'}")
    path = folder / "sample.parquet"
    named = {domain.source.names(name)[0]: records[name] for name in domain.source.fields}
    pq.write_table(pa.table(named), path)
    return _Sampled(path, len(listed), records, tuple(rejects))


def _look(home: Home, sampled: _Sampled, domain: Domain, settings: Settings) -> Check:
    marts, raw = built(home), sampled.records.to_pandas()
    with connect() as connection:
        rows = connection.execute("from read_parquet(?)", [mart(marts, "fct_records")]).df()
        counted = "select sum(duplicate)::int, sum(valid)::int from read_parquet(?)"
        ((duplicates, valid),) = connection.execute(counted, [mart(marts, "record_counts")]).fetchall()
        reasons = "select reason, count(*) from read_parquet(?) group by 1 order by 2 desc"
        quarantined = dict(connection.execute(reasons, [mart(marts, "quarantined_records")]).fetchall())
    places = {reject.reason: f"{key}, line {reject.line}" for key, reject in reversed(sampled.rejects)}
    words = rows["text"].dropna().map(lambda text: len(text.split()))
    delay = (rows["label_known_at"] - rows["received_at"]).dropna().dt.total_seconds() / 86_400
    check = Check(
        objects=sampled.objects,
        records=len(raw),
        rejects=dict(Counter(reject.reason for _, reject in sampled.rejects)),
        places=places,
        quarantined=quarantined,
        duplicates=duplicates,
        versions=valid - len(rows),
        used=len(rows),
        fields=tuple(_field(name, raw[name], domain) for name in domain.source.fields),
        months=_months(rows),
        labels={label: int((rows["label"] == label).sum()) for label in domain.labels},
        unmapped=_unmapped(raw, rows, domain),
        delay_days=(float(delay.median()), float(delay.quantile(0.9))) if len(delay) else None,
        words=(int(words.median()), int(words.quantile(0.95))) if len(words) else None,
        without_text=int(rows["text"].isna().sum()),
        entities={name: (rows[name].nunique(), majority(rows[name].tolist())) for name in domain.entities},
        newest=str(rows["received_at"].max().date()) if len(rows) else None,
    )
    reading = Reading(rows, raw, check.labels, repeated=check.versions + duplicates)
    return replace(check, warnings=tuple(advise(reading, domain, settings)))


def _field(name: str, values: pd.Series, domain: Domain) -> FieldCheck:
    filled = values.dropna()
    kind = domain.source.fields[name].type
    if name in domain.sensitive or filled.empty:
        example = ""
    elif kind in ("day", "instant"):
        example = f"{filled.iloc[0]} ... {filled.iloc[-1]}"
    else:
        example = str(filled.mode().iloc[0])
    return FieldCheck(name, kind, len(filled) / max(len(values), 1), filled.nunique(), plain(example, _CUT))


def _months(rows: pd.DataFrame) -> tuple[tuple[str, int, int], ...]:
    months = rows.groupby(rows["received_at"].dt.strftime("%Y-%m"))["label"].agg(["size", "count"])
    return tuple((month, int(size), int(labelled)) for month, size, labelled in months.itertuples())


def _unmapped(raw: pd.DataFrame, rows: pd.DataFrame, domain: Domain) -> dict[str, int]:
    """The values of records that have no label although its fields have a value; none of sensitive fields."""
    if set(domain.label.fields) & set(domain.sensitive):
        return {}
    ids = set(rows.loc[rows["label_reason"] == "unmapped-label", "record_id"])
    unmapped = raw[raw[domain.id].str.strip().isin(ids)][list(domain.label.fields)].fillna("")
    values = unmapped.agg(" / ".join, axis=1) if len(unmapped) else pd.Series(dtype=str)
    return {plain(value, _CUT): int(count) for value, count in values.value_counts().head(_SHOWN).items()}
