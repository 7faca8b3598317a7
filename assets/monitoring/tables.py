"""What monitoring has measured, as tables for people to look at."""

from assets.display import Table, label_name
from assets.monitoring.performance import Performance, Scores
from assets.monitoring.report import DriftReport
from assets.settings import Domain

__all__ = ["columns_table", "labels_table", "quality_table", "windows_table"]


def columns_table(report: DriftReport) -> Table:
    """What was compared, what has moved furthest first."""
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


def quality_table(found: Performance) -> Table:
    """Realised beside evaluated quality."""
    kinds = {
        "realised (blind, label known)": found.realised,
        "of these, before the label was known": found.before_label,
        "evaluated (test rows of its snapshot)": found.evaluated,
    }
    return Table(["of", "rows", "accuracy", "macro-F1"], [(name, *_cells(scores)) for name, scores in kinds.items()])


def labels_table(found: Performance, domain: Domain) -> Table:
    """Realised beside estimated precision and recall of each label."""
    expected = {label.label: label for label in found.estimated_labels}
    rows = [
        (
            label_name(domain, name),
            *(_share(shares.get(name)) for shares in (found.precision, found.recall)),
            *((_share(one.precision), _share(one.recall)) if (one := expected.get(name)) else ("", "")),
        )
        for name in sorted({*found.recall, *found.precision, *expected})
    ]
    return Table([domain.label.one, "precision", "recall", "estimated precision", "estimated recall"], rows)


def windows_table(found: Performance) -> Table:
    """Estimated next to realised accuracy, the newest window first."""
    rows = [
        (
            w.as_of,
            f"{w.rows:,}",
            f"{w.maturity:.0%}",
            _share(w.estimated_accuracy),
            _share(w.realised_accuracy),
            "" if w.error is None else f"{w.error * 100:+.1f} points",
        )
        for w in reversed(found.windows)
    ]
    return Table(["as of", "rows", "labels known", "estimated", "realised", "too high by"], rows)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _cells(scores: Scores) -> tuple[str, str, str]:
    if scores.accuracy is None or scores.macro_f1 is None:
        return "0", "", ""
    return f"{scores.rows:,}", f"{scores.accuracy:.1%}", f"{scores.macro_f1:.3f}"
