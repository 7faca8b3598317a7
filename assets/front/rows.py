"""The rows behind a number: of a slice, a cell of the confusion matrix or a column that drifted, the worst first.

Texts stay in the home. They are shown only if configs/front.yaml says so and none of their fields is sensitive, and
without the values of sensitive columns.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from assets.display import label_name, plain, slice_name
from assets.evaluation.metrics import slices
from assets.evaluation.report import Evaluation, SliceScores, read_evaluation, table
from assets.front.history import History
from assets.home import Home
from assets.lake import Lake
from assets.settings import Domain, DriftSettings, FrontSettings

if TYPE_CHECKING:
    from assets.monitoring.comparison import Column
    from assets.monitoring.report import DriftReport
    from assets.registry.registry import RegisteredVersion

__all__ = ["Behind", "Moved", "Row", "Rows", "Wanted", "behind", "find_rows"]

_GROUPS = ("features", "text", "predictions", "labels")
"""The groups of drift whose columns have a value for each row."""
_KIND = ("its kind", "share of the window", "share of the training")
"""Names with blanks, which no column of a domain has."""
_TINY = 1e-4
_VALUE = 80
"""The most characters of a value that are shown."""
_GONE = "The training set is no longer in the home, so the rows' values and texts are unknown."
_WINDOW_GONE = "The window, or what it was compared with, is no longer in the home."
_SENSITIVE = "Texts are not shown, because they have sensitive fields: {fields}."
_OFF = "Texts are not shown, because configs/front.yaml has texts: false."


@dataclass(frozen=True)
class Wanted:
    """Which rows: a slice (by, value) or a cell (label, predicted) of a version's evaluation, or a column of a window.

    A cell without `predicted` has all rows of the label. Empty fields are not used.
    """

    version: str = ""
    by: str = ""
    value: str = ""
    label: str = ""
    predicted: str = ""
    as_of: str = ""
    column: str = ""
    page: int = 1

    @property
    def parameters(self) -> dict[str, str]:
        """The fields that are used, without the page."""
        return {name: str(value) for name, value in asdict(self).items() if value and name != "page"}


@dataclass(frozen=True)
class Row:
    """A record, the answer to it, and its values."""

    record_id: str | None
    """None if ids are sensitive."""
    label: str | None
    """The display name of the true label; None while it is unknown."""
    predicted: str
    confidence: float
    right: bool | None
    values: dict[str, str]
    text: str | None = None


@dataclass(frozen=True)
class Rows:
    """A page of rows."""

    title: str
    order: str
    """A sentence about which rows come first."""
    total: int
    page: int
    pages: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """What is not shown, and why."""


@dataclass(frozen=True)
class Moved:
    """A column that has drifted."""

    column: str
    group: str
    value: float
    threshold: float


@dataclass(frozen=True)
class Behind:
    """The numbers of a version that have rows behind them."""

    version: str
    as_of: str
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows by true label (down) and answer (across), in the order of `labels`."""
    slices: tuple[SliceScores, ...]
    window: str | None
    """The newest as-of on which the version's drift was measured."""
    moved: tuple[Moved, ...]


def behind(home: Home, history: History, version: str) -> Behind | None:
    """The numbers of a version's last evaluation; None if it was never judged or the evaluation is gone."""
    evaluation = _evaluation(home.lake, history, version)
    if evaluation is None:
        return None
    report = _newest_drift(home.lake, evaluation.training_id)
    drifted = [column for column in _columns(report) if column.drifted] if report else []
    return Behind(
        version=version,
        as_of=evaluation.as_of,
        labels=evaluation.labels,
        confusion=evaluation.confusion,
        slices=evaluation.slices,
        window=report.as_of if report else None,
        moved=tuple(
            Moved(column.name, column.group, column.value, column.threshold)
            for column in sorted(drifted, key=lambda column: -column.times)
        ),
    )


def find_rows(
    home: Home, history: History, wanted: Wanted, settings: FrontSettings, drift: DriftSettings
) -> Rows | None:
    """A page of the wanted rows; None if there is no such slice, cell, column or page."""
    selection = _moved(home, history, wanted, drift) if wanted.column else _evaluated(home, history, wanted)
    return None if selection is None else selection.page(home.domain, wanted.page, settings)


@dataclass(frozen=True)
class _Selection:
    """All wanted rows, the worst first.

    `frame` has record_id, label, predicted, confidence and the columns in `shown`, and it may have text and the columns
    of the domain.
    """

    title: str
    order: str
    frame: pd.DataFrame
    shown: tuple[str, ...]
    domain: Domain
    """The domain as it was when the rows were made."""
    notes: tuple[str, ...] = ()

    def page(self, today: Domain, number: int, settings: FrontSettings) -> Rows | None:
        total, size = len(self.frame), settings.page_rows
        pages = max(1, -(-total // size))
        if not 1 <= number <= pages:
            return None
        sensitive = {*today.sensitive, *self.domain.sensitive}
        hidden = self._why_hidden(sensitive, settings)
        part = self.frame.iloc[(number - 1) * size : number * size].to_dict("records")
        rows = tuple(self._row(row, today, sensitive, 0 if hidden else settings.text_characters) for row in part)
        notes = (*self.notes, *([hidden] if hidden else []))
        return Rows(self.title, self.order, total, number, pages, rows, notes)

    def _why_hidden(self, sensitive: set[str], settings: FrontSettings) -> str | None:
        if fields := sorted(sensitive & set(self.domain.text.fields)):
            return _SENSITIVE.format(fields=", ".join(fields))
        return None if settings.texts else _OFF

    def _row(self, row: Mapping[Any, Any], today: Domain, sensitive: set[str], characters: int) -> Row:
        label = None if pd.isna(row["label"]) else str(row["label"])
        text = _redacted(row, self.domain, sensitive) if characters and "text" in row else None
        return Row(
            record_id=None if self.domain.id in sensitive else plain(row["record_id"], _VALUE),
            label=None if label is None else label_name(today, label),
            predicted=label_name(today, str(row["predicted"])),
            confidence=float(row["confidence"]),
            right=None if label is None else label == row["predicted"],
            values={name: _value(row[name]) for name in self.shown if name not in sensitive},
            text=None if text is None else plain(text, characters),
        )


def _evaluation(lake: Lake, history: History, version: str) -> Evaluation | None:
    """The evaluation behind the last verdict on a version."""
    verdicts = [e for e in history.entries if e.kind == "verdict" and str(e.body["version"]) == version]
    if not verdicts:
        return None
    folder = lake.path(table(verdicts[-1].as_of), verdicts[-1].body["evaluation"])
    return read_evaluation(folder) if folder.exists() else None


def _evaluated(home: Home, history: History, wanted: Wanted) -> _Selection | None:
    """Rows of an evaluation, in order of the probability of their true label."""
    evaluation = _evaluation(home.lake, history, wanted.version)
    if evaluation is None or not _exists(evaluation, wanted):
        return None
    frame, known = _answers(home.lake, evaluation), _known(home.lake, evaluation)
    domain = known[0] if known else home.domain
    if known:
        frame = frame.join(known[1][[name for name in known[1] if name not in frame]])
    inside = _inside(frame, domain, wanted, known=known is not None)
    return _Selection(
        title=f"Version {wanted.version}: {_title(home.domain, wanted)}",
        order=f"Rows whose true {home.domain.label.one} got the lowest probability come first.",
        frame=frame[inside].sort_values(["probability", "record_id"]),
        shown=("known on", *((*domain.slices, "characters of text") if known else ())),
        domain=domain,
        notes=() if known else (_GONE,),
    )


def _exists(evaluation: Evaluation, wanted: Wanted) -> bool:
    if wanted.by:
        return any((part.by, part.value) == (wanted.by, wanted.value) for part in evaluation.slices)
    return wanted.label in evaluation.labels and wanted.predicted in ("", *evaluation.labels)


def _title(domain: Domain, wanted: Wanted) -> str:
    if wanted.by:
        return slice_name(domain, wanted.by, wanted.value)
    answered = f", answered {label_name(domain, wanted.predicted)}" if wanted.predicted else ""
    return slice_name(domain, "label", wanted.label) + answered


def _answers(lake: Lake, evaluation: Evaluation) -> pd.DataFrame:
    """The answers, with the probability of the true label and the day on which the row was known."""
    frame = pd.read_parquet(evaluation.folder(lake) / "predictions.parquet")
    places = frame["label"].map({label: place for place, label in enumerate(evaluation.labels)})
    probabilities = np.stack(frame.pop("probabilities").tolist())[np.arange(len(frame)), places]
    return frame.assign(probability=probabilities, **{"known on": frame["known_at"].dt.strftime("%Y-%m-%d")})


def _known(lake: Lake, evaluation: Evaluation) -> tuple[Domain, pd.DataFrame] | None:
    """The domain and the rows of the training set that was evaluated on; None if it is gone."""
    from assets.features.snapshot import read_snapshot

    if not lake.path(f"training_set/{evaluation.as_of}", evaluation.snapshot.id).exists():
        return None
    snapshot = read_snapshot(lake, evaluation.as_of, evaluation.snapshot.id)
    rows = (snapshot.reference() if evaluation.refit_of else snapshot.test()).reset_index(drop=True)
    return snapshot.domain, rows.assign(**{"characters of text": rows["text"].str.len()})


def _inside(frame: pd.DataFrame, domain: Domain, wanted: Wanted, *, known: bool) -> npt.NDArray[np.bool_]:
    """Which rows are wanted [rows]; none of a slice whose column is unknown."""
    if wanted.by in ("", "label"):
        label, answers = wanted.label or wanted.value, frame["predicted"]
        return np.asarray((frame["label"] == label) & ((answers == wanted.predicted) | (wanted.predicted == "")))
    parts = slices(frame, domain) if known else []
    masks = (part.mask for part in parts if (part.by, part.value) == (wanted.by, wanted.value))
    return next(masks, np.zeros(len(frame), np.bool_))


def _moved(home: Home, history: History, wanted: Wanted, settings: DriftSettings) -> _Selection | None:
    """Rows of a window that are of a kind which has become more frequent."""
    report = _drift(home.lake, wanted.as_of) if history.timeline.day(wanted.as_of) else None
    column = next((one for one in _columns(report) if one.name == wanted.column), None) if report else None
    if column is None:
        return None
    title = f"{wanted.column.replace('_', ' ')} in the window up to {wanted.as_of}"
    order = "Rows of the kinds that have grown most since the training come first, of each the least confident."
    champion = _scored_by(home.lake, history, wanted.as_of)
    if champion is None:
        return _Selection(title, order, pd.DataFrame(), (), home.domain, (_WINDOW_GONE,))
    frame = _grown(home.lake, wanted.as_of, champion, column, settings)
    return _Selection(title, order, frame, (wanted.column, *_KIND), home.domain)


def _grown(
    lake: Lake, as_of: str, champion: "RegisteredVersion", column: "Column", settings: DriftSettings
) -> pd.DataFrame:
    """The window's rows of the kinds of values that have become more frequent, by their part in the PSI."""
    from assets.monitoring.columns import fit_binning
    from assets.monitoring.sides import read_reference, read_rows, window_of

    reference = read_reference(lake, champion, settings)
    rows, features = read_rows(lake, as_of, reference, settings)
    rows = rows[~reference.kept_out.among(rows["text"])].reset_index(drop=True)
    current = window_of(rows, features, reference, settings).side.groups[column.group][column.name]
    before = reference.side.groups[column.group][column.name]
    binning = fit_binning(before, settings.bins, len(current))
    codes, size = binning.codes(current), len(binning.names)
    was, now = (np.bincount(side, minlength=size) / len(side) for side in (binning.codes(before), codes))
    part = (now - was) * np.log(np.maximum(now, _TINY) / np.maximum(was, _TINY))
    shares = [np.array([f"{share:.1%}" for share in side])[codes] for side in (now, was)]
    kinds = dict(zip(_KIND, (np.array(binning.names)[codes], *shares), strict=True))
    frame = rows.loc[current.index].assign(**{column.name: current}, **kinds, **{"part in the PSI": part[codes]})
    ascending = {"part in the PSI": False, "confidence": True, "record_id": True}
    return frame[(now > was)[codes]].sort_values([*ascending], ascending=[*ascending.values()])


def _scored_by(lake: Lake, history: History, as_of: str) -> "RegisteredVersion | None":
    """The version that scored a window; None if the window or the version's training set is gone."""
    from assets.registry.registry import RegisteredVersion
    from assets.scoring.predictions import load_manifest

    if lake.version(f"predictions/{as_of}") is None:
        return None
    scored = load_manifest(lake.current(f"predictions/{as_of}"))
    training_set = lake.path(f"training_set/{scored.snapshot_as_of}", scored.snapshot_id)
    if not (training_set.exists() and lake.path("marts", scored.marts_version).exists()):
        return None
    judged = [e.body for e in history.entries if e.kind == "verdict" and e.body["training_id"] == scored.training_id]
    refit_of = judged[-1].get("refit_of") if judged else None
    identity = (scored.model_version, scored.training_id, scored.snapshot_id, scored.snapshot_as_of)
    return RegisteredVersion(*identity, tags={}, location="", refit_of=refit_of)


def _drift(lake: Lake, as_of: str) -> "DriftReport | None":
    from assets.monitoring.report import load_drift

    return load_drift(lake, as_of) if lake.version(f"drift/{as_of}") else None


def _newest_drift(lake: Lake, training: str) -> "DriftReport | None":
    """The newest drift report about a training."""
    days = (table.removeprefix("drift/") for table in reversed(lake.tables("drift")))
    reports = (report for day in days if (report := _drift(lake, day)))
    return next((report for report in reports if report.training_id == training), None)


def _columns(report: "DriftReport") -> "list[Column]":
    """The columns that have a value for each row."""
    return [column for column in report.columns if column.group in _GROUPS]


def _redacted(row: Mapping[Any, Any], domain: Domain, sensitive: set[str]) -> str:
    """The text as the model reads it, without the values of the row's sensitive columns."""
    text = str(row["text"])
    for each in domain.text.replace:
        text = re.sub(each.pattern, each.by, text)
    for name in sorted(sensitive & {*domain.known}):
        if not pd.isna(row.get(name)) and (value := str(row[name]).strip()):
            text = re.sub(re.escape(value), f"[{name}]", text, flags=re.IGNORECASE)
    return text


def _value(value: Any) -> str:
    if pd.isna(value):
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else plain(value, _VALUE)
