"""The monitoring assets: what has changed, how good the champion is, and whether to retrain."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from assets.home import Home
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, picture, report_url, table, tag

if TYPE_CHECKING:
    from assets.monitoring.decision import RetrainingDecision
    from assets.monitoring.performance import Performance
    from assets.monitoring.report import DriftReport
    from assets.settings import Domain

__all__ = ["drift_report", "performance", "retraining_decision"]

_NO_DRIFT = "no_drift"
_AS_PROMISED = "as_good_as_promised"
_NO_PERSON = "no_person_needed"

Numbers = Mapping[str, float | None]
Metadata = dict[str, dg.MetadataValue | int | float | str]


@dg.asset(
    group_name="monitoring",
    pool="scoring",
    deps=["predictions", "performance"],
    partitions_def=AS_OF,
    kinds={"evidently"},
    owners=["team:evergreen"],
    check_specs=[
        dg.AssetCheckSpec(
            _NO_DRIFT,
            asset="drift_report",
            description="No group of columns has drifted from the champion's training, as far as that can be measured.",
        )
    ],
)
def drift_report(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """Features, text, predictions and labels of the scored window against the champion's training snapshot.

    Measured with Evidently; a page shows what moved, since when, and what it cost in quality.
    """
    from assets.monitoring.drift import measure_drift
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion(as_of(context))
    report = measure_drift(evergreen.home, as_of(context), champion, evergreen.settings.drift)
    calm = _warning(_NO_DRIFT, not report.detected, report.reason, {"share": report.share})
    yield from concluded(context, _drift_metadata(report, evergreen.home), [calm])


@dg.asset(
    group_name="monitoring",
    pool="scoring",
    deps=["predictions", "marts"],
    partitions_def=AS_OF,
    kinds={"duckdb"},
    owners=["team:evergreen"],
    check_specs=[
        dg.AssetCheckSpec(
            _AS_PROMISED,
            asset="performance",
            description="The champion is as good as it was evaluated and errs no more than its confidence promises, as "
            "far as labels have arrived.",
        )
    ],
)
def performance(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The quality of the champion's blind predictions: realised where labels have matured, estimated elsewhere."""
    from assets.monitoring.performance import measure_performance
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion(as_of(context))
    settings = evergreen.settings
    measured = measure_performance(evergreen.home, as_of(context), champion, settings.retraining, settings.drift)
    accuracies = {"realised accuracy": measured.realised.accuracy, "evaluated accuracy": measured.evaluated.accuracy}
    kept = _warning(_AS_PROMISED, measured.problem is None, measured.problem or measured.sentence, accuracies)
    yield from concluded(context, _performance_metadata(measured, evergreen.home.domain), [kept])


@dg.asset(
    group_name="monitoring",
    pool="scoring",
    deps=["drift_report", "performance"],
    partitions_def=AS_OF,
    kinds={"python"},
    owners=["team:evergreen"],
    check_specs=[
        dg.AssetCheckSpec(
            _NO_PERSON, asset="retraining_decision", description="Nothing has happened that retraining cannot fix."
        )
    ],
)
def retraining_decision(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """Whether a retraining is worth it, by the policy in configs/retraining.yaml, appended to the ledger."""
    from assets.monitoring.retraining import decide_retraining
    from assets.registry.registry import Registry

    champion = Registry(evergreen.home).champion(as_of(context))
    decision = decide_retraining(evergreen.home, as_of(context), champion, evergreen.settings)
    metadata: Metadata = {"decision": decision.decision, "reason": decision.reason, **_probe_metadata(decision)}
    tag(context.instance, context.run.run_id, retraining=decision.decision)
    alarm = _warning(_NO_PERSON, decision.decision != "alert-a-human", decision.reason)
    numbers = dg.MetadataValue.json(decision.body())
    yield from concluded(context, {**metadata, "numbers": numbers}, [alarm])


def _warning(check: str, passed: bool, why: str, numbers: Numbers | None = None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=check,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=why,
        metadata=_known(numbers or {}),
    )


def _known(numbers: Numbers) -> dict[str, float]:
    return {name: number for name, number in numbers.items() if number is not None}


def _drift_metadata(report: "DriftReport", home: Home) -> Metadata:
    from assets.monitoring.picture import drift_picture
    from assets.monitoring.tables import columns_table

    measured: Metadata = {}
    if report.share is not None:
        shown = picture(home, "drift_report", report.as_of, "how far columns moved", drift_picture(report))
        measured = {"share": report.share, "picture": shown}
    return {
        "detected": "cannot be measured" if report.detected is None else str(report.detected),
        "why": report.reason,
        "report": report_url(home, f"drift/{report.as_of}.html"),
        **measured,
        "current rows": report.current_rows,
        "reference rows": report.reference_rows,
        "columns": table(*columns_table(report)),
    }


def _probe_metadata(decision: "RetrainingDecision") -> Metadata:
    if (probe := decision.inputs.probe) is None:
        return {}
    return {
        "blind rows": probe.rows,
        "twins' difference": probe.difference,
        "expected gain": probe.gain,
        "chance of promotion": probe.chance,
    }


def _performance_metadata(performance: "Performance", domain: "Domain") -> Metadata:
    from assets.monitoring.tables import labels_table, quality_table, windows_table

    metadata: Metadata = {
        "finding": performance.sentence,
        "quality": table(*quality_table(performance)),
        "labels": table(*labels_table(performance, domain)),
        "windows": table(*windows_table(performance)),
        "matured rows": performance.realised.rows,
        "new labels": performance.new_labels,
    }
    numbers = {
        "label maturity": performance.maturity,
        "estimated accuracy": performance.estimated_accuracy,
        "estimated accuracy, by a threshold of confidence": performance.estimated_by_threshold,
        "estimated macro-F1": performance.estimated_macro_f1,
        "realised accuracy": performance.realised.accuracy,
    }
    return {**metadata, **_known(numbers)}
