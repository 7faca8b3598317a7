"""The assets that watch: what has changed, how good the champion is, and whether to retrain."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.resources import AS_OF, Evergreen, as_of, report_url

if TYPE_CHECKING:
    from assets.monitoring.drift import DriftReport
    from assets.monitoring.performance import Performance, Scores

__all__ = ["drift_report", "performance", "retraining_decision"]

Metadata = dict[str, dg.MetadataValue | int | float | str]


@dg.asset(
    group_name="monitoring",
    deps=["predictions"],
    partitions_def=AS_OF,
    kinds={"evidently"},
    owners=["team:evergreen"],
)
def drift_report(context: dg.AssetExecutionContext, evergreen: Evergreen) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Features, text and predictions of the scored window against the champion's training snapshot, by Evidently."""
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
    """What the champion's blind predictions were worth, on the labels that have matured as of as-of."""
    from assets.monitoring.performance import measure_performance
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion()
    found = measure_performance(evergreen.home, as_of(context), champion, evergreen.settings.retraining)
    return dg.MaterializeResult(metadata=_performance_metadata(found))


@dg.asset(
    group_name="monitoring",
    deps=["drift_report", "performance"],
    partitions_def=AS_OF,
    kinds={"python"},
    owners=["team:evergreen"],
)
def retraining_decision(context: dg.AssetExecutionContext, evergreen: Evergreen) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Whether a retraining is worth it, by the policy in configs/retraining.yaml, appended to the ledger."""
    from assets.monitoring.retraining import decide_retraining
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion()
    decision = decide_retraining(evergreen.home, as_of(context), champion, evergreen.settings)
    metadata: Metadata = {"decision": decision.decision, "reason": decision.reason}
    return dg.MaterializeResult(metadata={**metadata, "numbers": dg.MetadataValue.json(decision.body())})


def _drift_metadata(report: "DriftReport") -> Metadata:
    rows = "\n".join(
        f"| {c.name} | {c.group} | {c.psi:.3f} | {c.threshold:.3f} | {'**drifted**' if c.drifted else ''} |"
        for c in sorted(report.columns, key=lambda c: -c.psi / c.threshold)
    )
    header = "| column | group | PSI | threshold | |\n|---|---|---:|---:|---|"
    found: Metadata = {
        "detected": "cannot be measured" if report.detected is None else str(report.detected),
        "why": report.reason,
        "report": report_url(f"drift/{report.as_of}.html"),
        "current rows": report.current_rows,
        "reference rows": report.reference_rows,
        "columns": dg.MetadataValue.md(f"{header}\n{rows}"),
    }
    return found if report.share is None else {**found, "share": report.share}


def _performance_metadata(found: "Performance") -> Metadata:
    kinds = {
        "realised (blind, label known)": found.realised,
        "of these, before the label was known": found.before_label,
        "evaluated (test rows of its snapshot)": found.evaluated,
    }
    table = "\n".join(f"| {name} | {_cells(scores)} |" for name, scores in kinds.items())
    recall = "\n".join(f"| {queue} | {share:.1%} |" for queue, share in found.recall.items())
    metadata: Metadata = {
        "finding": found.sentence,
        "quality": dg.MetadataValue.md(f"| | rows | accuracy | macro-F1 |\n|---|---:|---:|---:|\n{table}"),
        "realised recall": dg.MetadataValue.md(f"| queue | right |\n|---|---:|\n{recall}"),
        "matured rows": found.realised.rows,
        "new labels": found.new_labels,
    }
    shares = {"label maturity": found.maturity, "estimated accuracy": found.estimated_accuracy}
    return {**metadata, **{name: share for name, share in shares.items() if share is not None}}


def _cells(scores: "Scores") -> str:
    if scores.accuracy is None or scores.macro_f1 is None:
        return "0 | | "
    return f"{scores.rows:,} | {scores.accuracy:.1%} | {scores.macro_f1:.3f}"
