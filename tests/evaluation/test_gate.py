import json
from typing import Any

import pytest

from assets.evaluation.gate import Verdict, conclude, count_reign, decide, decide_refit
from assets.evaluation.metrics import Metrics
from assets.evaluation.paired import Pair
from assets.evaluation.report import Evaluation, Golden, Reference, Rival, SliceScores, SnapshotFacts
from assets.evaluation.rules import Context, Measured, find
from assets.settings import GatePolicy, load_domain

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

NAN = float("nan")
POLICY = GatePolicy(
    approval="automatic",
    alias_edits="restore",
    decided_by=("accuracy", "macro_f1"),
    min_test_rows=200,
    min_label_rows=20,
    min_gain_over_baseline=0.01,
    significance=0.05,
    min_gain=0.005,
    max_loss=0.02,
    max_part_loss=0.05,
    harm_confidence=0.9,
    part_spread=0.1,
    costs={},
    max_calibration_error=0.1,
    max_milliseconds=500,
    min_reference_rows=50,
    min_refit_agreement=0.8,
    approval_days=30,
    rollback_holds_days=14,
)
BETTER: tuple[Pair, ...] = ((0, 0, 0, 430), (0, 0, 1, 25), (0, 1, 0, 5), (1, 1, 1, 40))
"""500 rows: 25 are right only by the challenger, 5 only by the champion."""
GOOD: dict[str, float] = {"rows": 500, "accuracy": 0.9, "macro_f1": 0.8, "log_loss": 0.4, "ece": 0.05}
BASELINE = GOOD | {"accuracy": 0.8, "macro_f1": 0.7}
CHAMPION = GOOD | {"accuracy": 0.88, "macro_f1": 0.78}


def part(value: str, challenger: float, champion: float | None, rows: int = 100, decides: bool = True) -> SliceScores:
    """All rows on which the two differ are right by the one that is better."""
    scores: dict[str, Any] = {"challenger": challenger, "baseline": 0.5, "champion": champion}
    gain = round(rows * (challenger - (champion or 0))) if challenger == challenger else 0
    differing = {"only_challenger": max(gain, 0), "only_champion": max(-gain, 0)}
    return SliceScores(by="channel", value=value, rows=rows, decides=decides, **differing, **scores)


def remembered(challenger: float, champion: float) -> Reference:
    """100 reference rows; where the two differ, the better one is right."""
    lost = round(100 * (champion - challenger))
    return Reference(rows=100, challenger=challenger, champion=champion, only_challenger=0, only_champion=lost)


def evaluation(
    challenger: dict[str, float] | None = None,
    baseline: dict[str, float] | None = None,
    champion: dict[str, float] | None = None,
    slices: tuple[SliceScores, ...] = (),
    golden: float = 0.0,
    pairs: tuple[Pair, ...] = BETTER,
    milliseconds: float = 5.0,
    rival: str = "champion",
    reference: Reference | None = None,
) -> Evaluation:
    beside = champion and Rival(version="7", training_id=rival, metrics=Metrics(**(CHAMPION | champion)), pairs=pairs)
    return Evaluation(
        id="e",
        basis="b",
        as_of="2024-06-01",
        training_id="challenger",
        labels=LABELS,
        snapshot=SnapshotFacts(id="s", train_rows=1, test_rows=1, period={"train": ("2024-01-01", "2024-05-01")}),
        challenger=Metrics(**(GOOD | (challenger or {}))),
        baseline=Metrics(**(BASELINE | (baseline or {}))),
        champion=beside,
        slices=slices,
        reliability={},
        confusion=((400, 0), (0, 100)),
        golden=Golden(rows=8, max_difference=golden),
        milliseconds=milliseconds,
        reference=reference,
        settings={},
    )


def judged(found: Evaluation, **others: Any) -> Verdict:
    return decide(found, POLICY, DOMAIN, found.champion.training_id if found.champion else None, **others)


@pytest.mark.parametrize(
    ("found", "decision", "reason"),
    [
        (evaluation(), "promote", "there is no champion yet"),
        (evaluation({"accuracy": 0.805}), "reject", "accuracy 0.8050 is 0.0050 above the baseline's 0.8000"),
        (evaluation({"accuracy": 0.79}), "reject", "accuracy 0.7900 is 0.0100 below the baseline's 0.8000"),
        (evaluation({"macro_f1": 0.705}), "reject", "macro-F1 0.7050 is 0.0050 above the baseline's 0.7000"),
        (evaluation({"ece": 0.11}), "reject", "calibration error 0.1100 is above the bound of 0.1"),
        (evaluation({"ece": 0.1}), "promote", "calibration error 0.1000 is within the bound of 0.1"),
        (evaluation({"rows": 199}), "inconclusive", "cannot measure: 199 test rows, and at least 200 are needed"),
        (evaluation({"accuracy": NAN}), "inconclusive", "cannot measure: not a finite number: challenger_accuracy"),
        (evaluation({"ece": float("inf")}), "inconclusive", "cannot measure: not a finite number: challenger_ece"),
        (
            evaluation(baseline={"macro_f1": NAN}),
            "inconclusive",
            "cannot measure: not a finite number: baseline_macro_f1",
        ),
        (
            evaluation(champion={"accuracy": NAN}),
            "inconclusive",
            "cannot measure: not a finite number: champion_accuracy",
        ),
        (evaluation(golden=1e-3), "inconclusive", "cannot measure: served and evaluated outputs differ by 0.001"),
        (evaluation(golden=NAN), "inconclusive", "cannot measure: not a finite number: golden_difference"),
        (evaluation(milliseconds=501), "reject", "one complaint takes 501.0 ms, of 500 that it may"),
        (evaluation(champion={"rows": 500}), "promote", "better by at least 0.005, beyond a chance of 0.025"),
        (
            evaluation(champion={"rows": 500}, pairs=((0, 0, 0, 450), (0, 0, 1, 7), (0, 1, 0, 3), (1, 1, 1, 40))),
            "reject",
            "not better by at least 0.005, beyond a chance of 0.025, in accuracy or macro-F1: 7 rows are right only by",
        ),
        (
            evaluation(champion={"rows": 500}, pairs=((0, 0, 0, 490), (1, 1, 1, 10))),
            "reject",
            "not better by at least 0.005",
        ),
        (
            # Better on a large label, and worse on a small one: accuracy gains, macro-F1 loses.
            evaluation(champion={"rows": 500}, pairs=((0, 0, 0, 450), (0, 0, 2, 30), (1, 1, 1, 10), (1, 0, 1, 10))),
            "reject",
            "macro-F1 is 0.1",
        ),
        (
            evaluation(champion={"rows": 500, "ece": 0.2}).model_copy(
                update={"challenger": Metrics(**(GOOD | {"ece": 0.15}))}
            ),
            "promote",
            "calibration error 0.1500 is above the bound of 0.1, and 0.0500 below the champion's",
        ),
        (
            evaluation(champion={"rows": 500}, slices=(part("Web", 0.8, 0.95), part("Phone", 0.95, 0.9))),
            "awaiting-approval",
            "1 of 4 parts likely lose more than 0.05 of F1 (queues) or accuracy (slices): channel Web (0.15",
        ),
        (
            # Six rows of a hundred may well be five.
            evaluation(champion={"rows": 500}, slices=(part("Web", 0.84, 0.9),)),
            "promote",
            "none of 3 parts likely loses more than 0.05 of F1 (queues) or accuracy (slices); likeliest: channel Web",
        ),
        (
            evaluation(champion={"rows": 500}, slices=(part("Web", 0.8, 0.95, decides=False),)),
            "promote",
            "none of 2 parts likely loses",
        ),
        (
            # 30 points lost on a label of 30 rows, beside 40 rows gained elsewhere.
            evaluation(champion={"rows": 500}, pairs=(*BETTER, (0, 0, 1, 80), (2, 2, 2, 20), (2, 0, 2, 12))),
            "inconclusive",
            "cannot measure: 612 of 500 test rows were answered by both",
        ),
        (
            evaluation(
                {"rows": 612}, champion={"rows": 612}, pairs=(*BETTER, (0, 0, 1, 80), (2, 2, 2, 20), (2, 0, 2, 12))
            ),
            "awaiting-approval",
            "1 of 3 parts likely lose more than 0.05 of F1 (queues) or accuracy (slices): queue Consumer loan (0.2",
        ),
        (
            evaluation(champion={"rows": 500}, reference=remembered(0.8, 0.9)),
            "reject",
            "on 100 reference rows accuracy is 0.1000 below the champion's; 0.0710 below is allowed",
        ),
        (
            evaluation(champion={"rows": 500}, reference=remembered(0.87, 0.9)),
            "promote",
            "on 100 reference rows accuracy is 0.0300 below the champion's; 0.0",
        ),
        (
            evaluation(champion={"rows": 500}, pairs=((0, 0, 1, 300),)),
            "inconclusive",
            "cannot measure: 300 of 500 test rows were answered by both",
        ),
        (evaluation(slices=(part("cards", 0.1, None),)), "promote", "there is no champion yet"),
    ],
)
def test_verdicts(found: Evaluation, decision: str, reason: str) -> None:
    verdict = judged(found)
    assert verdict.decision == decision
    assert any(sentence.startswith(reason) for sentence in verdict.reasons), verdict.reasons


def test_the_champion_itself_changes_nothing() -> None:
    assert decide(evaluation({"rows": 1}), POLICY, DOMAIN, "challenger").decision == "unchanged"


@pytest.mark.parametrize(("found", "now"), [(evaluation(), "other"), (evaluation(champion={"rows": 500}), None)])
def test_an_evaluation_beside_another_champion_decides_nothing(found: Evaluation, now: str | None) -> None:
    verdict = decide(found, POLICY, DOMAIN, now)
    assert verdict.decision == "inconclusive"
    assert verdict.reasons[0].startswith("cannot measure: it was evaluated against ")


def test_a_model_that_is_compared_with_itself_is_not_promoted() -> None:
    verdict = decide(evaluation(champion={"rows": 500}, rival="challenger"), POLICY, DOMAIN, "other")
    assert verdict.decision == "inconclusive"
    assert verdict.reasons == ("cannot measure: it was compared with itself",)


def test_what_passes_waits_for_a_person_where_the_policy_says_so() -> None:
    policy = POLICY.model_copy(update={"approval": "required"})
    assert decide(evaluation(), policy, DOMAIN).decision == "awaiting-approval"
    assert decide(evaluation({"ece": 0.11}), policy, DOMAIN).decision == "reject"


@pytest.mark.parametrize(("withdrawn", "decision"), [("2024-05-01", "reject"), ("2024-04-30", "promote")])
def test_what_was_rolled_back_needs_newer_rows(withdrawn: str, decision: str) -> None:
    assert judged(evaluation(), withdrawn_to=withdrawn).decision == decision


def test_a_former_champion_does_not_come_back_by_itself() -> None:
    found = evaluation(champion={"rows": 500})
    assert judged(found, former=frozenset({"champion"})).decision == "promote"
    assert judged(found, former=frozenset({"challenger"})).decision == "reject"


def test_every_number_is_in_the_verdict() -> None:
    numbers = judged(evaluation(champion={"rows": 500}, slices=(part("cards", 0.9, 0.9),))).numbers
    assert numbers["challenger_accuracy"] == 0.9
    assert numbers["baseline_macro_f1"] == 0.7
    assert numbers["champion_ece"] == 0.05
    assert numbers["gain/channel cards"] == 0.0
    assert 0 < numbers["chance/channel cards"] < 0.5
    assert {"gain/label bank_account", "chance/label bank_account"} <= set(numbers)
    assert numbers["policy_max_part_loss"] == 0.05
    assert numbers["nth_of_the_reign"] == 1
    assert numbers["test_rows"] == 500


def test_every_rule_is_in_the_verdict_with_its_number_its_threshold_and_its_margin() -> None:
    found = evaluation({"ece": 0.11}, champion={"rows": 500}, slices=(part("Web", 0.8, 0.95),))
    rules = judged(found, former=frozenset({"other"})).body()["rules"]
    assert [rule["rule"] for rule in rules if not rule["holds"]] == ["calibrated", "harms no part"]
    assert {"enough test rows", "served as evaluated", "not replaced before", "fast enough"} <= {
        r["rule"] for r in rules
    }
    calibrated = next(rule for rule in rules if rule["rule"] == "calibrated")["terms"]
    (term,) = calibrated
    assert term == {
        **{"what": "calibration error", "value": 0.11, "must_be": "at most", "bound": 0.1},
        **{"settings": ["max_calibration_error"], "margin": pytest.approx(-0.01)},
    }
    better = next(rule for rule in rules if rule["rule"] == "better than the champion")
    assert [term["settings"] for term in better["terms"]] == [["significance"], ["min_gain"]] * 2
    assert better["terms"][1]["margin"] == pytest.approx(0.04 - 0.005)


def test_what_cannot_be_measured_asks_no_further_rules() -> None:
    rules = judged(evaluation({"rows": 199})).findings
    assert {finding.measures for finding in rules} == {True}
    assert [finding.rule for finding in rules if not finding.holds] == ["enough test rows"]


def test_with_what_a_verdict_says_that_it_rests_on_the_rules_find_the_same_again() -> None:
    found = evaluation(champion={"rows": 500}, slices=(part("Web", 0.8, 0.95),))
    body = json.loads(json.dumps(judged(found, nth=2, doubts=(), held="a rollback holds").body()))
    policy, context = GatePolicy.model_validate(body["policy"]), Context(**body["context"])
    assert (policy, context) == (
        POLICY,
        Context("champion", nth=2, held="a rollback holds", doubts=context.doubts, live=context.live),
    )
    again = find(Measured.of(found, DOMAIN, policy), policy, context)
    assert [finding.body() for finding in again] == body["rules"]
    decision, reasons = conclude(again, policy, context)
    assert (decision, list(reasons)) == (body["decision"], body["reasons"])


@pytest.mark.parametrize(
    ("live", "decision"),
    [((0, 0, 0), "promote"), ((40, 6, 8), "promote"), ((40, 1, 12), "reject"), ((40, 12, 1), "promote")],
)
def test_a_loss_while_serving_beyond_chance_stands_against_it(live: tuple[int, int, int], decision: str) -> None:
    verdict = judged(evaluation(champion={"rows": 500}), live=live)
    assert verdict.decision == decision
    rows, ours, theirs = live
    said = f"of {rows} complaints that both answered while serving, {ours} are right only by the challenger, {theirs}"
    assert any(said in finding.sentence for finding in verdict.findings) == bool(rows)
    assert {name for name in verdict.numbers if name.startswith("live_")} == (
        {"live_rows", "live_only_challenger", "live_only_champion", "live_chance"} if rows else set()
    )
    assert (decision == "reject") == any(said in reason for reason in verdict.reasons if decision == "reject")


def test_a_verdict_is_strict_json() -> None:
    body = judged(evaluation({"accuracy": NAN})).body()
    assert json.loads(json.dumps(body, allow_nan=False))["numbers"]["challenger_accuracy"] is None


def test_challengers_of_a_reign_share_the_significance() -> None:
    found = evaluation(champion={"rows": 500}, pairs=((0, 0, 0, 430), (0, 0, 1, 25), (0, 1, 0, 10), (1, 1, 1, 35)))
    assert [judged(found, nth=nth).decision for nth in (1, 6)] == ["promote", "reject"]
    bodies = [judged(found, nth=1).body() | {"evaluation": name} for name in ("a", "b", "b", "e")]
    assert count_reign(bodies, found, "champion") == 3
    assert count_reign(bodies, found, "another") == 1
    assert count_reign([bodies[0] | {"decision": "inconclusive"}], found, "champion") == 1
    assert count_reign([bodies[0] | {"refit_of": "champion"}], found, "champion") == 1
    before = bodies[0] | {"champion": "former", "training_id": "champion"}
    assert count_reign([before, bodies[0] | {"training_id": "former"}], found, "champion") == 1
    # A challenger that replaced the champion, until a rollback, has met it.
    assert count_reign([bodies[0], before | {"champion": bodies[0]["training_id"]}], found, "champion") == 2


def test_a_harm_is_weighed_by_a_person_only_when_nothing_else_stands_against_it() -> None:
    harmed = (part("Web", 0.8, 0.95),)
    assert judged(evaluation(champion={"rows": 500}, slices=harmed)).decision == "awaiting-approval"
    assert judged(evaluation({"ece": 0.11}, champion={"rows": 500}, slices=harmed)).decision == "reject"
    equal = ((0, 0, 0, 460), (1, 1, 1, 40))
    assert judged(evaluation(champion={"rows": 500}, slices=harmed, pairs=equal)).decision == "reject"


def test_what_mistakes_cost_decides_whether_a_label_is_harmed() -> None:
    pairs = (*BETTER, (0, 0, 1, 80), (2, 2, 2, 200), (2, 3, 2, 8))
    found = evaluation({"rows": 788}, champion={"rows": 788}, pairs=pairs)
    costly = POLICY.model_copy(update={"costs": {"consumer_loan": {"credit_reporting": 20.0}}})
    assert decide(found, POLICY, DOMAIN, "champion").decision == "promote"
    assert decide(found, costly, DOMAIN, "champion").decision == "awaiting-approval"


def test_what_is_in_doubt_or_held_is_not_promoted() -> None:
    assert judged(evaluation()).decision == "promote"
    doubted = judged(evaluation(), doubts=("the ledger is gone",))
    assert (doubted.decision, doubted.reasons) == ("inconclusive", ("cannot measure: the ledger is gone",))
    held = judged(evaluation(), held="the rollback holds")
    assert (held.decision, held.reasons[0]) == ("awaiting-approval", "the rollback holds")
    assert judged(evaluation({"ece": 0.11}), held="the rollback holds").decision == "reject"


def refit(alike: int, only_ours: int, only_theirs: int, **changes: Any) -> Evaluation:
    """On so many reference rows that both get right, and that one of them does."""
    rows = alike + only_ours + only_theirs
    pairs = ((0, 0, 0, alike), (0, 0, 1, only_ours), (0, 1, 0, only_theirs))
    scores = {"challenger": (alike + only_ours) / rows, "champion": (alike + only_theirs) / rows}
    seen = Reference(rows=rows, only_challenger=only_ours, only_champion=only_theirs, **scores)
    found = evaluation({"rows": rows}, champion={"rows": rows}, pairs=pairs, reference=seen)
    return found.model_copy(update={"refit_of": "champion"} | changes)


@pytest.mark.parametrize(
    ("found", "decision", "reason"),
    [
        (refit(95, 3, 2), "promote", "it answers 0.9500 of them as version 7 does, of 0.8"),
        (refit(380, 10, 10), "promote", "on 400 reference rows accuracy is 0.0000 above the champion's"),
        (refit(360, 5, 35), "reject", "on 400 reference rows accuracy is 0.0750 below the champion's"),
        (refit(300, 60, 40), "reject", "it answers 0.7500 of them as version 7 does, of 0.8"),
        (refit(45, 2, 2), "inconclusive", "cannot measure: 49 reference rows, and at least 50 are needed"),
        (refit(95, 3, 2, reference=None), "inconclusive", "cannot measure: there are no reference rows"),
        (refit(95, 3, 2, golden=Golden(rows=8, max_difference=1e-3)), "inconclusive", "cannot measure: served and"),
        (refit(95, 3, 2, refit_of="another"), "inconclusive", "it was evaluated against champion, but the champion is"),
    ],
)
def test_a_refit_takes_the_place_of_what_was_evaluated_when_it_is_no_worse(
    found: Evaluation, decision: str, reason: str
) -> None:
    verdict = decide_refit(found, POLICY, DOMAIN, "2024-05-01")
    assert verdict.decision == decision
    assert any(reason in sentence for sentence in verdict.reasons)
    assert verdict.body()["refit_of"] == found.refit_of
    assert (verdict.champion, verdict.trained_to) == ("champion", "2024-05-01")


def test_a_refit_awaits_approval_where_all_do() -> None:
    policy = POLICY.model_copy(update={"approval": "required"})
    assert decide_refit(refit(95, 3, 2), policy, DOMAIN, "2024-05-01").decision == "awaiting-approval"


def test_the_gate_knows_a_refit_by_the_version_that_was_evaluated() -> None:
    found = evaluation(champion={"rows": 500})
    verdict = decide(found, POLICY, DOMAIN, "refit", refit_of="champion")
    assert (verdict.decision, verdict.champion) == ("promote", "refit")
    assert decide(found, POLICY, DOMAIN, "refit").decision == "inconclusive"
    itself = decide(evaluation(), POLICY, DOMAIN, "refit", refit_of="challenger")
    assert itself.decision == "unchanged"
