from dataclasses import replace
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.lake import Home
from assets.monitoring.decision import DecisionInputs, decide
from assets.monitoring.definitions import drift_report, performance, retraining_decision
from assets.monitoring.drift import measure_drift
from assets.monitoring.performance import measure_performance
from assets.monitoring.retraining import decide_retraining
from assets.registry.ledger import Ledger
from assets.resources import Evergreen
from assets.settings import RetrainingPolicy, load_settings

AS_OF = "2024-02-01"
SETTINGS = load_settings("quick")
POLICY = RetrainingPolicy(min_new_labels=500, max_accuracy_loss=0.03, max_age_days=90, min_mature_rows=100)
CALM = DecisionInputs(
    champion="3",
    age_days=10,
    new_labels=1000,
    drift_detected=False,
    drift_share=0.1,
    mature_rows=400,
    accuracy=0.88,
    evaluated_rows=500,
    evaluated_accuracy=0.9,
)


@pytest.mark.parametrize(
    ("change", "decision", "named"),
    [
        ({}, "skip", "no drift (10% of a group's columns)"),
        ({"champion": None, "age_days": None}, "retrain", "there is no champion"),
        ({"drift_detected": True, "drift_share": 0.5}, "retrain", "drift (50% of a group's columns), 1000 new labels"),
        ({"drift_detected": True, "drift_share": 0.5, "new_labels": 499}, "skip", "499 new labels (at least 500)"),
        ({"drift_detected": True, "drift_share": 0.5, "new_labels": 500}, "retrain", "500 new labels"),
        (
            {"drift_detected": None, "drift_share": None},
            "skip",
            "drift could not be measured, which is no sign of calm",
        ),
        ({"accuracy": 0.8}, "retrain", "accuracy 0.800 on 400 matured rows, 0.100 below the evaluated"),
        ({"accuracy": 0.8, "new_labels": 0}, "retrain", "accuracy 0.800"),
        ({"accuracy": 0.8, "mature_rows": 99}, "skip", "99 matured rows, 100 are needed"),
        ({"accuracy": 0.86, "mature_rows": 100}, "skip", "may be chance"),
        ({"accuracy": 0.95}, "skip", "0.050 above the evaluated"),
        ({"evaluated_accuracy": None, "evaluated_rows": 0}, "skip", "nothing to be compared with"),
        ({"age_days": 90}, "skip", "90 days old (at most 90)"),
        ({"age_days": 91}, "retrain", "91 days old (at most 90), 1000 new labels"),
        ({"age_days": 91, "new_labels": 10}, "skip", "10 new labels"),
    ],
)
def test_decisions(change: dict[str, Any], decision: str, named: str) -> None:
    found = decide(replace(CALM, **change), POLICY)
    assert found.decision == decision
    assert named in found.reason
    assert found.body()["numbers"]["new_labels"] == change.get("new_labels", 1000)
    assert found.body()["policy"]["max_age_days"] == 90


@pytest.fixture
def measured(home: Home, champion: Any, publish_marts: Any) -> Home:
    labels = pd.DataFrame(
        {"complaint_id": ["a"], "known_at": "2024-01-05", "known_until": None, "queue": "cards"}
    ).assign(label_known_at="2024-01-10")
    publish_marts(labels.assign(narrative="x", company="A", state="CA", tags=None, channel="Web"), labels)
    measure_drift(home, AS_OF, champion, SETTINGS.drift)
    measure_performance(home, AS_OF, champion, SETTINGS.retraining, SETTINGS.drift.min_maturity)
    return home


def test_the_ledger_holds_a_decision_once(measured: Home, champion: Any) -> None:
    first = decide_retraining(measured, AS_OF, champion, POLICY)
    assert decide_retraining(measured, AS_OF, champion, POLICY) == first
    (entry,) = Ledger(measured.ledger).entries("retraining")
    assert entry.body == first.body()
    assert entry.as_of == AS_OF
    assert first.decision == "skip"
    decide_retraining(measured, AS_OF, champion, POLICY.model_copy(update={"min_new_labels": 1}))
    assert len(Ledger(measured.ledger).entries("retraining")) == 2


def test_what_was_measured_of_another_version_is_not_measured(measured: Home, champion: Any) -> None:
    newer = replace(champion, version="4", as_of="2024-01-20")
    found = decide_retraining(measured, AS_OF, newer, POLICY).inputs
    assert (found.champion, found.age_days, found.drift_detected, found.mature_rows) == ("4", 12, None, 0)


def test_the_assets_run_without_a_champion(home: Home, measured: Home) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [drift_report, performance, retraining_decision],
            partition_key=AS_OF,
            resources={"evergreen": Evergreen(root=str(home.root))},
            instance=instance,
        )
    assert result.success
    drift = result.asset_materializations_for_node("drift_report")[0].metadata
    assert drift["detected"].value == "cannot be measured"
    assert str(drift["report"].value).endswith(f"/drift/{AS_OF}.html")
    decision = result.asset_materializations_for_node("retraining_decision")[0].metadata
    assert (decision["decision"].value, decision["reason"].value) == ("retrain", "there is no champion")
