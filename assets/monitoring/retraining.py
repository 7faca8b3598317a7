"""Gathers the numbers, decides, and appends the decision to the ledger."""

import json
from datetime import date

from assets.lake import Home, hash_json
from assets.monitoring.decision import DecisionInputs, RetrainingDecision, decide
from assets.monitoring.drift import DriftReport, load_drift
from assets.monitoring.performance import Performance, load_performance
from assets.registry.ledger import Ledger
from assets.registry.registry import RegisteredVersion
from assets.settings import RetrainingPolicy

__all__ = ["decide_retraining", "decision_inputs"]


def decide_retraining(
    home: Home, as_of: str, champion: RegisteredVersion | None, policy: RetrainingPolicy
) -> RetrainingDecision:
    """Decide on the published drift report and performance; publish and append to the ledger, once per set of inputs.

    Raises NotPublished when either is missing for as_of.
    """
    drift, performance = load_drift(home.lake, as_of), load_performance(home.lake, as_of)
    decision = decide(decision_inputs(as_of, champion, drift, performance), policy)
    body, table = decision.body(), f"retraining_decision/{as_of}"
    version = hash_json([as_of, body])[:16]
    with home.lake.staging(table) as staged:
        (staged / "decision.json").write_text(json.dumps(body, indent=1))
        home.lake.publish(table, version, staged)
    key = f"{as_of}/{champion.version if champion else 'no-champion'}/{version}"
    Ledger(home.ledger).append("retraining", key, as_of, body)
    return decision


def decision_inputs(
    as_of: str, champion: RegisteredVersion | None, drift: DriftReport, performance: Performance
) -> DecisionInputs:
    """The numbers of the decision. What was measured of another version than the champion counts as not measured."""
    version = champion.version if champion else None
    age = (date.fromisoformat(as_of) - date.fromisoformat(champion.as_of)).days if champion else None
    drifted = drift if drift.model_version == version else None
    performed = performance if performance.model_version == version else None
    return DecisionInputs(
        champion=version,
        age_days=age,
        new_labels=performance.new_labels,
        drift_detected=drifted.detected if drifted else None,
        drift_share=drifted.share if drifted else None,
        mature_rows=performed.realised.rows if performed else 0,
        accuracy=performed.realised.accuracy if performed else None,
        evaluated_rows=performed.evaluated.rows if performed else 0,
        evaluated_accuracy=performed.evaluated.accuracy if performed else None,
    )
