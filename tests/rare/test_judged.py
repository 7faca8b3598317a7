"""The gate where 97 of 100 rows are of one label: what is right on nearly all rows may still be worth nothing."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from assets.evaluation.evaluate import on_reference
from assets.evaluation.gate import decide, decide_refit
from assets.evaluation.metrics import label_scores
from assets.evaluation.report import Evaluation
from assets.evaluation.tables import labels_table, metrics_table
from assets.registry.model_card import model_card
from assets.registry.tracking import _tags
from assets.settings import Settings, load_domain
from pipelines.summary import _metrics, table

GATE = ("average_precision:abuse", "cost")


def test_the_domain_says_what_decides(settings: Settings, judged) -> None:
    assert settings.gate.decided_by == GATE
    found = judged(0, 3.0, 2.0)
    for metrics in found.contenders().values():
        assert set(metrics.others) == set(GATE)
    metrics = [row[0] for row in metrics_table(found, load_domain()).rows]
    assert metrics[:2] == ["average precision of Abuse", "cost"]


def test_a_better_model_replaces_the_champion_and_an_equal_one_does_not(settings: Settings, judged) -> None:
    """On 1,500 rows, of which some 45 are abuse."""
    better = [decide(judged(seed, 3.5, 2.0), settings.gate, load_domain(), "champion") for seed in range(6)]
    assert [verdict.decision for verdict in better] == ["promote"] * 6
    equal = [decide(judged(seed, 2.0, 2.0), settings.gate, load_domain(), "champion") for seed in range(12)]
    assert sum(verdict.decision == "promote" for verdict in equal) <= 1
    worse = [decide(judged(seed, 1.5, 2.5), settings.gate, load_domain(), "champion") for seed in range(6)]
    assert {verdict.decision for verdict in worse} == {"reject"}


def test_the_verdict_says_what_decided(settings: Settings, judged) -> None:
    verdict = decide(judged(0, 3.5, 2.0), settings.gate, load_domain(), "champion")
    reasons = "; ".join(verdict.reasons)
    assert "better by at least 0.02, beyond a chance of 0.025, in average precision of Abuse or cost" in reasons
    assert "below champion 1's" in reasons  # the cost: less is better
    assert "0.1 above is allowed" in reasons
    assert "accuracy is" not in reasons
    for name in ("challenger_cost", "baseline_average_precision:abuse", "gain_average_precision:abuse"):
        assert np.isfinite(verdict.numbers[name])


def test_who_finds_no_abuse_is_right_on_97_of_100_rows_and_is_rejected(settings: Settings, judged) -> None:
    blind = judged(0, 0.0, 0.0, baseline=0.0)
    assert blind.challenger.accuracy > 0.96
    verdict = decide(blind, settings.gate, load_domain(), "champion")
    assert verdict.decision == "reject"
    reasons = [reason for reason in verdict.reasons if "that of one answer to all rows" in reason]
    assert [reason.split(" 0.")[0] for reason in reasons] == ["average precision of Abuse", "cost"]


def test_few_rows_of_the_label_that_decides_cannot_tell(settings: Settings, judged) -> None:
    verdict = decide(judged(0, 3.5, 2.0, rows=300), settings.gate, load_domain(), "champion")
    assert verdict.decision == "inconclusive"
    assert any(reason.endswith("test rows of verdict Abuse, and at least 20 are needed") for reason in verdict.reasons)


def test_a_refit_that_agrees_on_all_that_is_fine_is_not_enough(settings: Settings, judged) -> None:
    """It answers 97 rows of 100 as the version does that was evaluated, and finds no abuse."""

    def refit(found: Evaluation) -> Evaluation:
        rival = found.champion
        assert rival is not None
        pairs = np.array(rival.pairs)
        truth, ours, theirs = (np.repeat(side, pairs[:, 3]) for side in pairs[:, :3].T)
        rows = pd.DataFrame({"label": np.array(found.labels)[truth]})
        seen = on_reference(rows, found.labels, {"challenger": np.eye(2)[ours], "champion": np.eye(2)[theirs]})
        return found.model_copy(update={"refit_of": rival.training_id, "reference": seen})

    blind, equal = (
        decide_refit(refit(judged(0, skill, 3.0)), settings.gate, load_domain(), "2024-05-01") for skill in (0.0, 3.0)
    )
    assert blind.decision == "reject"
    assert any("on 1500 reference rows average precision of Abuse is 0." in reason for reason in blind.reasons)
    assert equal.decision == "promote"


def test_the_table_of_labels_shows_what_an_error_over_all_rows_hides(judged) -> None:
    head, rows = labels_table(judged(0, 3.0, 2.0), load_domain())
    assert head[:3] == ["verdict", "test rows", "expected"]
    assert next(iter(rows))[0] == "Abuse"


@pytest.mark.parametrize(("overstated", "least"), [(1.0, 0.0), (3.0, 0.03)])
def test_a_rare_label_that_is_overstated_is_seen_in_its_own_calibration(overstated, least, judged, settings) -> None:
    dice = np.random.default_rng(0)
    abuse = np.minimum(dice.beta(1, 32, 20_000) * overstated, 1.0)
    truth = (dice.random(20_000) < abuse / overstated).astype(int)
    rare, _ = label_scores(truth, np.column_stack([1 - abuse, abuse]), ("fine", "abuse"), bins=15)
    assert rare.expected / rare.rows == pytest.approx(overstated, rel=0.15)
    assert least <= rare.ece < least + 0.04


def test_registry_and_page_name_what_decides(judged, tmp_path: Path) -> None:
    found = judged(0, 3.0, 2.0)
    (tmp_path / "MANIFEST.json").write_text("{}")
    tags = _tags(found, tmp_path, SimpleNamespace(model_id="m", tags={}))
    assert tags["average_precision.abuse"] == f"{found.challenger.value('average_precision:abuse'):.4f}"
    assert tags["cost"] == f"{found.challenger.value('cost'):.4f}"
    page = model_card(load_domain(), found, {"settings": {}}, {"loss_curve": []}, None, "run")
    assert "| average precision of Abuse | " in page
    assert "## Rarest verdicts" in page


def test_the_summary_of_a_run_names_what_decides(judged) -> None:
    found = judged(0, 3.0, 2.0)
    measured = {who: _metrics(metrics) for who, metrics in found.contenders().items()}
    summary = {
        "as_of": "2024-06-01",
        "records": {},
        "snapshot": {"id": "s", "train_rows": 1, "test_rows": 1},
        "challenger": {"version": "2", "metrics": measured.pop("challenger"), **measured},
        "verdict": {"decision": "promote", "reasons": []},
        "champion": {"version": "2"},
        "drift": {"detected": False, "share": None},
        "retraining": {"decision": "skip", "reason": ""},
        "checks": {"passed": 1, "warnings": []},
    }
    lines = table(summary, load_domain()).splitlines()
    head = next(place for place, line in enumerate(lines) if "average precision of Abuse" in line)
    assert lines[head].split("Abuse")[1].split() == ["cost", "accuracy", "macro-F1", "log", "loss", "ECE"]
    assert {len(line) for line in lines[head : head + 4]} == {len(lines[head])}
