"""The rows behind a number: of a slice, of a cell of the confusion matrix, or of a column that has moved; worst first.

Texts stay in the home. They are shown where configs/front.yaml says so, unless a field of theirs is sensitive, and
without the values of sensitive columns.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from assets.display import label_name, plain, slice_name
from assets.evaluation.metrics import slices
from assets.evaluation.report import Evaluation, SliceScores, read_evaluation, table
from assets.front.history import History
from assets.lake import Home, Lake
from assets.settings import Domain, DriftSettings, FrontSettings

if TYPE_CHECKING:
    from assets.monitoring.comparison import Column
    from assets.monitoring.report import DriftReport
    from assets.registry.registry import RegisteredVersion

__all__ = ["Behind", "Moved", "Row", "Rows", "Wanted", "behind", "find_rows"]

_COLUMN_GROUPS = ("features", "text", "predictions", "labels")
"""Of what is compared for drift, what each row has a value of."""
_GONE = "The training set is no longer in the home, and with it the texts and what is known of the rows."
_WINDOW_GONE = "What the window is made of, or was compared with, is no longer in the home."
_ORDER = "First come those of the kinds that have grown most against the training, of each the least sure."
_KIND = ("its kind", "share of the window", "share of the training")
"""Names with blanks, which no column of a domain has."""
_TINY = 1e-4
_SENSITIVE = "Texts are not shown: what they consist of is sensitive ({fields})."
_OFF = "Texts are not shown: texts in configs/front.yaml is off."
_VALUE = 80
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Wanted:
    """Which rows: of a version's evaluation those of a slice, or of a label and the answer to it, or of a window those
    by which a column moved. What is empty is not asked.
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
        """As an address has them, without the page."""
        return {name: str(value) for name, value in asdict(self).items() if value and name != "page"}


@dataclass(frozen=True)
class Row:
    """A record, what was answered, and what is known of it."""

    record_id: str | None
    """None where ids are sensitive."""
    label: str | None
    """Its true label's display name; None while it is not known."""
    predicted: str
    confidence: float
    right: bool | None
    values: dict[str, str]
    text: str | None = None


@dataclass(frozen=True)
class Rows:
    """A page of the rows that were asked for."""

    title: str
    order: str
    """What comes first."""
    total: int
    page: int
    pages: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """What is not shown, and why."""


@dataclass(frozen=True)
class Moved:
    """A column that has drifted in a window."""

    column: str
    group: str
    value: float
    threshold: float


@dataclass(frozen=True)
class Behind:
    """What a version was evaluated on, and what has moved since: each number leads to its rows."""

    version: str
    as_of: str
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows by true label (down) and answer (across), in the order of `labels`."""
    slices: tuple[SliceScores, ...]
    window: str | None = None
    """The newest as-of on which drift was measured of it."""
    moved: tuple[Moved, ...] = field(default=())


def behind(home: Home, history: History, version: str) -> Behind | None:
    """Of a version by its number; None when it was never judged, or its evaluation is gone."""
    evaluation = _evaluation(home.lake, history, version)
    if evaluation is None:
        return None
    report = _newest_drift(home.lake, evaluation.training_id)
    drifted = sorted((c for c in _by_row(report) if c.drifted), key=lambda c: -c.times) if report else []
    return Behind(
        version=version,
        as_of=evaluation.as_of,
        labels=evaluation.labels,
        confusion=evaluation.confusion,
        slices=evaluation.slices,
        window=report.as_of if report else None,
        moved=tuple(Moved(c.name, c.group, c.value, c.threshold) for c in drifted),
    )


def find_rows(
    home: Home, history: History, wanted: Wanted, settings: FrontSettings, drift: DriftSettings
) -> Rows | None:
    """The rows that are asked for; None where there is no such slice, cell, column or page."""
    found = _moved(home, history, wanted, drift) if wanted.column else _evaluated(home, history, wanted)
    return None if found is None else found.page(home.domain, wanted.page, settings)


@dataclass(frozen=True)
class _Found:
    """All rows, worst first: record_id, label, predicted and confidence, then the columns `shown`, text where it is
    there, and the known columns."""

    title: str
    order: str
    frame: pd.DataFrame
    shown: tuple[str, ...]
    domain: Domain
    """The one that the rows were made by."""
    notes: tuple[str, ...] = ()

    def page(self, today: Domain, number: int, settings: FrontSettings) -> Rows | None:
        total, size = len(self.frame), settings.page_rows
        pages = max(1, -(-total // size))
        if not 1 <= number <= pages:
            return None
        sensitive = {*today.sensitive, *self.domain.sensitive}
        hidden = self._hidden(sensitive, settings)
        part = self.frame.iloc[(number - 1) * size : number * size].to_dict("records")
        rows = tuple(self._row(row, today, sensitive, None if hidden else settings.text_characters) for row in part)
        notes = (*self.notes, *([hidden] if hidden else []))
        return Rows(self.title, self.order, total, number, pages, rows, notes)

    def _hidden(self, sensitive: set[str], settings: FrontSettings) -> str | None:
        """Why texts are not shown."""
        if fields := sorted(sensitive & set(self.domain.text.fields)):
            return _SENSITIVE.format(fields=", ".join(fields))
        return None if settings.texts else _OFF

    def _row(self, row: Mapping[Any, Any], today: Domain, sensitive: set[str], characters: int | None) -> Row:
        label = None if pd.isna(row["label"]) else str(row["label"])
        text = _redacted(row, self.domain, sensitive) if characters and "text" in row else None
        return Row(
            record_id=None if self.domain.id in sensitive else plain(row["record_id"], _VALUE),
            label=label and label_name(today, label),
            predicted=label_name(today, str(row["predicted"])),
            confidence=float(row["confidence"]),
            right=None if label is None else label == row["predicted"],
            values={name: _shown(row[name]) for name in self.shown if name not in sensitive},
            text=text and plain(text, characters),
        )


def _evaluation(lake: Lake, history: History, version: str) -> Evaluation | None:
    """The one that the last verdict on a version rests on."""
    verdicts = [e for e in history.entries if e.kind == "verdict" and str(e.body["version"]) == version]
    if not verdicts:
        return None
    folder = lake.path(table(verdicts[-1].as_of), verdicts[-1].body["evaluation"])
    return read_evaluation(folder) if folder.exists() else None


def _evaluated(home: Home, history: History, wanted: Wanted) -> _Found | None:
    """Rows of an evaluation, those first whose true label was given the least probability."""
    evaluation = _evaluation(home.lake, history, wanted.version)
    if evaluation is None or not _is_there(evaluation, wanted):
        return None
    frame, known = _answers(home.lake, evaluation), _known(home.lake, evaluation)
    domain = known[0] if known else home.domain
    if known:
        frame = frame.join(known[1][[name for name in known[1] if name not in frame]])
    inside = _inside(frame, domain, wanted, whole=known is not None)
    return _Found(
        title=f"Version {wanted.version}: {_named(home.domain, wanted)}",
        order=f"First come those whose true {home.domain.label.one} was given the least probability.",
        frame=frame[inside].sort_values(["chance", "record_id"]),
        shown=("known on", *(() if known is None else (*domain.slices, "characters of text"))),
        domain=domain,
        notes=() if known else (_GONE,),
    )


def _is_there(evaluation: Evaluation, wanted: Wanted) -> bool:
    if wanted.by:
        return any((part.by, part.value) == (wanted.by, wanted.value) for part in evaluation.slices)
    return wanted.label in evaluation.labels and wanted.predicted in ("", *evaluation.labels)


def _named(domain: Domain, wanted: Wanted) -> str:
    if wanted.by:
        return slice_name(domain, wanted.by, wanted.value)
    answered = f", answered {label_name(domain, wanted.predicted)}" if wanted.predicted else ""
    return slice_name(domain, "label", wanted.label) + answered


def _answers(lake: Lake, evaluation: Evaluation) -> pd.DataFrame:
    """The answers, with the probability of the true label and the day on which the row was known."""
    frame = pd.read_parquet(evaluation.folder(lake) / "predictions.parquet")
    places = frame["label"].map({label: place for place, label in enumerate(evaluation.labels)})
    chances = np.stack(frame.pop("probabilities").tolist())[np.arange(len(frame)), places]
    return frame.assign(chance=chances, **{"known on": frame["known_at"].dt.strftime("%Y-%m-%d")})


def _known(lake: Lake, evaluation: Evaluation) -> tuple[Domain, pd.DataFrame] | None:
    """What the training set has of the same rows, and its domain; None when it is gone."""
    from assets.features.snapshot import read_snapshot

    if not lake.path(f"training_set/{evaluation.as_of}", evaluation.snapshot.id).exists():
        return None
    snapshot = read_snapshot(lake, evaluation.as_of, evaluation.snapshot.id)
    rows = (snapshot.reference() if evaluation.refit_of else snapshot.test()).reset_index(drop=True)
    return snapshot.domain, rows.assign(**{"characters of text": rows["text"].str.len()})


def _inside(frame: pd.DataFrame, domain: Domain, wanted: Wanted, *, whole: bool) -> npt.NDArray[np.bool_]:
    """Which rows were asked for; none when what is asked of them is not known."""
    if wanted.by in ("", "label"):
        label, answers = wanted.label or wanted.value, frame["predicted"]
        return np.asarray((frame["label"] == label) & ((answers == wanted.predicted) | (wanted.predicted == "")))
    parts = slices(frame, domain) if whole else []
    masks = (part.mask for part in parts if (part.by, part.value) == (wanted.by, wanted.value))
    return next(masks, np.zeros(len(frame), np.bool_))


def _moved(home: Home, history: History, wanted: Wanted, settings: DriftSettings) -> _Found | None:
    """Rows of a window, those first that are of a kind which has grown most against the training."""
    report = _drift(home.lake, wanted.as_of) if history.timeline.day(wanted.as_of) else None
    column = next((found for found in _by_row(report) if found.name == wanted.column), None) if report else None
    if column is None:
        return None
    title, order = f"{wanted.column} in the window up to {wanted.as_of}", _ORDER
    champion = _scored_by(home.lake, history, wanted.as_of)
    if champion is None:
        return _Found(title, order, pd.DataFrame(), (), home.domain, (_WINDOW_GONE,))
    frame = _kinds(home.lake, wanted.as_of, champion, column, settings)
    shown = (wanted.column, *(name for name in _KIND if name != wanted.column))
    return _Found(title, order, frame, shown, home.domain)


def _kinds(
    lake: Lake, as_of: str, champion: "RegisteredVersion", column: "Column", settings: DriftSettings
) -> pd.DataFrame:
    """The window's rows of the kinds of a column's values that have grown, with how much of either side is of them."""
    from assets.monitoring.columns import fit_binning
    from assets.monitoring.sides import read_reference, read_rows, window_of

    reference = read_reference(lake, champion, settings)
    rows, features = read_rows(lake, as_of, reference, settings)
    rows = rows[~reference.kept_out.among(rows["text"])].reset_index(drop=True)
    now = window_of(rows, features, reference, settings).side.groups[column.group][column.name]
    before = reference.side.groups[column.group][column.name]
    binning = fit_binning(before, settings.bins, len(now))
    codes, size = binning.codes(now), len(binning.names)
    was, is_ = (np.bincount(side, minlength=size) / len(side) for side in (binning.codes(before), codes))
    moved = (is_ - was) * np.log(np.maximum(is_, _TINY) / np.maximum(was, _TINY))
    grown = np.flatnonzero(is_ > was)
    kinds = dict(zip(_KIND, (np.array(binning.names)[codes], is_[codes], was[codes]), strict=True))
    frame = rows.loc[now.index].assign(**{column.name: now}, **kinds, **{"by how much": moved[codes]})
    order = {"by how much": False, "confidence": True, "record_id": True}
    return frame[np.isin(codes, grown)].sort_values([*order], ascending=[*order.values()])


def _scored_by(lake: Lake, history: History, as_of: str) -> "RegisteredVersion | None":
    """The version whose window this is; None when what it was compared with is gone."""
    from assets.registry.registry import RegisteredVersion
    from assets.scoring.predictions import load_manifest

    if lake.version(f"predictions/{as_of}") is None:
        return None
    scored = load_manifest(lake.current(f"predictions/{as_of}"))
    needed = [lake.path("marts", scored.marts_version)]
    needed.append(lake.path(f"training_set/{scored.snapshot_as_of}", scored.snapshot_id))
    if not all(path.exists() for path in needed):
        return None
    judged = [e.body for e in history.entries if e.kind == "verdict" and e.body["training_id"] == scored.training_id]
    refit_of = judged[-1].get("refit_of") if judged else None
    about = (scored.model_version, scored.training_id, scored.snapshot_id, scored.snapshot_as_of)
    return RegisteredVersion(*about, tags={}, location="", refit_of=refit_of)


def _drift(lake: Lake, as_of: str) -> "DriftReport | None":
    from assets.monitoring.report import load_drift

    return load_drift(lake, as_of) if lake.version(f"drift/{as_of}") else None


def _newest_drift(lake: Lake, training: str) -> "DriftReport | None":
    """The newest report on what a training has answered."""
    days = (table.removeprefix("drift/") for table in reversed(lake.tables("drift")))
    reports = (report for day in days if (report := _drift(lake, day)))
    return next((report for report in reports if report.training_id == training), None)


def _by_row(report: "DriftReport") -> "list[Column]":
    return [column for column in report.columns if column.group in _COLUMN_GROUPS]


def _redacted(row: Mapping[Any, Any], domain: Domain, sensitive: Collection[str]) -> str:
    """A text as the model reads it, without the values of the row's sensitive columns."""
    text = str(row["text"])
    for each in domain.text.replace:
        text = re.sub(each.pattern, each.by, text)
    for name in domain.known:
        if name in sensitive and (value := str(row.get(name) or "").strip()):
            text = re.sub(re.escape(value), f"[{name}]", text, flags=re.IGNORECASE)
    return text


def _shown(value: Any) -> str:
    if pd.isna(value):
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else plain(value, _VALUE)
