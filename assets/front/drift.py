"""The drift page of a window: whether and what moved, by how much, since when, and at what cost.

All of it is read from what monitoring has published; it has numbers and names of columns, and no text of a record.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from assets.display import capitalized, label_name
from assets.home import Home
from assets.lake import Lake
from assets.settings import Domain

if TYPE_CHECKING:
    from assets.monitoring.comparison import Column
    from assets.monitoring.distributions import Distribution
    from assets.monitoring.performance import Performance, WindowQuality
    from assets.monitoring.report import DriftReport, Earlier

__all__ = ["Count", "Drift", "Group", "Measure", "Window", "drift", "evidently_path"]

_ABOUT = {
    "wording": "how well a classifier tells the texts of the window from those of the training by their words",
    "text": "length, unknown words and redactions of the texts, compared with training rows",
    "features": "the features that the version was served and columns of the record, compared with training rows",
    "predictions": "what the version answered and how sure it was, compared with its evaluation",
    "labels": "{many} that have arrived, compared with those of training rows that would have arrived as fast",
    "answers": "errors in blind answers whose {one} is known, compared with what the version's confidence promised",
}
_NAMES: "Mapping[str, Literal['PSI', 'AUC', 'Evidence']]" = {"psi": "PSI", "auc": "AUC", "evidence": "Evidence"}
_STATISTICS = {
    "psi": "PSI, the population stability index: 0 is no difference",
    "auc": "AUC, the area under the ROC curve: 0.5 is no difference",
    "evidence": "evidence, the decimal logarithm of an e-value: 0 is none",
}
_TITLES = {
    "text_words": "words in a text",
    "text_unknown_share": "unknown words",
    "text_redacted_share": "redacted words",
    "domain_classifier": "wording, by a classifier",
    "prediction_confidence": "confidence",
    "answers": "all answers",
    "sure_answers": "sure answers",
}
_WITHOUT_ROWS = ("wording", "answers")
"""Groups whose columns have no value for each row."""
_MOST_DECIMALS = 15


@dataclass(frozen=True)
class Measure:
    """A compared column, as it was judged."""

    column: str
    title: str
    """Its display name."""
    statistic: Literal["PSI", "AUC", "Evidence"]
    value: float
    calm: float
    """0 for evidence, of which nothing says how much is calm."""
    threshold: float
    times: float
    """The value as a multiple of the threshold; for an AUC what each is above 0.5."""
    place: float
    """Of the value on a scale from 0 to 1, on which n times the threshold is at n / (n + 1)."""
    calm_place: float
    state: Literal["drifted", "moved", "calm"]
    """Moved is beyond calm, but not at the threshold; evidence never is."""
    since: str | None
    """The first window in a row in which it had drifted."""
    note: str
    """What it was measured on, if the statistic does not show it."""
    distribution: "Distribution | None"
    """None if it has none, or none is kept."""
    grown: tuple[str, float, float] | None
    """The category that has grown most, and its shares of the reference and of the window."""
    has_rows: bool

    @property
    def decimals(self) -> int:
        """So many that a value beyond a bound looks beyond it."""
        pairs = [(self.value, self.threshold), (self.value, self.calm), (self.calm, self.threshold)]
        enough = (d for d in range(3, _MOST_DECIMALS) if all(_looks_right(*pair, d) for pair in pairs))
        return next(enough, _MOST_DECIMALS)


@dataclass(frozen=True)
class Group:
    """Columns that are judged together."""

    name: str
    about: str
    statistic: str
    """What its columns are measured by."""
    rows: tuple[int, int] | None
    """Of the window and of what it is compared with; None if not known by column."""
    drifted: int
    is_drift: bool
    """Whether so many are drift."""
    columns: tuple[Measure, ...]
    """The furthest first."""


@dataclass(frozen=True)
class Count:
    """Rows that numbers of the page are about."""

    name: str
    means: str
    rows: int
    labels: int | None
    """Those whose label is known; None where labels have no part in it."""


@dataclass(frozen=True)
class Window:
    """A window of the same champion."""

    quality: "WindowQuality"
    drifted: int | None
    """Columns; None if drift was not measured."""
    share: float | None
    """The largest of a group."""


@dataclass(frozen=True)
class Drift:
    """What was measured of a window."""

    as_of: str
    version: str | None
    detected: bool | None
    sentence: str
    """Whether it drifted, and what moved."""
    reason: str
    """The same with the numbers that it was judged by."""
    share_threshold: float | None
    """The share of a group's drifted columns above which there is drift, if known."""
    groups: tuple[Group, ...]
    """Those that are drift first."""
    left_out: dict[str, str]
    """Why other groups were not measured."""
    counts: tuple[Count, ...]
    performance: "Performance | None"
    """Of the same champion."""
    windows: tuple[Window, ...]
    """Of the same champion, newest first."""
    evidently: str | None
    """The path of Evidently's report among the reports, if it is there."""

    @property
    def more_wrong(self) -> int | None:
        """The estimated number of wrong answers in the window beyond those at the evaluated accuracy."""
        found = self.performance
        if found is None or found.evaluated.accuracy is None or found.estimated_accuracy is None:
            return None
        return round((found.evaluated.accuracy - found.estimated_accuracy) * found.window_rows)


def drift(home: Home, as_of: str) -> Drift | None:
    """What is published of a window; None if nothing is."""
    from assets.monitoring.distributions import read_distributions
    from assets.monitoring.report import earlier_windows, load_drift

    if f"drift/{as_of}" not in home.lake.tables("drift"):
        return None
    report = load_drift(home.lake, as_of)
    distributions = read_distributions(home.lake.current(f"drift/{as_of}"))
    performance = _performance(home.lake, report)
    groups = _groups(report, distributions, home.domain)
    return Drift(
        as_of=as_of,
        version=report.model_version,
        detected=report.detected,
        sentence=_sentence(report, groups),
        reason=report.reason,
        share_threshold=report.share_threshold,
        groups=groups,
        left_out=report.left_out,
        counts=tuple(_counts(report, distributions, performance)),
        performance=performance,
        windows=_windows(report, earlier_windows(home.lake, as_of, report.training_id), performance),
        evidently=evidently_path(home, as_of),
    )


def evidently_path(home: Home, as_of: str) -> str | None:
    """The path of Evidently's report among the reports; None if it was not made, or was removed."""
    path = f"evidently/{as_of}.html"
    return path if home.pages.fetch(path) else None


def _performance(lake: Lake, report: "DriftReport") -> "Performance | None":
    from assets.monitoring.performance import load_performance

    if report.training_id is None or lake.version(f"performance/{report.as_of}") is None:
        return None
    found = load_performance(lake, report.as_of)
    return found if found.training_id == report.training_id else None


def _groups(report: "DriftReport", distributions: "Mapping[str, Distribution]", domain: Domain) -> tuple[Group, ...]:
    members: dict[str, list[Measure]] = {}
    for column in sorted(report.columns, key=lambda column: -column.times):
        measure = _measure(column, report.since.get(column.name), distributions.get(column.name), domain)
        members.setdefault(column.group, []).append(measure)
    statistics = {column.group: column.statistic for column in report.columns}
    found = (_group(name, statistics[name], columns, report, domain) for name, columns in members.items())
    return tuple(sorted(found, key=lambda group: not group.is_drift))


def _group(name: str, statistic: str, columns: list[Measure], report: "DriftReport", domain: Domain) -> Group:
    from assets.monitoring.comparison import is_drift

    drifted = sum(column.state == "drifted" for column in columns)
    known = next((column.distribution for column in columns if column.distribution), None)
    return Group(
        name=name,
        about=_ABOUT[name].format(one=domain.label.one, many=domain.label.many),
        statistic=_STATISTICS[statistic],
        rows=(sum(known.current), sum(known.reference)) if known else None,
        drifted=drifted,
        is_drift=is_drift(name, drifted / len(columns), report.share_threshold or 0.0),
        columns=tuple(columns),
    )


def _measure(column: "Column", since: str | None, distribution: "Distribution | None", domain: Domain) -> Measure:
    calm = (column.calm - column.nothing) / (column.threshold - column.nothing)
    shown = None if column.name in domain.sensitive else distribution
    return Measure(
        column=column.name,
        title=capitalized(_title(column, domain)),
        statistic=_NAMES[column.statistic],
        value=column.value,
        calm=column.calm,
        threshold=column.threshold,
        times=column.times,
        place=_place(column.times),
        calm_place=_place(calm),
        state=_state(column),
        since=since,
        note=column.note,
        distribution=shown,
        grown=_grown(shown) if shown else None,
        has_rows=column.group not in _WITHOUT_ROWS,
    )


def _state(column: "Column") -> Literal["drifted", "moved", "calm"]:
    if column.drifted:
        return "drifted"
    return "moved" if column.statistic != "evidence" and column.value > max(column.calm, column.nothing) else "calm"


def _title(column: "Column", domain: Domain) -> str:
    label, (side, _, name) = domain.label.one, column.name.partition("_")
    answers = {"answered": "answered", "true": f"{label} is"}
    if column.group == "answers" and side in answers:
        return f"{answers[side]} {label_name(domain, name)}"
    named = {("labels", "label"): label, ("predictions", "predicted_label"): f"predicted {label}"}
    return named.get((column.group, column.name)) or _TITLES.get(column.name, column.name.replace("_", " "))


def _place(times: float) -> float:
    return max(times, 0.0) / (1.0 + max(times, 0.0))


def _looks_right(one: float, other: float, decimals: int) -> bool:
    """Whether two numbers still compare alike when they are rounded."""
    rounded = round(one, decimals), round(other, decimals)
    return (rounded[0] < rounded[1], rounded[0] > rounded[1]) == (one < other, one > other)


def _grown(distribution: "Distribution") -> tuple[str, float, float] | None:
    sides = [[count / sum(side) for count in side] for side in (distribution.reference, distribution.current)]
    found = zip(distribution.names, *sides, strict=True)
    name, before, now = max(found, key=lambda kind: kind[2] - kind[1])
    return (name, before, now) if now > before else None


def _sentence(report: "DriftReport", groups: tuple[Group, ...]) -> str:
    if report.detected is None:
        return f"{capitalized(report.reason)}."
    columns = [column for group in groups for column in group.columns]
    drifted = sorted((column for column in columns if column.state == "drifted"), key=lambda column: -column.times)
    like = f"like what version {report.model_version} was trained on"
    if not drifted:
        return f"The window is {like}: none of {len(columns)} columns drifted."
    furthest = f"{len(drifted)} of {len(columns)} columns drifted, furthest {_furthest(drifted[0])}"
    if report.detected:
        names = _listed([group.name for group in groups if group.is_drift])
        return f"The window is not {like}: {furthest}. Drift is in {names}."
    return f"The window is {like}: {furthest}, which is too little of any group to count as drift."


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _furthest(column: Measure) -> str:
    times = f"{column.times:.1f}" if column.times < 10 else f"{column.times:,.0f}"
    return f"“{column.title}” at {times} times its threshold{f', since {column.since}' if column.since else ''}"


def _counts(
    report: "DriftReport", distributions: "Mapping[str, Distribution]", performance: "Performance | None"
) -> Iterator[Count]:
    version = f"version {report.model_version}"
    if performance:
        rows, labels = performance.window_rows, performance.window_labels
        yield Count("window", f"what {version} answered in the window up to {report.as_of}", rows, labels)
        for window in performance.windows:
            if window.as_of == report.as_of:
                means = f"those of the window whose label was not known when {version} was trained"
                yield Count("blind", means, window.rows, window.labels)
    if report.columns:
        arrived = distributions.get("label")
        means = f"a sample of those of the window that {version} was not trained on; drift is measured on it"
        yield Count("sample", means, report.current_rows, sum(arrived.current) if arrived else None)
        means = f"a sample of the rows that {version} was trained on, with which it is compared"
        yield Count("training sample", means, report.reference_rows, report.reference_rows)
    if performance:
        means = "blind answers of this and earlier windows whose label has become known lately"
        yield Count("realised", means, performance.realised.rows, performance.realised.rows)
        means = f"those held out from the training, on which {version} was evaluated"
        yield Count("test rows", means, performance.evaluated.rows, performance.evaluated.rows)


def _windows(
    report: "DriftReport", earlier: "Iterable[Earlier]", performance: "Performance | None"
) -> tuple[Window, ...]:
    moved: dict[str, tuple[int, float | None]] = {w.as_of: (len(w.drifted), w.share) for w in earlier}
    if report.columns:
        moved[report.as_of] = (sum(column.drifted for column in report.columns), report.share)
    windows = reversed(performance.windows) if performance else ()
    return tuple(Window(quality, *moved.get(quality.as_of, (None, None))) for quality in windows)
