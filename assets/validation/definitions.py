"""The audit of the marts, and their publication."""

import dagster as dg

from assets.display import label_name
from assets.home import Home
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, report_url, table
from assets.settings import load_domain
from assets.validation.audit import Audit, audit, load_audit, publish
from assets.warehouse.marts import mart_names

__all__ = ["mart_audit", "marts"]


@dg.asset(
    group_name="validation",
    pool="ingestion",
    kinds={"greatexpectations", "duckdb"},
    owners=["team:evergreen"],
    partitions_def=AS_OF,
    deps=[dg.AssetKey(mart) for mart in mart_names(load_domain())],
    check_specs=[
        dg.AssetCheckSpec(
            "critical_expectations",
            asset="mart_audit",
            blocking=True,
            description="Every expectation of severity critical is met; otherwise nothing is published.",
        ),
        dg.AssetCheckSpec(
            "warning_expectations",
            asset="mart_audit",
            description="Every expectation of severity warning is met; otherwise someone should look.",
        ),
    ],
)
def mart_audit(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The verdict of Great Expectations on the marts that are about to be published, with Data Docs."""
    verdict = audit(evergreen.home, as_of(context), evergreen.settings.warehouse)
    yield from concluded(context, _metadata(verdict, evergreen.home), _checks(verdict, evergreen.home))


@dg.asset(
    group_name="validation",
    pool="ingestion",
    kinds={"parquet"},
    owners=["team:evergreen"],
    partitions_def=AS_OF,
    deps=[mart_audit],
    check_specs=[
        dg.AssetCheckSpec(
            "conservation",
            asset="marts",
            blocking=True,
            description="landed = valid + quarantined + duplicate, of each object and in total.",
        )
    ],
)
def marts(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The audited marts as everything downstream reads them: one immutable version, moved into place at once."""
    verdict = load_audit(evergreen.home, as_of(context))
    verdict = publish(evergreen.home, verdict, evergreen.settings.warehouse)
    version, figures = verdict.content, verdict.figures
    total = figures.valid + figures.quarantined + figures.duplicate
    counts = {"landed": figures.landed, "valid": figures.valid, "quarantined": figures.quarantined}
    conserved = dg.AssetCheckResult(
        check_name="conservation",
        passed=figures.unbalanced_objects == 0 and figures.landed == total,
        metadata={**counts, "duplicate": figures.duplicate, "unbalanced_objects": figures.unbalanced_objects},
    )
    yield from concluded(
        context,
        {
            "version": version,
            "known": figures.known,
            "rows": table(["mart", "rows"], figures.rows.items()),
        },
        [conserved],
        version=version,
    )


def _checks(verdict: Audit, home: Home) -> list[dg.AssetCheckResult]:
    critical = [f"{failure.suite}: {failure.expectation}" for failure in verdict.critical]
    warnings = [f"{f.suite}: {f.expectation}" for f in verdict.failures if f not in verdict.critical]
    return [
        dg.AssetCheckResult(
            check_name="critical_expectations",
            passed=verdict.passed,
            description=_not_met(critical, home),
            metadata={"not_met": critical},
        ),
        dg.AssetCheckResult(
            check_name="warning_expectations",
            passed=not warnings,
            severity=dg.AssetCheckSeverity.WARN,
            description=_not_met(warnings, home),
            metadata={"not_met": warnings},
        ),
    ]


def _not_met(expectations: list[str], home: Home) -> str | None:
    return f"not met, by Data Docs ({_data_docs(home).url}): {'; '.join(expectations)}" if expectations else None


def _data_docs(home: Home) -> dg.UrlMetadataValue:
    return report_url(home, "data-docs/index.html")


def _metadata(verdict: Audit, home: Home) -> dict[str, dg.MetadataValue | int | float | str]:
    figures = verdict.figures
    shift = "no previous publication" if figures.mix_shift is None else figures.mix_shift
    age = "no record is known" if figures.staleness_days is None else figures.staleness_days
    domain = load_domain()
    mix = [(label_name(domain, label), f"{share:.1%}") for label, share in figures.label_mix.items()]
    return {
        "data_docs": _data_docs(home),
        "verdict": "passed" if verdict.passed else "failed",
        "expectations": table(["suite", "checked"], verdict.checked.items()),
        "not_met": len(verdict.failures),
        "content": verdict.content,
        "staleness_days": age,
        "mix_shift": shift,
        "label_mix": table([domain.label.one, "share"], mix),
    }
