"""The figures of a home's lake, ledger, trainings and disk: read from small files, and only when they have changed.

A moment is given in seconds since 1970, so that its age is `time() - X`. The moments of an as-of are those of the
records' own world: the age of the newest record is `evergreen_as_of_timestamp_seconds - X`, also for simulated records.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import duckdb

from assets.as_of import PERIODS, instant
from assets.duck import connect
from assets.evaluation import gate
from assets.front.history import History
from assets.home import Home
from assets.lake import Lake
from assets.monitoring import decision
from assets.monitoring.performance import load_performance
from assets.monitoring.report import load_drift
from assets.monitoring.retraining import recall
from assets.registry.ledger import Entry
from assets.settings import Settings
from assets.training.bundle import read_json
from assets.warehouse.marts import mart
from assets.watching.delivery import Sent
from assets.watching.figures import Figure, Part, gauge, labelled
from assets.watching.glance import glance, head

__all__ = ["parts_of"]

_TABLES = ("raw_records", "marts")
_NIGHTLY = ("predictions", "performance", "drift", "retraining_decision")
_OUTCOMES = ("landed", "valid", "quarantined", "duplicate")
_COUNTS = "select sum(landed), sum(valid), sum(quarantined), sum(duplicate) from read_parquet($counts) counts"
_NIGHT = """
    semi join (
        select object_id from read_parquet($objects) where landed_on = (
            select max(landed_on) from read_parquet($objects)
        )
    ) using (object_id)
"""
_BROKEN = "select count(*) from read_parquet($objects) where error is not null and withdrawn is null"
_NEWEST = "select max(received_at) from read_parquet($records)"
_MOST_COLUMNS = 200
"""The most columns whose drift is told, those that have moved furthest: a domain may have any number of fields."""


def parts_of(home: Home, settings: Settings) -> dict[str, Part]:
    """What a home tells, by parts that can fail one by one. None of it takes a lock that a run waits for."""
    lake = home.lake
    return {
        "home": Part(lambda: None, partial(_home, home)),
        "publications": Part(lambda: None, partial(_publications, lake)),
        "data": Part(lambda: tuple(map(lake.version, _TABLES)), partial(_data, home, settings)),
        "training": Part(partial(_newest, lake, "challenger"), partial(_training, lake)),
        "drift": Part(partial(_newest, lake, "drift"), partial(_drift, lake)),
        "performance": Part(partial(_newest, lake, "performance"), partial(_performance, home)),
        "alerts": Part(lambda: None, partial(_alerts, home)),
        "decisions": Part(lambda: (head(home),), partial(_decisions, home, settings)),
    }


def _home(home: Home) -> Iterator[Figure]:
    """What the home is, and the room that is left in it."""
    about: tuple[str, ...] = (home.domain.name, home.domain.cadence, version("evergreen"))
    yield Figure("evergreen_info", "Whose home it is.", {about: 1.0}, ("domain", "cadence", "version"))
    period = PERIODS[home.domain.cadence].total_seconds()
    yield from gauge("evergreen_period_seconds", "Seconds from one night to the next.", period)
    places = {"home": home.root, "temporary": Path(tempfile.gettempdir())}
    room = {name: shutil.disk_usage(path) for name, path in places.items() if path.exists()}
    free, size = ({name: getattr(use, what) for name, use in room.items()} for what in ("free", "total"))
    yield labelled("evergreen_disk_free_bytes", "Room left on the disk of a folder.", "folder", free)
    yield labelled("evergreen_disk_size_bytes", "The size of that disk.", "folder", size)


def _publications(lake: Lake) -> Iterator[Figure]:
    """When each kind of table was last published, by the clock of the wall."""
    tables = {name: name for name in _TABLES}
    tables |= {name: newest[0] for name in _NIGHTLY if (newest := _newest(lake, name))}
    moments = {name: lake.published(table) for name, table in tables.items()}
    yield labelled("evergreen_publication_timestamp_seconds", "When a table was last published.", "table", moments)


def _newest(lake: Lake, prefix: str) -> tuple[str, str | None] | None:
    """The newest as-of's table under a prefix, and its version; None without any."""
    tables = lake.tables(prefix)
    return (tables[-1], lake.version(tables[-1])) if tables else None


def _data(home: Home, settings: Settings) -> Iterator[Figure]:
    """How the records of the newest publication have ended: all of them, and those that landed last."""
    lake = home.lake
    if lake.version("raw_records") is None or lake.version("marts") is None:
        return
    marts, objects = lake.current("marts"), str(lake.current("raw_records") / "objects.parquet")
    counts, records = mart(marts, "record_counts"), mart(marts, "fct_records")
    with connect() as connection:
        ask = partial(_asked, connection)
        everything, night = ask(_COUNTS, counts=counts), ask(_COUNTS + _NIGHT, counts=counts, objects=objects)
        (broken,), (newest,) = ask(_BROKEN, objects=objects), ask(_NEWEST, records=records)
    yield _outcomes("evergreen_records", "Records of the newest publication, by how they ended.", everything)
    yield _outcomes("evergreen_night_records", "The same of the objects that landed last.", night)
    yield from gauge("evergreen_objects_unreadable", "Source objects that could not be read to their end.", broken)
    help_ = "When the newest record came in."
    yield from gauge("evergreen_newest_record_timestamp_seconds", help_, newest and _seconds(newest))
    stale = settings.warehouse.max_staleness_days * 86_400
    yield from gauge("evergreen_staleness_limit_seconds", "How old the newest record may be at an as-of.", stale)


def _asked(connection: duckdb.DuckDBPyConnection, sql: str, **files: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(sql, files).fetchone()
    return row or ()


def _outcomes(name: str, help_: str, counts: Iterable[int | None]) -> Figure:
    return labelled(name, help_, "outcome", {one: count or 0 for one, count in zip(_OUTCOMES, counts, strict=True)})


def _training(lake: Lake) -> Iterator[Figure]:
    """What the newest training cost, and how it went."""
    newest = _newest(lake, "challenger")
    if newest is None:
        return
    report = read_json(lake.current(newest[0]) / "training.json")
    told = {
        "tokens_per_second": ("Useful tokens, without padding, in a second.", report["tokens_per_second"]),
        "utilisation_ratio": ("The share of the devices' measured peak speed.", report.get("utilisation")),
        "seconds": ("Seconds that it took, without its start.", report["seconds"]),
        "cost": ("In the currency of price_per_hour in training.yaml.", report.get("cost")),
        "steps": ("Steps that it took.", report.get("steps")),
        "tokens": ("Useful tokens that it read.", report.get("tokens")),
        "loss": ("The mean loss of its last steps.", _last(report.get("loss_curve"))),
        "validation_loss": ("The last loss on the rows held back.", _last(report.get("validation_loss"))),
    }
    for name, (help_, value) in told.items():
        yield from gauge(f"evergreen_training_{name}", f"The newest training: {help_}", value)
    help_ = "The newest training: the most memory of any rank, of the machine (host) and of its device."
    yield labelled("evergreen_training_peak_memory_bytes", help_, "memory", report.get("peak_memory", {}))
    if report.get("ended"):
        ended = datetime.fromisoformat(report["ended"]).timestamp()
        yield from gauge("evergreen_training_end_timestamp_seconds", "When the newest training ended.", ended)


def _last(curve: Iterable[tuple[float, float]] | None) -> float | None:
    return next((value for _, value in reversed(list(curve or ()))), None)


def _drift(lake: Lake) -> Iterator[Figure]:
    """What the newest window says; nothing is told of what could not be measured."""
    newest = _newest(lake, "drift")
    if newest is None:
        return
    report = load_drift(lake, newest[0].removeprefix("drift/"))
    yield from gauge("evergreen_drift_measured", "1 if drift could be measured.", report.detected is not None)
    yield from gauge("evergreen_drift_detected", "1 if the newest window drifted.", report.detected)
    yield from gauge(
        "evergreen_drift_share_threshold", "Above this share of a group there is drift.", report.share_threshold
    )
    yield labelled("evergreen_drift_share", "The share of a group's columns that drifted.", "group", report.groups)
    furthest = sorted(report.columns, key=lambda column: -column.times)[:_MOST_COLUMNS]
    columns: dict[tuple[str, ...], float] = {(column.group, column.name): column.times for column in furthest}
    help_ = "How far a column moved, as a multiple of its threshold."
    yield Figure("evergreen_drift_column_ratio", help_, columns, ("group", "column"))


def _performance(home: Home) -> Iterator[Figure]:
    """How good the champion is, by the newest window."""
    newest = _newest(home.lake, "performance")
    if newest is None:
        return
    found = load_performance(home.lake, newest[0].removeprefix("performance/"))
    shares = {
        "realised": found.realised.accuracy,
        "evaluated": found.evaluated.accuracy,
        "estimated": found.estimated_accuracy,
        "estimated_by_threshold": found.estimated_by_threshold,
    }
    help_ = "Right answers: realised lately, in the evaluation, and expected of the newest window."
    yield labelled("evergreen_accuracy", help_, "kind", shares)
    rows = {"realised": found.realised.rows, "evaluated": found.evaluated.rows, "window": found.window_rows}
    yield labelled("evergreen_accuracy_rows", "Rows that an accuracy rests on.", "kind", rows)
    yield from gauge(
        "evergreen_label_maturity_ratio", "The share of the newest window's labels that are there.", found.maturity
    )
    by_label = {label: found.recall.get(label) for label in home.domain.labels}
    yield labelled("evergreen_label_recall", "Realised right answers by true label.", "label", by_label)


def _decisions(home: Home, settings: Settings) -> Iterator[Figure]:
    """What was decided, who is champion, and what waits for a person, by the ledger."""
    entries = glance(home)
    yield from _counted(entries)
    now = History(entries).now
    if now is None:
        return
    yield from gauge("evergreen_as_of_timestamp_seconds", "The newest as-of.", _moment(now.as_of))
    if now.champion:
        yield from gauge("evergreen_champion_version", "The champion's version.", int(now.champion.version))
        since = _moment(now.champion.since)
        yield from gauge("evergreen_champion_since_timestamp_seconds", "The as-of on which it became champion.", since)
    waiting = {"approval": len(now.waiting), "retraining": now.alert is not None}
    yield labelled("evergreen_waiting_for_person", "What a person is asked for.", "what", waiting)
    policy = settings.retraining
    spent = recall(entries, now.as_of, None, None, policy).spent
    yield from gauge("evergreen_budget_spent", "What the retrainings of the as-of's month have cost.", spent)
    yield from gauge("evergreen_budget_limit", "The most that they may cost.", policy.budget_per_month)


def _alerts(home: Home) -> Iterator[Figure]:
    """How the alerts by webhook arrive; nothing where none were ever wanted."""
    if sent := Sent.of(home):
        yield from gauge("evergreen_alerts_failed_attempts", "At the alert that is to be sent next.", sent.failed)
        yield Figure("evergreen_alerts_given_up", "Alerts that nobody has taken.", {(): float(sent.given_up)}, (), True)


def _counted(entries: Sequence[Entry]) -> Iterator[Figure]:
    """Verdicts and decisions, all of them and the last, by what they came to."""
    kinds = {"verdict": ("verdicts", gate.Decision), "retraining": ("retraining_decisions", decision.Decision)}
    for kind, (name, outcomes) in kinds.items():
        made = [entry.body["decision"] for entry in entries if entry.kind == kind]
        counts = dict.fromkeys(get_args(outcomes), 0) | Counter(made)
        found = labelled(f"evergreen_{name}", f"Entries of the ledger of the kind {kind}.", "decision", counts)
        yield replace(found, only_grows=True)
        last = {outcome: made[-1] == outcome for outcome in counts if made}
        yield labelled(f"evergreen_last_{kind}", "1 for what the last of them came to.", "decision", last)
    failed = sum(entry.kind == "failure" for entry in entries)
    yield Figure("evergreen_run_failures", "Failed runs in the ledger.", {(): float(failed)}, only_grows=True)


def _moment(as_of: str) -> float:
    return _seconds(instant(as_of))


def _seconds(naive: datetime) -> float:
    """Of an instant in UTC, since 1970."""
    return naive.replace(tzinfo=UTC).timestamp()
