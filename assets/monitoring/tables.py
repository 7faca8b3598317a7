"""The measurements of monitoring, as tables for people."""

from assets.display import Table, label_name
from assets.monitoring.performance import Performance, Scores
from assets.monitoring.report import DriftReport
from assets.settings import Domain

__all__ = ["columns_table", "labels_table", "quality_table", "windows_table"]


def columns_table(report: DriftReport) -> Table:
    """The compared columns, those that moved furthest first."""
    rows = [
        (
            c.name,
            c.group,
            f"{c.statistic.upper()} {c.value:.3f}",
            f"{c.threshold:.3f}",
            c.note,
            report.since.get(c.name, ""),
        )
        for c in sorted(report.columns, key=lambda c: -c.times)
    ]
    return Table(["column", "group", "measured", "threshold", "of", "drifted since"], rows)


def quality_table(performance: Performance) -> Table:
    """Realised and evaluated quality."""
    kinds = {
        "realised (blind, label known)": performance.realised,
        "of these, before the label was known": performance.before_label,
        "evaluated (test rows of its snapshot)": performance.evaluated,
    }
    return Table(["of", "rows", "accuracy", "macro-F1"], [(name, *_cells(scores)) for name, scores in kinds.items()])


def labels_table(performance: Performance, domain: Domain) -> Table:
    """Realised and estimated precision and recall of each label."""
    expected = {label.label: label for label in performance.estimated_labels}
    rows = [
        (
            label_name(domain, name),
            *(_share(shares.get(name)) for shares in (performance.precision, performance.recall)),
            *((_share(one.precision), _share(one.recall)) if (one := expected.get(name)) else ("", "")),
        )
        for name in sorted({*performance.recall, *performance.precision, *expected})
    ]
    return Table([domain.label.one, "precision", "recall", "estimated precision", "estimated recall"], rows)


def windows_table(performance: Performance) -> Table:
    """Estimated and realised accuracy, newest window first."""
    rows = [
        (
            w.as_of,
            f"{w.rows:,}",
            f"{w.maturity:.0%}",
            _share(w.estimated_accuracy),
            _share(w.realised_accuracy),
            "" if w.error is None else f"{w.error * 100:+.1f} points",
        )
        for w in reversed(performance.windows)
    ]
    return Table(["as of", "blind rows", "labels known of them", "estimated", "realised", "too high by"], rows)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _cells(scores: Scores) -> tuple[str, str, str]:
    if scores.accuracy is None or scores.macro_f1 is None:
        return "0", "", ""
    return f"{scores.rows:,}", f"{scores.accuracy:.1%}", f"{scores.macro_f1:.3f}"
