"""The assets that watch: what has changed, how good the champion is, and whether to retrain."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.display import label_name, markdown_table
from assets.resources import AS_OF, Evergreen, as_of, report_url
from assets.settings import load_domain

if TYPE_CHECKING:
    from assets.monitoring.decision import RetrainingDecision
    from assets.monitoring.performance import Performance, Scores
    from assets.monitoring.report import DriftReport

__all__ = ["drift_report", "performance", "retraining_decision"]

_NO_PERSON = "no_person_needed"

Metadata = dict[str, dg.MetadataValue | int | float | str]


@dg.asset(
    group_name="monitoring",
    deps=["predictions", "performance"],
    partitions_def=AS_OF,
    kinds={"evidently"},
    owners=["team:evergreen"],
)
def drift_report(context: dg.AssetExecutionContext, evergreen: Evergreen) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Features, text, predictions and labels of the scored window against the champion's training snapshot.

    By Evidently, with a page that says what moved, since when, and what it cost in quality.
    """
    from assets.monitoring.drift import measure_drift
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion()
    report = measure_drift(evergreen.home, as_of(context), champion, evergreen.settings.drift)
    return dg.MaterializeResult(metadata=_drift_metadata(report))


@dg.asset(
    group_name="monitoring",
    deps=["predictions", "marts"],
    partitions_def=AS_OF,
    kinds={"duckdb"},
    owners=["team:evergreen"],
)
def performance(context: dg.AssetExecutionContext, evergreen: Evergreen) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What the champion's blind predictions were worth, realised where labels have matured, estimated where not."""
    from assets.monitoring.performance import measure_performance
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion()
    settings = evergreen.settings
    found = measure_performance(evergreen.home, as_of(context), champion, settings.retraining, settings.drift)
    return dg.MaterializeResult(metadata=_performance_metadata(found))


@dg.asset(
    group_name="monitoring",
    deps=["drift_report", "performance"],
    partitions_def=AS_OF,
    kinds={"python"},
    owners=["team:evergreen"],
    check_specs=[
        dg.AssetCheckSpec(
            _NO_PERSON, asset="retraining_decision", description="Nothing has happened that retraining cannot mend."
        )
    ],
)
def retraining_decision(context: dg.AssetExecutionContext, evergreen: Evergreen) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Whether a retraining is worth it, by the policy in configs/retraining.yaml, appended to the ledger."""
    from assets.monitoring.retraining import decide_retraining
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion()
    decision = decide_retraining(evergreen.home, as_of(context), champion, evergreen.settings)
    metadata: Metadata = {"decision": decision.decision, "reason": decision.reason, **_probe_metadata(decision)}
    alarm = dg.AssetCheckResult(
        check_name=_NO_PERSON,
        passed=decision.decision != "alert-a-human",
        severity=dg.AssetCheckSeverity.WARN,
        description=decision.reason,
    )
    numbers = dg.MetadataValue.json(decision.body())
    return dg.MaterializeResult(metadata={**metadata, "numbers": numbers}, check_results=[alarm])


def _drift_metadata(report: "DriftReport") -> Metadata:
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
    head = ["column", "group", "measured", "threshold", "of", "drifted since"]
    found: Metadata = {
        "detected": "cannot be measured" if report.detected is None else str(report.detected),
        "why": report.reason,
        "report": report_url(f"drift/{report.as_of}.html"),
        "current rows": report.current_rows,
        "reference rows": report.reference_rows,
        "columns": dg.MetadataValue.md(markdown_table(head, rows)),
    }
    return found if report.share is None else {**found, "share": report.share}


def _probe_metadata(decision: "RetrainingDecision") -> Metadata:
    if (probe := decision.inputs.probe) is None:
        return {}
    return {
        "blind rows": probe.rows,
        "twins' difference": probe.difference,
        "expected gain": probe.gain,
        "chance of promotion": probe.chance,
    }


def _performance_metadata(found: "Performance") -> Metadata:
    kinds = {
        "realised (blind, label known)": found.realised,
        "of these, before the label was known": found.before_label,
        "evaluated (test rows of its snapshot)": found.evaluated,
    }
    quality = [(name, *_cells(scores)) for name, scores in kinds.items()]
    metadata: Metadata = {
        "finding": found.sentence,
        "quality": dg.MetadataValue.md(markdown_table(["of", "rows", "accuracy", "macro-F1"], quality)),
        "labels": dg.MetadataValue.md(_labels(found)),
        "windows": dg.MetadataValue.md(_windows(found)),
        "matured rows": found.realised.rows,
        "new labels": found.new_labels,
    }
    numbers = {
        "label maturity": found.maturity,
        "estimated accuracy": found.estimated_accuracy,
        "estimated accuracy, by a threshold of confidence": found.estimated_by_threshold,
        "estimated macro-F1": found.estimated_macro_f1,
    }
    return {**metadata, **{name: number for name, number in numbers.items() if number is not None}}


def _labels(found: "Performance") -> str:
    """Realised beside estimated precision and recall of each label."""
    domain, expected = load_domain(), {label.label: label for label in found.estimated_labels}
    names = sorted({*found.recall, *found.precision, *expected})
    rows = [
        (
            label_name(domain, name),
            *(_share(shares.get(name)) for shares in (found.precision, found.recall)),
            *((_share(one.precision), _share(one.recall)) if (one := expected.get(name)) else ("", "")),
        )
        for name in names
    ]
    head = ["precision", "recall", "estimated precision", "estimated recall"]
    return markdown_table([domain.label.one, *head], rows)


def _windows(found: "Performance") -> str:
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
    return markdown_table(["as of", "rows", "labels known", "estimated", "realised", "too high by"], rows)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _cells(scores: "Scores") -> tuple[str, str, str]:
    if scores.accuracy is None or scores.macro_f1 is None:
        return "0", "", ""
    return f"{scores.rows:,}", f"{scores.accuracy:.1%}", f"{scores.macro_f1:.3f}"
