"""The assets `feature_definitions`, `training_set` and `online_features`."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.display import markdown_list
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, table
from assets.settings import Domain, load_domain

if TYPE_CHECKING:
    from assets.features.checks import Finding
    from assets.features.serving import Place
    from assets.features.snapshot import Snapshot

__all__ = ["feature_definitions", "online_features", "training_set", "training_set_checks"]


def training_set_checks(domain: Domain) -> dict[str, str]:
    """What each check proves about a training set; without entities there are no statistics to look up."""
    looked_up = "Sampled statistics equal an independent look-up of what was known when the record came in."
    return {
        "as_it_had_landed": "Rows and sampled statistics equal those computed from the raw records by the day they "
        "landed; labels too, if values are label names or the domain has dbt/checks/mapped_labels.sql.",
        **({"point_in_time": looked_up} if domain.entities else {}),
        "future_canary_is_null": "No row sees planted values of the day after as-of, or late arrivals.",
        "shifted_by_a_day": "Rows moved a day earlier get the statistics of a day earlier; other features stay.",
        "labels_known": "Every label was known by as-of, and every test row is of a later day than every train row.",
        "no_overlap": "No record and no near duplicate is on both sides.",
        "no_outcome_columns": "No column is known only with the label, or later.",
        "rows_conserved": "There are as many rows as usable records, less those removed as duplicates.",
    }


_ADVERSARIAL = dg.AssetCheckSpec(
    "test_rows_look_like_train_rows",
    asset="training_set",
    description="A small model cannot separate test rows from train rows by their features, or no better than it "
    "separates the newest train rows from those before them, as it can by statistics that still grow.",
)


def _specs(asset: str, checks: dict[str, str]) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(name, asset=asset, blocking=True, description=text) for name, text in checks.items()]


@dg.asset(
    group_name="features",
    partitions_def=AS_OF,
    deps=["marts"],
    kinds={"feast"},
    owners=["team:evergreen"],
)
def feature_definitions(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """Feast's entities, views and the model's feature service: the engine's, and those of `feature_repo/`."""
    from assets.features.store import SERVICE, apply_definitions

    applied = apply_definitions(evergreen.home)
    yield from concluded(
        context,
        {
            "changed": applied.changed,
            "service": SERVICE,
            "entities": list(applied.entities),
            "views": list(applied.views),
            "features": len(applied.features),
            "names": dg.MetadataValue.md(markdown_list(applied.features)),
        },
        version=applied.digest,
    )


@dg.asset(
    group_name="features",
    pool="training",
    partitions_def=AS_OF,
    deps=["feature_definitions", "marts"],
    kinds={"feast", "duckdb"},
    owners=["team:evergreen"],
    check_specs=[*_specs("training_set", training_set_checks(load_domain())), _ADVERSARIAL],
)
def training_set(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """Records with known labels and features as of their own instants, split by time and frozen as a snapshot."""
    from assets.features.checks import check_training_set
    from assets.features.snapshot import build_training_set

    findings: list[Finding] = []

    def accept(snapshot: "Snapshot") -> bool:
        findings.extend(check_training_set(evergreen.home, snapshot))
        return all(finding.passed for finding in findings)

    settings = evergreen.settings.snapshot
    snapshot = build_training_set(evergreen.home, as_of(context), settings, accept)
    bound = settings.max_adversarial_auc
    yield from concluded(
        context,
        _snapshot_metadata(snapshot),
        [*(_result(finding) for finding in findings), _adversarial_result(snapshot, bound)],
        version=snapshot.id,
    )


@dg.asset(
    group_name="features",
    pool="scoring",
    partitions_def=AS_OF,
    deps=["feature_definitions", "marts"],
    kinds={"feast", "sqlite"},
    owners=["team:evergreen"],
    check_specs=_specs("online_features", {"online_equals_offline": "Served features equal those of a training row."}),
)
def online_features(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The online store with each entity's newest statistics up to as-of."""
    from assets.features.checks import check_online
    from assets.features.serving import materialize

    findings: list[Finding] = []

    def accept(place: "Place") -> bool:
        findings.append(check_online(evergreen.home, as_of(context), place))
        return findings[0].passed

    store = materialize(evergreen.home, as_of(context), accept)
    yield from concluded(
        context,
        {
            "as_of": store.as_of,
            "marts": store.marts,
            **{f"{view}_keys": n for view, n in store.keys.items()},
        },
        [_result(finding) for finding in findings],
        version=f"{store.as_of}-{store.marts}-{store.definitions}",
    )


def _result(finding: "Finding") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=finding.name,
        passed=finding.passed,
        description=finding.sentence,
        metadata={"examined": finding.examined, "faults": finding.faults, "fault": finding.fault},
    )


def _adversarial_result(snapshot: "Snapshot", bound: float) -> dg.AssetCheckResult:
    """A warning only: the world may have changed, and then so must the model."""
    from assets.features.adversarial import tell_apart

    separation = tell_apart(snapshot)
    bound = max(bound, separation.allowed)
    best = [(name, f"{auc:.3f}") for name, auc in separation.features.items()]
    return dg.AssetCheckResult(
        check_name=_ADVERSARIAL.name,
        passed=separation.auc <= bound,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"AUC {separation.auc:.2f} (at most {bound:.2f}; among the train rows {separation.calm:.2f})",
        metadata={
            "AUC": separation.auc,
            "AUC among the train rows": separation.calm,
            "bound": bound,
            "best_features": table(["feature", "AUC alone"], best),
        },
    )


def _snapshot_metadata(snapshot: "Snapshot") -> dict[str, dg.MetadataValue | str | int]:
    from assets.features.tables import labels_table

    period, removed = snapshot.manifest["period"], snapshot.manifest["removed"]
    return {
        "snapshot": snapshot.id,
        "train_rows": snapshot.train_rows,
        "test_rows": snapshot.test_rows,
        "train_period": " to ".join(period["train"]),
        "test_period": " to ".join(period["test"]),
        "features": len(snapshot.features),
        "labels": table(*labels_table(snapshot)),
        "names": dg.MetadataValue.md(markdown_list(snapshot.features)),
        **{f"removed_{rule}": rows for rule, rows in removed.items()},
    }
