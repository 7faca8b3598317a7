import json
from dataclasses import replace
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml

from assets.home import Home
from assets.monitoring.decision import DecisionInputs, RetrainingDecision, decide
from assets.monitoring.definitions import drift_report, performance, retraining_decision
from assets.monitoring.drift import measure_drift
from assets.monitoring.performance import measure_performance, recent
from assets.monitoring.probe import Probe
from assets.monitoring.retraining import decide_retraining, recall
from assets.registry.ledger import Entry, Ledger
from assets.resources import Evergreen
from assets.settings import CONFIGS, RetrainingPolicy, load_domain, load_settings
from assets.training.launchers.launch import override

AS_OF = "2024-02-01"
SETTINGS = load_settings("quick")
NEW = "1000 complaints with a newly known queue"
POLICY = RetrainingPolicy(
    min_new_labels=500,
    min_mature_rows=100,
    realised_days=30,
    value_per_answer=0.5,
    horizon_days=30,
    decay_per_day=0.0003,
    price_per_retraining=5.0,
    probe=False,
    twin_rows=1000,
    gain_spread=0.004,
    budget_per_month=20.0,
    on_drift=False,
    windows=3,
    drifted_windows=2,
    max_age_days=180,
    cooldown_days=14,
    attempts=3,
)
CALM = DecisionInputs(
    champion="3",
    age_days=10,
    new_labels=1000,
    drifted=(False, False, False),
    mature_rows=400,
    accuracy=0.88,
    evaluated_rows=500,
    evaluated_accuracy=0.9,
    estimated_accuracy=0.8,
    answers_per_day=20.0,
    gain_per_day=0.0003,
    training_cost=0.1,
    cost=5.1,
    spent=0.0,
    days_since_retraining=20,
    failed=0,
    days_since_failed=None,
    tried=0,
)
ON_DRIFT = {"on_drift": True, "value_per_answer": None}
DRIFTED = {"drifted": (True, True, False)}
TRIED = {"tried": 1, "tried_labels": 501}
TWINS = Probe(rows=500, difference=0.03, error=0.01, gain=0.02, spread=0.008, chance=0.4, promoted_gain=0.025)
TOLD = "twins differ by +3.0 points (error 1.0) on 500 blind rows, with age +2.0 are expected, 2.5 if the gate promotes"


@pytest.mark.parametrize(
    ("change", "policy", "decision", "named"),
    [
        ({}, {}, "skip", "drift in 0 of the last 3 windows"),
        ({}, {}, "skip", "0.3 points by age (0.030 a day for 10 days): worth 0.90 on 20 complaints a day over 30 days"),
        ({"champion": None, "age_days": None}, {}, "retrain", "there is no champion"),
        ({"champion": None, "age_days": None, "new_labels": 0}, {}, "retrain", "there is no champion"),
        ({"champion": None, "days_since_retraining": 1}, {}, "retrain", "there is no champion"),
        ({"age_days": 200, "failed": 1, "days_since_failed": 1}, {}, "retrain", "(attempt 2 of 3)"),
        ({"age_days": 200, "failed": 1, "days_since_failed": 0}, {}, "skip", "attempt 1 has no verdict after 0 days"),
        ({"age_days": 200, "failed": 2, "days_since_failed": 1}, {}, "skip", "the next starts 2 days after it"),
        ({"age_days": 200, "failed": 2, "days_since_failed": 2}, {}, "retrain", "(attempt 3 of 3)"),
        ({"age_days": 200, "failed": 3, "days_since_failed": 9}, {}, "alert-a-human", "3 attempts at it have ended"),
        ({"failed": 3, "days_since_failed": 9}, {}, "skip", "drift in 0 of the last 3 windows"),
        (
            {"age_days": 60},
            {},
            "retrain",
            "worth 5.40 on 20 complaints a day over 30 days, and a retraining costs 5.10",
        ),
        ({"age_days": 60, "mature_rows": 9}, {}, "retrain", "worth 5.40 on 20 complaints a day"),
        ({"age_days": 600, "accuracy": 0.93}, {"max_age_days": None}, "skip", "0.0 points by age"),
        ({"age_days": 60, "cost": 5.5}, {}, "skip", "a retraining costs 5.50"),
        ({"age_days": 60, "answers_per_day": None}, {}, "skip", NEW),
        ({"age_days": 60}, {"value_per_answer": None}, "skip", NEW),
        ({"accuracy": 0.8}, {}, "retrain", "6.0 points proven on 400 matured rows"),
        ({"accuracy": 0.8, "mature_rows": 99}, {}, "skip", "99 matured rows, 100 are needed"),
        ({"accuracy": 0.86, "mature_rows": 100}, {}, "skip", "may be chance"),
        ({"accuracy": 0.95}, {}, "skip", "0.050 above the evaluated"),
        ({"evaluated_accuracy": None, "evaluated_rows": 0}, {}, "skip", "performance cannot be compared"),
        (DRIFTED, {}, "retrain", "10.0 points by the champion's confidence under drift"),
        (DRIFTED | {"estimated_accuracy": 0.9}, {}, "skip", "drift in 2 of the last 3 windows"),
        ({"drifted": (True, False, False)}, {}, "skip", "drift in 1 of the last 3 windows (it counts from 2)"),
        (DRIFTED, ON_DRIFT, "retrain", "drift in 2 of the last 3 windows"),
        ({"drifted": (False, False, False)}, ON_DRIFT, "skip", "drift in 0 of the last 3 windows"),
        (
            DRIFTED | TRIED,
            ON_DRIFT,
            "alert-a-human",
            "retraining 1 of this drift did not end it (the next waits for 500",
        ),
        (DRIFTED | TRIED, {}, "alert-a-human", "500 more complaints with a known queue, of which 499 have arrived"),
        (DRIFTED | TRIED | {"tried_labels": 500}, ON_DRIFT, "retrain", "drift in 2 of the last 3 windows"),
        (DRIFTED | TRIED | {"tried_labels": 500}, {}, "retrain", "by the champion's confidence under drift"),
        (DRIFTED | TRIED | {"tried": 2, "tried_labels": 1}, ON_DRIFT, "alert-a-human", "waits for 1000 more"),
        (DRIFTED | TRIED | {"tried": 2, "tried_labels": 0}, ON_DRIFT, "retrain", "drift in 2"),
        (DRIFTED | TRIED | {"tried": 3, "tried_labels": 0}, ON_DRIFT, "alert-a-human", "waits for 2000 more"),
        (DRIFTED | TRIED | {"accuracy": 0.8}, {}, "retrain", "6.0 points proven"),
        (DRIFTED | TRIED | {"age_days": 180}, ON_DRIFT, "retrain", "180 days old (at most 180)"),
        (DRIFTED | TRIED | {"age_days": 179}, ON_DRIFT, "alert-a-human", "did not end it"),
        ({"age_days": 60} | TRIED, {}, "retrain", "by age"),
        (
            {"age_days": 60, "new_labels": 499},
            {},
            "retrain-when-labels-mature",
            "499 complaints with a newly known",
        ),
        ({"age_days": 60, "new_labels": 500}, {}, "retrain", "by age"),
        ({"age_days": 60, "days_since_retraining": 13}, {}, "skip", "13 days ago (cooldown 14 days)"),
        ({"age_days": 60, "days_since_retraining": None}, {}, "retrain", "by age"),
        ({"age_days": 60, "spent": 15.0}, {}, "alert-a-human", "15.00 of the month's 20.00 are spent"),
        ({"age_days": 180}, {"value_per_answer": None}, "retrain", "180 days old (at most 180)"),
        ({"age_days": 179}, {"value_per_answer": None}, "skip", NEW),
        (
            {"age_days": 500},
            {"value_per_answer": None, "max_age_days": None},
            "skip",
            NEW,
        ),
        ({"probe": TWINS}, {"probe": True}, "retrain", f"{TOLD} (chance 0.40): worth 7.50 on 20 complaints a day"),
        ({"probe": TWINS, "training_cost": 0.9, "cost": 5.9}, {"probe": True}, "retrain", TOLD),
        ({"probe": TWINS, "training_cost": 1.1, "cost": 6.1}, {"probe": True}, "skip", TOLD),
        ({"probe": replace(TWINS, promoted_gain=0.015)}, {"probe": True}, "skip", "worth 4.50"),
        ({"probe": TWINS}, {}, "skip", "drift in 0 of the last 3 windows"),
        ({"probe": TWINS, "age_days": 60}, {"probe": True, "max_age_days": 60}, "retrain", TOLD),
        ({"age_days": 60}, {"probe": True}, "skip", "there are no rows that are blind for both twins"),
        ({"age_days": 60}, {"probe": True, "max_age_days": 60}, "retrain", "60 days old"),
        ({"drifted": (None, False, False)}, {}, "skip", "drift could not be measured, which is no sign of calm"),
        ({"drifted": (None,) * 3}, {}, "skip", "drift could not be measured"),
        ({"drifted": (None,) * 3, "mature_rows": 0}, {}, "alert-a-human", "nothing could be measured in 3 windows"),
        ({"drifted": (None,), "mature_rows": 0}, {}, "skip", "which is no sign of health"),
    ],
)
def test_decisions(change: dict[str, Any], policy: dict[str, Any], decision: str, named: str) -> None:
    found = decide(replace(CALM, **change), POLICY.model_copy(update=policy), load_domain())
    assert (found.decision, named in found.reason) == (decision, True), found.reason
    assert found.body()["numbers"]["cost"] == change.get("cost", 5.1)
    assert found.body()["policy"]["horizon_days"] == 30
    assert RetrainingDecision.read(json.loads(json.dumps(found.body()))) == found


def test_the_policies_of_the_replay_are_whole() -> None:
    names = {path.stem for path in (CONFIGS / "policies").glob("*.yaml")}
    assert {"never", "every-step", "monthly", "on-drift", "cost-aware", "probe"} <= names
    default = yaml.safe_load((CONFIGS / "retraining.yaml").read_text())
    for name in names:
        changes = yaml.safe_load((CONFIGS / "policies" / f"{name}.yaml").read_text()) or {}
        RetrainingPolicy.model_validate(default | changes)


def entry(kind: str, as_of: str, **body: Any) -> Entry:
    return Entry(1, kind, as_of, as_of, body, "")


def decided(as_of: str, champion: str | None, decision: str = "retrain", ground: str = "drift") -> Entry:
    numbers = {"champion": champion, "training_cost": 0.5, "cost": 5.5, "new_labels": int(as_of[-2:])}
    return entry("retraining", as_of, decision=decision, ground=ground, numbers=numbers)


def judged(as_of: str) -> Entry:
    return entry("verdict", as_of, training_id="a", champion=None, trained_to=as_of, numbers={})


def test_a_retraining_is_done_when_there_is_a_verdict_and_counts_as_failed_until_then() -> None:
    """One crash is no fortnight without a retraining, and is no retraining that did not end the drift."""
    crashed = replace(decided("2024-01-20", "3"), seq=7)
    past = recall([decided("2024-01-10", "3"), judged("2024-01-10"), crashed], "2024-01-21", "3", "2024-01-15", POLICY)
    assert (past.days_since_retraining, past.failed, past.days_since_failed, past.tried) == (11, 1, 1, 0)
    again = [crashed, *(entry("attempt", "2024-01-20", decision=7) for _ in range(3))]
    assert recall(again, "2024-01-23", "3", None, POLICY).failed == 3
    past = recall([*again, judged("2024-01-20")], "2024-01-23", "3", "2024-01-15", POLICY)
    assert (past.days_since_retraining, past.failed, past.days_since_failed, past.tried) == (3, 0, None, 1)


def test_what_was_decided_and_spent_is_recalled() -> None:
    entries = [
        judged("2024-01-31"),
        decided("2023-12-20", "2"),
        decided("2024-01-10", "3"),
        decided("2024-01-20", "3", "skip"),
        decided("2024-01-31", "3"),
        decided("2024-02-09", "3"),
    ]
    past = recall(entries, "2024-01-30", "3", "2024-01-05", POLICY)
    assert (past.spent, past.failed) == (0.5, 2)
    past = recall(entries, "2024-01-31", "3", "2024-01-05", POLICY)
    assert (past.spent, past.days_since_retraining) == (1.0, 0)  # those of the same day count
    assert (past.tried, past.tried_labels) == (2, 31)
    assert not recall(entries[1:4], "2024-01-31", "3", "2024-01-11", POLICY).tried
    assert not recall(entries, "2024-01-31", "3", None, POLICY).tried
    newer = recall(entries, "2024-01-31", "4", "2024-01-05", POLICY)
    assert (newer.spent, newer.days_since_retraining, newer.tried) == (1.0, 0, 0)
    assert recall([], AS_OF, None, None, POLICY).days_since_retraining is None


def test_only_a_promotion_is_charged_for_review_and_roll_out() -> None:
    policy = POLICY.model_copy(update={"price_per_retraining": 7.0})
    refused = [decided("2024-01-10", "3"), judged("2024-01-10")]
    assert recall(refused, "2024-01-20", "3", None, policy).spent == 0.5
    promoted = [*refused, entry("alias", "2024-01-10", action="promote")]
    assert recall(promoted, "2024-01-20", "4", None, policy).spent == 7.5
    assert recall(promoted, "2024-02-01", "4", None, policy).spent == 0
    back = [*promoted, entry("alias", "2024-01-11", action="rollback")]
    assert recall(back, "2024-01-20", "3", None, policy).spent == 7.5


def test_a_promotion_is_charged_for_its_refit_whatever_the_verdict_on_that() -> None:
    verdict = judged("2024-01-10")
    refit = replace(verdict, body=verdict.body | {"refit_of": "a"})
    entries = [decided("2024-01-10", "3"), verdict, entry("alias", "2024-01-10", action="promote"), refit]
    assert recall(entries, "2024-01-20", "4", None, POLICY).spent == 6.0
    approved = [*entries, entry("alias", "2024-01-12", action="refit")]
    assert recall(approved, "2024-01-20", "4", None, POLICY).spent == 6.0


def test_five_points_lost_are_proven_in_weeks_however_long_the_reign() -> None:
    """28 answers a day, 89 of a hundred right for a year, and 84 from then on."""
    rows, changed = 28 * 500, pd.Timestamp("2025-01-01")
    night = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) // 28, unit="D")
    right = (np.arange(rows) % 100) < np.where(night < changed, 89, 84)
    answers = pd.DataFrame({"night": night, "rows": 1, "right": right})

    def worth(as_of: pd.Timestamp) -> bool:
        newest = recent(answers[answers["night"] <= as_of], str(as_of.date()), POLICY)
        measured = {"mature_rows": len(newest), "accuracy": float(newest["right"].mean()), "answers_per_day": 28.0}
        known = {"evaluated_accuracy": 0.89, "evaluated_rows": 1500}
        return decide(replace(CALM, **measured, **known), POLICY, load_domain()).decision == "retrain"

    first = next(day for day in pd.date_range("2024-03-01", "2025-05-01") if worth(day))
    assert 7 <= (first - changed).days <= 28


def test_the_gain_of_a_day_comes_from_past_verdicts() -> None:
    def verdict(who: str, champion: str | None, to: str, ours: float, theirs: float | None) -> Entry:
        numbers = {"challenger_accuracy": ours, "champion_accuracy": theirs}
        return entry("verdict", to, training_id=who, champion=champion, trained_to=to, numbers=numbers)

    first = verdict("a", None, "2023-01-01", 0.8, None)
    assert recall([first], AS_OF, "1", None, POLICY).gain_per_day == pytest.approx(0.0003)
    second = verdict("b", "a", "2023-04-11", 0.85, 0.8)
    assert recall([first, second], AS_OF, "1", None, POLICY).gain_per_day == pytest.approx(0.0003)
    third = verdict("d", "b", "2023-07-20", 0.89, 0.85)
    assert recall([first, second, third], AS_OF, "1", None, POLICY).gain_per_day == pytest.approx(0.00035)
    worse = [verdict(who, "a", "2023-04-11", 0.5, 0.8) for who in "cef"]
    assert recall([first, worse[0]], AS_OF, "1", None, POLICY).gain_per_day == pytest.approx(0.0003)
    assert recall([first, *worse], AS_OF, "1", None, POLICY).gain_per_day == 0


@pytest.fixture
def measured(home: Home, champion: Any, publish_marts: Any) -> Home:
    labels = pd.DataFrame({"record_id": ["a"], "known_at": "2024-01-05", "known_until": None, "label": "cards"}).assign(
        label_known_at="2024-01-10"
    )
    publish_marts(labels.assign(text="x", company="A", state="CA", tags=None, channel="Web"), labels)
    measure_drift(home, AS_OF, champion, SETTINGS.drift)
    measure_performance(home, AS_OF, champion, SETTINGS.retraining, SETTINGS.drift)
    return home


def test_the_ledger_holds_a_decision_once(measured: Home, champion: Any) -> None:
    first = decide_retraining(measured, AS_OF, champion, SETTINGS)
    assert decide_retraining(measured, AS_OF, champion, SETTINGS) == first
    (entry,) = Ledger(measured.ledger).entries("retraining")
    assert entry.body == first.body()
    assert entry.as_of == AS_OF
    assert first.decision == "skip"
    changed = SETTINGS.model_copy(update={"retraining": POLICY.model_copy(update={"horizon_days": 31})})
    decide_retraining(measured, AS_OF, champion, changed)
    assert len(Ledger(measured.ledger).entries("retraining")) == 2


def test_a_second_decision_of_a_day_knows_of_the_first(measured: Home, champion: Any) -> None:
    """Whatever has been spent since, the same measurements keep their decision; others count what came before."""
    old, policy = replace(champion, as_of="2023-01-01"), SETTINGS.retraining.model_copy(update={"min_new_labels": 1})

    def ask(**changes: Any) -> RetrainingDecision:
        settings = SETTINGS.model_copy(update={"retraining": policy.model_copy(update=changes)})
        return decide_retraining(measured, AS_OF, old, settings)

    first = ask()
    assert first.decision == "retrain"
    second = ask(horizon_days=31)
    assert (second.decision, second.inputs.failed) == ("skip", 1)
    ledger = Ledger(measured.ledger)
    ledger.append("verdict", "a", AS_OF, {"training_id": "a", "champion": None, "trained_to": AS_OF, "numbers": {}})
    third = ask(horizon_days=32)
    assert (third.decision, third.inputs.days_since_retraining) == ("skip", 0)
    assert ask() == first
    assert len(ledger.entries("retraining")) == 3


def test_the_price_of_a_retraining_has_its_refit(
    measured: Home, champion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.monitoring.retraining._device_seconds", lambda lake: [3600.0])
    training = override(SETTINGS.training, {"refit": True, "price_per_hour": 0.5})
    settings = SETTINGS.model_copy(update={"training": training, "retraining": POLICY})
    found = decide_retraining(measured, AS_OF, champion, settings).inputs
    assert (found.training_cost, found.cost, found.promotion_cost) == (0.5, 6.0, 5.5)


def test_what_was_measured_of_another_version_is_not_measured(measured: Home, champion: Any) -> None:
    newer = replace(champion, training_id="another", as_of="2024-01-20")  # MLflow may call it by the same number
    found = decide_retraining(measured, AS_OF, newer, SETTINGS).inputs
    assert (found.champion, found.age_days, found.drifted, found.mature_rows) == ("another", 12, (), 0)


def test_a_champion_is_measured_whatever_number_mlflow_calls_it_by(
    home: Home, champion: Any, train: Any, score_window: Any, world: Any
) -> None:
    train(world(1))
    score_window(world(2))
    measure_performance(home, AS_OF, champion, SETTINGS.retraining, SETTINGS.drift)
    assert measure_drift(home, AS_OF, champion, SETTINGS.drift).detected is False
    first = decide_retraining(home, AS_OF, champion, SETTINGS)
    assert (first.inputs.drifted, first.inputs.mature_rows) == ((False,), 1360)
    renumbered = replace(champion, version="1")  # by `rebuild-registry`, from a lake that has fewer bundles
    assert decide_retraining(home, AS_OF, renumbered, SETTINGS) == first
    performed = measure_performance(home, AS_OF, renumbered, SETTINGS.retraining, SETTINGS.drift)
    assert [window.estimated_accuracy for window in performed.windows] == [first.inputs.estimated_accuracy]
    assert measure_drift(home, AS_OF, renumbered, SETTINGS.drift).detected is False


def test_the_assets_run_without_a_champion(home: Home, measured: Home) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [AS_OF])
        result = dg.materialize(
            [drift_report, performance, retraining_decision],
            partition_key=AS_OF,
            resources={"evergreen": Evergreen()},
            instance=instance,
        )
    assert result.success
    drift = result.asset_materializations_for_node("drift_report")[0].metadata
    assert drift["detected"].value == "cannot be measured"
    assert str(drift["report"].value).endswith(f"/drift/{AS_OF}.html")
    decision = result.asset_materializations_for_node("retraining_decision")[0].metadata
    assert (decision["decision"].value, decision["reason"].value) == ("retrain", "there is no champion")


def test_a_person_is_told_in_the_graph(home: Home, measured: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = decide(replace(CALM, **DRIFTED, tried=1, tried_labels=900, probe=TWINS), POLICY, load_domain())
    monkeypatch.setattr("assets.monitoring.retraining.decide_retraining", lambda *_: alarm)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [AS_OF])
        result = dg.materialize(
            [retraining_decision],
            partition_key=AS_OF,
            resources={"evergreen": Evergreen()},
            instance=instance,
        )
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == alarm.reason
    told = result.asset_materializations_for_node("retraining_decision")[0].metadata
    assert (told["blind rows"].value, told["chance of promotion"].value) == (500, 0.4)
