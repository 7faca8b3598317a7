"""The dashboard of a window, above Evidently's widgets: what moved, by how much, since when, and at what cost.

It has only numbers and names of columns, no text of a record, and loads nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from assets.monitoring.comparison import Column
from assets.monitoring.performance import Performance
from assets.monitoring.report import DriftReport, Earlier
from assets.settings import Domain

__all__ = ["render"]

_STYLE = """
<style>
.evergreen { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 24px auto 32px;
  padding: 0 24px }
.evergreen h1 { font-size: 26px; margin: 0 } .evergreen h2 { font-size: 18px; margin: 28px 0 8px }
.evergreen p { margin: 4px 0; color: #555 }
.evergreen .tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 20px }
.evergreen .tile { flex: 1 1 200px; border: 1px solid #ddd; border-radius: 6px; padding: 10px 14px }
.evergreen .tile b { display: block; font-size: 24px; font-weight: 600 }
.evergreen .tile span { display: block; color: #555; font-size: 13px }
.evergreen table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
.evergreen th, .evergreen td { padding: 4px 10px; border-bottom: 1px solid #e5e5e5; text-align: right;
  white-space: nowrap }
.evergreen th { color: #555; font-weight: 600; font-size: 13px }
.evergreen .name { text-align: left }
.evergreen .bar { display: inline-block; height: 10px; background: #9bb7d4; vertical-align: middle }
.evergreen .drifted .bar { background: #c8102e }
.evergreen .drifted .name:first-child { color: #c8102e; font-weight: 600 }
.evergreen summary { cursor: pointer; margin-top: 12px; color: #333 }
</style>
"""
_BAR = 120
"""Pixels of the longest bar: three times the threshold."""


@dataclass(frozen=True)
class _Words:
    """Display names, as HTML."""

    title: str
    records: str
    label: str
    columns: dict[tuple[str, str], str]
    """Display names by group and column, where they differ from the column's name."""

    @classmethod
    def of(cls, domain: Domain) -> "_Words":
        label, names = domain.label.one, domain.labels.items()
        columns = {("labels", "label"): label, ("predictions", "predicted_label"): f"predicted {label}"}
        columns |= {("answers", f"answered_{one}"): f"answered {name}" for one, name in names}
        columns |= {("answers", f"true_{one}"): f"{label} is {name}" for one, name in names}
        shown = {column: escape(name) for column, name in columns.items()}
        return cls(escape(domain.title), escape(domain.record.many), escape(label), shown)

    def column(self, column: Column) -> str:
        return self.columns.get((column.group, column.name), escape(column.name))


def render(
    report: DriftReport, widgets: str, earlier: Sequence[Earlier], performance: Performance | None, domain: Domain
) -> str:
    """The page of a window: the dashboard, and below it Evidently's page `widgets`, if there is one."""
    words = _Words.of(domain)
    dashboard = "".join(
        (
            f"{_STYLE}<section class='evergreen'>{_heading(report, words)}",
            _tiles(performance, words) if performance else "",
            _moved(report, words) if report.columns else "",
            _windows(report, earlier, performance, words) if performance else "",
            _contents(report) if widgets else "",
            "</section>",
        )
    )
    if widgets:
        return widgets.replace("<body>", f"<body>{dashboard}", 1)
    title = f"<meta charset='utf-8'><title>{words.title}: drift as of {report.as_of}</title>"
    return f"<!DOCTYPE html><html><head>{title}</head><body>{dashboard}</body></html>"


def _heading(report: DriftReport, words: _Words) -> str:
    verdict = {True: "Drift", False: "No drift", None: "Drift not measured"}[report.detected]
    sides = (
        f"<p>{report.current_rows:,} {words.records} that version {escape(str(report.model_version))} answered and was "
        f"not trained on, compared with {report.reference_rows:,} that it was trained on.</p>"
    )
    heading = f"<p>{words.title}</p><h1>{verdict} as of {report.as_of}</h1>"
    return f"{heading}<p>{escape(report.reason)}.</p>{sides if report.columns else ''}"


def _tiles(performance: Performance, words: _Words) -> str:
    evaluated, realised, estimated = performance.evaluated, performance.realised, performance.estimated_accuracy
    tiles = [
        ("evaluated accuracy", _percent(evaluated.accuracy), f"{_f1(evaluated.macro_f1)}{evaluated.rows:,} test rows"),
        (
            "estimated accuracy of this window",
            _percent(estimated),
            f"{_points(estimated, evaluated.accuracy)}{_between(performance)}{_f1(performance.estimated_macro_f1)}"
            f"{_maturity(performance, words)}",
        ),
        (
            "realised accuracy so far",
            _percent(realised.accuracy),
            f"{_points(realised.accuracy, evaluated.accuracy)}{_f1(realised.macro_f1)}"
            f"{realised.rows:,} {words.records} whose {words.label} is known",
        ),
        ("estimated cost of this window", *_cost(performance, evaluated.accuracy, words)),
    ]
    return "<div class='tiles'>" + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _tile(name: str, value: str, note: str) -> str:
    return f"<div class='tile'><span>{name}</span><b>{value}</b><span>{note}</span></div>"


def _cost(performance: Performance, evaluated: float | None, words: _Words) -> tuple[str, str]:
    """The number of wrong answers beyond those at the evaluated accuracy."""
    if evaluated is None or performance.estimated_accuracy is None:
        return "not measured", "needs the champion's evaluation and a scored window"
    more = round((evaluated - performance.estimated_accuracy) * performance.window_rows)
    rows = f"{performance.window_rows:,} {words.records}"
    return f"{more:+,}", f"wrong answers on {rows}, compared with the evaluated accuracy"


def _maturity(performance: Performance, words: _Words) -> str:
    return f"{words.label} known for {performance.maturity:.0%}" if performance.maturity is not None else "no rows"


def _moved(report: DriftReport, words: _Words) -> str:
    ordered = sorted(report.columns, key=lambda column: -column.times)
    drifted = [column for column in ordered if column.drifted]
    groups = "; ".join(f"{group} {share:.0%}" for group, share in report.groups.items())
    every = (
        f"<details><summary>All {len(ordered)} columns, by how far they moved</summary>"
        f"<p>Drifted columns by group: {escape(groups)}. PSI: population stability index over the reference's "
        "quantiles, rare categories pooled; AUC: how well a classifier separates the window's texts from the "
        "reference's; EVIDENCE: that the champion errs more than its confidence promised, as the logarithm of an "
        "e-value. Calm: what blocks of the champion's own training period allow; threshold: that, or the configured "
        f"bound if it is larger.</p>{_table(ordered, report.since, words)}</details>"
    )
    return f"<h2>What moved</h2>{_table(drifted, report.since, words) if drifted else '<p>No column.</p>'}{every}"


def _table(columns: Iterable[Column], since: dict[str, str], words: _Words) -> str:
    head = _row("th", ("column", "group", ""), ("times the threshold", "measured", "calm", "threshold", "since"))
    rows = (_column(column, since.get(column.name, ""), words) for column in columns)
    return f"<table>{head}{''.join(rows)}</table>"


def _column(column: Column, since: str, words: _Words) -> str:
    numbers = (
        f"{max(column.times, 0):.2f}",
        f"{column.statistic.upper()} {column.value:.3f}{f' ({escape(column.note)})' if column.note else ''}",
        f"{column.calm:.3f}",
        f"{column.threshold:.3f}",
        since,
    )
    length = round(_BAR * min(max(column.times, 0), 3) / 3)
    bar = f"<span class='bar' style='width:{length}px'></span>"
    names = (words.column(column), escape(column.group), bar)
    return _row("td", names, numbers, "drifted" if column.drifted else "")


def _windows(report: DriftReport, earlier: Sequence[Earlier], performance: Performance, words: _Words) -> str:
    """Every window of the champion, newest first."""
    moved = {window.as_of: (len(window.drifted), window.share) for window in earlier}
    if report.columns:
        moved[report.as_of] = (sum(column.drifted for column in report.columns), report.share)
    head = _row(
        "th",
        ("as of",),
        (
            "drifted columns",
            "share of a group",
            words.records,
            f"{words.label} known",
            "estimated",
            "realised",
            "estimate too high by",
        ),
    )
    rows = "".join(
        _row(
            "td",
            (window.as_of,),
            (
                *_drifted(moved.get(window.as_of)),
                f"{window.rows:,}",
                f"{window.maturity:.0%}",
                _percent(window.estimated_accuracy),
                _percent(window.realised_accuracy, "not mature"),
                "" if window.error is None else f"{window.error * 100:+.1f} points",
            ),
        )
        for window in reversed(performance.windows)
    )
    champion = f"Windows of version {escape(str(performance.model_version))}"
    return f"<h2>{champion}</h2><table>{head}{rows}</table>" if rows else ""


def _contents(report: DriftReport) -> str:
    groups = dict.fromkeys(column.group for column in report.columns if column.statistic == "psi")
    return f"<h2>Columns, by Evidently</h2><p>A summary per group, in this order: {', '.join(groups)}.</p>"


def _drifted(moved: tuple[int, float | None] | None) -> tuple[str, str]:
    if moved is None or moved[1] is None:
        return "not measured", ""
    return str(moved[0]), f"{moved[1]:.0%}"


def _row(kind: str, names: Iterable[str], numbers: Iterable[str], css: str = "") -> str:
    cells = [f"<{kind} class='name'>{name}</{kind}>" for name in names]
    cells += [f"<{kind}>{number}</{kind}>" for number in numbers]
    return f"<tr class='{css}'>{''.join(cells)}</tr>"


def _percent(share: float | None, otherwise: str = "not measured") -> str:
    return otherwise if share is None else f"{share:.1%}"


def _between(performance: Performance) -> str:
    """The interval of the two estimators."""
    if performance.estimated_between is None:
        return ""
    low, high = performance.estimated_between
    return f"{low:.1%} to {high:.1%} by two estimators; "


def _points(share: float | None, evaluated: float | None) -> str:
    """The difference from the evaluated accuracy."""
    if share is None or evaluated is None:
        return ""
    return f"{(share - evaluated) * 100:+.1f} points against the evaluated; "


def _f1(macro_f1: float | None) -> str:
    return "" if macro_f1 is None else f"macro-F1 {macro_f1:.3f}; "
