"""The asset `predictions`, and the check that a version is served as it was trained."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.display import label_name
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, explained, job_runner, stop_at, table
from assets.settings import load_domain

if TYPE_CHECKING:
    from assets.scoring.predictions import Predictions

__all__ = ["predictions", "served_as_trained"]

EACH_RECORD_ONCE = "each_record_once"
AS_EVALUATED = "answers_as_evaluated"


@dg.asset(
    group_name="scoring",
    pool="scoring",
    deps=["marts", "online_features", "refit"],
    partitions_def=AS_OF,
    kinds={"pytorch", "feast", "parquet"},
    owners=["team:evergreen"],
    check_specs=[
        dg.AssetCheckSpec(
            EACH_RECORD_ONCE,
            asset="predictions",
            blocking=True,
            description="Every visible record of the window has exactly one row; otherwise nothing is published.",
        ),
        dg.AssetCheckSpec(
            AS_EVALUATED,
            asset="predictions",
            blocking=True,
            description="At most one in a thousand of the golden rows of the champion's evaluation gets another label "
            "than it did then; otherwise, or if they are missing, nothing is published.",
        ),
    ],
)
def predictions(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """One row per record of the window that ends at as-of, scored by the champion with online features.

    A record without text has the reason `no-text` and no label. Without a champion nothing is scored.
    """
    from assets.registry.registry import Registry
    from assets.scoring.predictions import predict
    from assets.training.bundle import load_bundle

    registry = Registry(evergreen.home)
    champion = registry.champion(as_of(context))
    if champion is None:
        yield from concluded(context, *_nothing())
        return
    scored = predict(
        evergreen.home,
        as_of(context),
        champion,
        lambda: load_bundle(registry.fetch(champion.version)),
        evergreen.settings.scoring,
        job_runner(context),
    )
    yield from concluded(context, _metadata(scored), [_check(scored), _golden(scored)])


@dg.asset_check(  # type: ignore[arg-type]  # it also takes a generator, which may raise after its result
    asset="registered_model",
    blocking=True,
    description="The registered version answers records the same on the scoring path, with online features, as on "
    "the training path; otherwise the alias does not move.",
)
def served_as_trained(context: dg.AssetCheckExecutionContext, evergreen: Evergreen) -> Iterator[dg.AssetCheckResult]:
    from assets.registry.registry import Registry
    from assets.scoring.parity import measure_parity
    from assets.training.bundle import load_bundle

    registry = Registry(evergreen.home)
    challenger = registry.challenger()
    assert challenger is not None, "registered_model leaves a challenger"
    bundle = load_bundle(registry.fetch(challenger.version))
    parity = measure_parity(evergreen.home, as_of(context), bundle, evergreen.settings.scoring)
    numbers = {"rows": parity.rows, "other label": parity.others, "largest difference": parity.max_difference}
    result = explained(dg.AssetCheckResult(check_name="served_as_trained", passed=parity.equal, metadata=numbers))
    yield result
    stop_at([result])


def _nothing() -> tuple[dict[str, Any], list[dg.AssetCheckResult]]:
    note = "no champion yet: nothing was scored and nothing published"
    checks = [
        dg.AssetCheckResult(check_name=name, passed=True, description=note) for name in (EACH_RECORD_ONCE, AS_EVALUATED)
    ]
    return {"state": note, "dagster/row_count": 0}, checks


def _check(scored: "Predictions") -> dg.AssetCheckResult:
    manifest = scored.manifest
    return dg.AssetCheckResult(
        check_name=EACH_RECORD_ONCE,
        passed=manifest.each_record_once,
        metadata={"rows": manifest.rows, "distinct records": manifest.records, "expected": manifest.expected},
    )


def _golden(scored: "Predictions") -> dg.AssetCheckResult:
    golden = scored.manifest.golden
    return dg.AssetCheckResult(
        check_name=AS_EVALUATED,
        passed=golden.agree,
        description=None if golden.rows else "the champion's evaluation or its test rows are not in this home",
        metadata={"rows": golden.rows, "other label": golden.others, "largest difference": golden.max_difference},
    )


def _metadata(scored: "Predictions") -> dict[str, dg.MetadataValue | int | float | str]:
    domain = load_domain()
    rows = [(label_name(domain, label), f"{count:,}") for label, count in scored.labels.items()]
    metadata: dict[str, dg.MetadataValue | int | float | str] = {
        "dagster/row_count": scored.manifest.rows,
        "model version": scored.manifest.model_version,
        "labels": table([domain.label.one, domain.record.many], rows),
        "window (days)": scored.manifest.window_days,
        "publication": scored.version,
        "reused": str(scored.reused),
    }
    return metadata if scored.mean_confidence is None else {**metadata, "mean confidence": scored.mean_confidence}
