import json
from typing import Any

import pytest

from assets.evaluation.gate import Verdict, decide
from assets.evaluation.metrics import Metrics
from assets.evaluation.report import Evaluation, Golden, Rival, SliceScores, SnapshotFacts
from assets.settings import GatePolicy

NAN = float("nan")
POLICY = GatePolicy(
    min_test_rows=200,
    min_gain_over_baseline=0.01,
    max_loss_to_champion=0.005,
    max_slice_loss=0.05,
    max_calibration_error=0.1,
)
GOOD: dict[str, float] = {"rows": 500, "accuracy": 0.9, "macro_f1": 0.8, "log_loss": 0.4, "ece": 0.05}
BASELINE = GOOD | {"accuracy": 0.8, "macro_f1": 0.7}
CHAMPION = GOOD | {"accuracy": 0.88, "macro_f1": 0.78}


def part(value: str, challenger: float, champion: float | None, rows: int = 100, decides: bool = True) -> SliceScores:
    scores: dict[str, Any] = {"challenger": challenger, "baseline": 0.5, "champion": champion}
    return SliceScores(by="queue", value=value, rows=rows, decides=decides, **scores)


def evaluation(
    challenger: dict[str, float] | None = None,
    baseline: dict[str, float] | None = None,
    champion: dict[str, float] | None = None,
    slices: tuple[SliceScores, ...] = (),
    golden: float = 0.0,
) -> Evaluation:
    rival = champion and Rival(version="7", training_id="champion", metrics=Metrics(**(CHAMPION | champion)))
    return Evaluation(
        id="e",
        basis="b",
        as_of="2024-06-01",
        training_id="challenger",
        snapshot=SnapshotFacts(id="s", train_rows=1, test_rows=1, period={}),
        challenger=Metrics(**(GOOD | (challenger or {}))),
        baseline=Metrics(**(BASELINE | (baseline or {}))),
        champion=rival,
        slices=slices,
        reliability={},
        confusion=(),
        golden=Golden(rows=8, max_difference=golden),
        settings={},
    )


def judged(found: Evaluation, **others: Any) -> Verdict:
    return decide(found, POLICY, found.champion.training_id if found.champion else None, **others)


@pytest.mark.parametrize(
    ("found", "decision", "reason"),
    [
        (evaluation(), "promote", "there is no champion yet"),
        (evaluation({"accuracy": 0.805}), "reject", "accuracy 0.8050 is 0.0050 above the baseline's 0.8000"),
        (evaluation({"accuracy": 0.79}), "reject", "accuracy 0.7900 is 0.0100 below the baseline's 0.8000"),
        (evaluation({"macro_f1": 0.705}), "reject", "macro-F1 0.7050 is 0.0050 above the baseline's 0.7000"),
        (evaluation({"ece": 0.11}), "reject", "calibration error 0.1100 is above the bound of 0.1"),
        (evaluation({"ece": 0.1}), "promote", "calibration error 0.1000 is within the bound of 0.1"),
        (evaluation({"rows": 199}), "reject", "cannot measure: 199 test rows, and at least 200 are needed"),
        (evaluation({"accuracy": NAN}), "reject", "cannot measure: not a finite number: challenger_accuracy"),
        (evaluation({"ece": float("inf")}), "reject", "cannot measure: not a finite number: challenger_ece"),
        (evaluation(baseline={"macro_f1": NAN}), "reject", "cannot measure: not a finite number: baseline_macro_f1"),
        (evaluation(champion={"accuracy": NAN}), "reject", "cannot measure: not a finite number: champion_accuracy"),
        (evaluation(golden=1e-3), "reject", "cannot measure: served and evaluated outputs differ by 0.001"),
        (evaluation(golden=NAN), "reject", "cannot measure: not a finite number: golden_difference"),
        (evaluation(champion={"rows": 500}), "promote", "accuracy 0.9000 is 0.0200 above the 0.8800 of champion 7"),
        (
            evaluation(champion={"accuracy": 0.904}),
            "promote",
            "accuracy 0.9000 is 0.0040 below the 0.9040 of champion 7",
        ),
        (
            evaluation(champion={"accuracy": 0.906}),
            "reject",
            "accuracy 0.9000 is 0.0060 below the 0.9060 of champion 7",
        ),
        (evaluation(champion={"macro_f1": 0.81}), "reject", "macro-F1 0.8000 is 0.0100 below the 0.8100 of champion 7"),
        (
            evaluation(champion={"rows": 500}, slices=(part("cards", 0.8, 0.9), part("other", 0.95, 0.9))),
            "reject",
            "loses more than 0.05 of accuracy to the champion on queue cards by 0.1000 (100 rows)",
        ),
        (
            evaluation(
                champion={"rows": 500}, slices=(part("cards", 0.8, 0.9, decides=False), part("other", 0.9, 0.92))
            ),
            "promote",
            "on none of 1 slices does it lose more than 0.05 (worst: queue other, 0.0200 below it)",
        ),
        (
            evaluation(champion={"rows": 500}, slices=(part("cards", NAN, 0.9),)),
            "reject",
            "cannot measure: not a finite number: slice_loss/queue/cards",
        ),
        (evaluation(slices=(part("cards", 0.1, None),)), "promote", "there is no champion yet"),
    ],
)
def test_verdicts(found: Evaluation, decision: str, reason: str) -> None:
    verdict = judged(found)
    assert verdict.decision == decision
    assert any(sentence.startswith(reason) for sentence in verdict.reasons), verdict.reasons


def test_the_champion_itself_changes_nothing() -> None:
    assert decide(evaluation({"rows": 1}), POLICY, "challenger").decision == "unchanged"


@pytest.mark.parametrize(("found", "now"), [(evaluation(), "other"), (evaluation(champion={"rows": 500}), None)])
def test_an_evaluation_beside_another_champion_decides_nothing(found: Evaluation, now: str | None) -> None:
    verdict = decide(found, POLICY, now)
    assert verdict.decision == "reject"
    assert verdict.reasons[0].startswith("cannot measure: it was evaluated beside ")


def test_a_former_champion_does_not_come_back_by_itself() -> None:
    found = evaluation(champion={"rows": 500})
    assert judged(found, former=frozenset({"champion"})).decision == "promote"
    assert judged(found, former=frozenset({"challenger"})).decision == "reject"


def test_every_number_is_in_the_verdict() -> None:
    numbers = judged(evaluation(champion={"rows": 500}, slices=(part("cards", 0.9, 0.9),))).numbers
    assert numbers["challenger_accuracy"] == 0.9
    assert numbers["baseline_macro_f1"] == 0.7
    assert numbers["champion_ece"] == 0.05
    assert numbers["slice_loss/queue/cards"] == 0.0
    assert numbers["policy_max_slice_loss"] == 0.05
    assert numbers["test_rows"] == 500


def test_a_verdict_is_strict_json() -> None:
    body = judged(evaluation({"accuracy": NAN})).body()
    assert json.loads(json.dumps(body, allow_nan=False))["numbers"]["challenger_accuracy"] is None
