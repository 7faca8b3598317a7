"""The history of a replay: every record of a span with what was known about it, and the days of its steps."""

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count, takewhile

import pandas as pd
import pyarrow as pa

from assets.as_of import instant, shifted
from assets.duck import connect
from assets.exceptions import EvergreenError
from assets.features.snapshot import Snapshot, build_refit_set, build_training_set, row_schema, with_features
from assets.features.store import apply_definitions
from assets.hashing import hash_json
from assets.home import Home
from assets.ingestion.forgotten import Forgotten
from assets.ingestion.landing import ingest
from assets.monitoring.twins import Candidate, candidate
from assets.settings import RetrainingPolicy, Settings
from assets.validation.audit import audit, publish
from assets.warehouse.marts import mart, visible
from assets.warehouse.project import build_marts

__all__ = ["History", "read_history", "steps"]

_ROWS = f"""
    select {{columns}} from read_parquet($path) records
    where known_at > $start::timestamp and {visible("records", "$end::timestamp")} and trim(coalesce(text, '')) <> ''
    order by known_at, record_id
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class History:
    """A separate home with everything published as of the last day, and the records with a text."""

    home: Home
    settings: Settings
    days: tuple[str, ...]
    """The as-of days of the steps; the last is the end, on which nothing is decided."""
    records: pd.DataFrame
    """The domain's columns and features, in order of known_at, from a window before the first step on. `label` is the
    label known at the end, missing if there was none."""
    features: tuple[str, ...]

    def snapshot(self, as_of: str) -> Snapshot:
        """The training set as of a day, kept for other replays."""
        return build_training_set(self.home, as_of, self.settings.snapshot)

    def refit_set(self, snapshot: Snapshot) -> Snapshot:
        """The training set for a refit, when the gate has promoted the model of a training set."""
        return build_refit_set(self.home, snapshot)

    def candidate(self, as_of: str, policy: RetrainingPolicy) -> Candidate | None:
        """The rows that a challenger would learn from, and be tested on, as of a day."""
        return candidate(self.home, as_of, self.settings.snapshot, policy)

    def arrived(self, after: datetime, until: datetime) -> pd.DataFrame:
        """The records that became known after one instant, and by another."""
        known = self.records["known_at"]
        return self.records[(known > after) & (known <= until)]

    def new_labels(self, after: str, until: str) -> int:
        """Records whose label became known after one day's beginning, and by another's."""
        known = self.records["label_known_at"][self.records["label"].notna()]
        return int(((known > instant(after)) & (known <= instant(until))).sum())


def steps(start: str, end: str, every_days: int) -> tuple[str, ...]:
    """The as-ofs from start to end, and the end itself. Raises EvergreenError when there are fewer than two."""
    days = takewhile(lambda day: day < end, (shifted(start, days) for days in count(0, every_days)))
    if start >= end:
        raise EvergreenError(f"--to {end} is not after --from {start}: there is nothing to replay")
    return (*days, end)


def read_history(home: Home, sources: list[str], days: tuple[str, ...], settings: Settings) -> History:
    """Read the sources into a separate home, `<home>/replay/<sources>`, unless that exists already.

    Raises SourceError for a source that cannot be read, and EvergreenError when the records fail their checks.
    """
    own = Home(home.root / "replay" / hash_json(sorted(sources))[:12])
    own.root.mkdir(parents=True, exist_ok=True)
    os.utime(own.root)  # the last used stay
    where = (sources, own.lake, settings.ingestion, own.domain, days[-1])
    ingest(*where, history=True, forgotten=Forgotten.read(home))
    build_marts(own)
    publish(own, audit(own, days[-1], settings.warehouse), settings.warehouse)
    features = apply_definitions(own).features
    return History(own, settings, days, _records(own, days, settings, features), features)


def _records(home: Home, days: tuple[str, ...], settings: Settings, features: tuple[str, ...]) -> pd.DataFrame:
    marts = home.lake.current("marts")
    start = instant(days[0]) - timedelta(days=settings.drift.window_days)
    label = "case when label_known_at <= $end::timestamp then label end as label"
    columns = ", ".join(label if name == "label" else name for name in home.domain.columns)
    parameters = {"path": mart(marts, "fct_records"), "start": start, "end": instant(days[-1])}
    with connect() as connection:
        rows: pa.Table = connection.execute(_ROWS.format(columns=columns), parameters).to_arrow_table()
    frame: pd.DataFrame = with_features(home, marts, rows.cast(row_schema(home.domain.columns)), features).to_pandas()
    return frame
