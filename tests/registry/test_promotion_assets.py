"""The three assets from a trained bundle to a champion, run by Dagster on a small snapshot and a fake model."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.evaluation import evaluate as module
from assets.evaluation.definitions import challenger_evaluation
from assets.evaluation.pictures import PICTURES
from assets.exceptions import TrainingError
from assets.home import Home
from assets.registry import refit as refits
from assets.registry.definitions import champion, refit, registered_model
from assets.registry.judgement import load_verdict
from assets.registry.ledger import Ledger
from assets.registry.registry import Registry
from assets.resources import Evergreen
from assets.scoring import parity
from assets.scoring.definitions import served_as_trained
from assets.scoring.parity import Parity
from assets.settings import load_domain
from assets.training import bundle

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

DAY, A, B = "2024-06-01", "a" * 16, "b" * 16


class OneNumber:
    """Right for a share of the rows that its own id carries."""

    features, labels = ("x",), LABELS

    def __init__(self, path: Path, share: float, off: float) -> None:
        self.id, self.share, self.off = json.loads((path / "provenance.json").read_text())["training_id"], share, off

    def predict_proba(self, rows: pd.DataFrame, batch_rows: int = 64) -> np.ndarray:
        answers = np.full((len(rows), len(LABELS)), 0.01) + self.off
        right = rows["x"].to_numpy() < self.share
        codes = np.array([LABELS.index(label) for label in rows["label"]])
        answers[np.arange(len(rows)), np.where(right, codes, (codes + 1) % len(LABELS))] = 0.92
        return answers


@pytest.fixture
def snapshot(home: Home) -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"record_id": [str(i) for i in range(600)], "label": random.choice(LABELS, 600)})
    rows["known_at"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(600) // 6, unit="D")
    rows["text"] = np.where(random.random(600) < 0.5, rows["label"], "no hint at all")
    rows[["company", "state", "tags", "channel"]] = ["acme", "CA", None, "Web"]
    rows["x"] = np.linspace(0, 1, 600) * 7919 % 1
    manifest = {
        "snapshot_id": "5" * 16,
        "as_of": DAY,
        "train_rows": 300,
        "test_rows": 300,
        "reference_rows": 0,
        "features": ["x"],
        "domain": DOMAIN.model_dump(mode="json"),
    }
    manifest["period"] = {"train": ["2024-01-01", "2024-02-19"], "test": ["2024-02-20", "2024-04-09"]}
    with home.lake.staging(f"training_set/{DAY}") as staged:
        rows[:300][rows["label"][:300] != "student_loan"].to_parquet(staged / "train.parquet")
        rows[300:].to_parquet(staged / "test.parquet")
        rows[:0].to_parquet(staged / "reference.parquet")
        (staged / "manifest.json").write_text(json.dumps(manifest))
        home.lake.publish(f"training_set/{DAY}", "5" * 16, staged)


@pytest.fixture
def run(home: Home, snapshot: None, bundle_of, monkeypatch: pytest.MonkeyPatch):
    """Publish a bundle that is right for a share of rows, and materialize what follows it."""
    shares: dict[str, float] = {}
    wobble = {"by": 0.0, "at": 0.0}

    def load(path: Path) -> OneNumber:
        wobble["at"] += wobble["by"]
        training_id = json.loads((path / "provenance.json").read_text())["training_id"]
        return OneNumber(path, shares[training_id], wobble["at"])

    monkeypatch.setattr(module, "load_bundle", load)
    monkeypatch.setattr(bundle, "load_bundle", lambda path: path)

    def materialize(
        training_id: str, share: float, wobbling: float = 0.0, drifted: float = 0.0
    ) -> dg.ExecuteInProcessResult:
        shares[training_id], wobble["by"] = share, wobbling
        monkeypatch.setattr(parity, "measure_parity", lambda *_: Parity(100, 0, drifted))
        if not home.lake.path(f"challenger/{DAY}", training_id).exists():
            bundle_of(training_id)
        (home.lake.root / "challenger" / DAY / "CURRENT").write_text(training_id)
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("as_of", [DAY])
            return dg.materialize(
                [challenger_evaluation, registered_model, served_as_trained, champion],
                partition_key=DAY,
                resources={"evergreen": Evergreen(profile="quick")},
                instance=instance,
                raise_on_error=False,
            )

    return materialize


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def test_a_good_challenger_is_measured_registered_and_promoted(home: Home, run, shown) -> None:
    result = run(A, 0.9)
    assert result.success
    evaluated = metadata(result, "challenger_evaluation")
    assert evaluated["accuracy"] == pytest.approx(0.9, abs=0.02)
    assert shown(evaluated["metrics"])[0] == ["metric", "challenger", "baseline"]
    for picture, file in PICTURES.items():
        address = re.fullmatch(
            rf"!\[{picture}\]\(/pictures/(challenger_evaluation/{DAY}/\w{{16}}\.png)\)", evaluated[picture]
        )
        assert (home.pictures / address[1]).read_bytes() == next(
            home.lake.root.glob(f"evaluation/*/*/{file}")
        ).read_bytes()
    assert "queue Cards" in [row[0] for row in shown(evaluated["slices"])]
    assert ["Student loan", 0] in shown(evaluated["labels with few training rows"])
    assert metadata(result, "registered_model")["page"].endswith(
        "/#/models/text-classifier/versions/1?workflowType=machine_learning"
    )
    assert metadata(result, "champion")["decision"] == "promote"
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert Registry(home).champion().training_id == A
    assert result.run_id in Registry(home).tracking.client.get_model_version("text-classifier", "1").description


def test_a_second_run_changes_nothing_and_says_why(home: Home, run) -> None:
    run(A, 0.9)
    before = Ledger(home.ledger).entries(), Registry(home).versions(), home.lake.version(f"evaluation/{DAY}")
    result = run(A, 0.9)
    assert result.success
    assert metadata(result, "champion")["decision"] == load_verdict(home.lake, DAY)["decision"] == "unchanged"
    assert (Ledger(home.ledger).entries(), Registry(home).versions(), home.lake.version(f"evaluation/{DAY}")) == before


def test_a_worse_challenger_is_rejected_and_the_run_is_fine(home: Home, run) -> None:
    run(A, 0.9)
    result = run(B, 0.85)
    assert result.success
    assert metadata(result, "champion")["decision"] == load_verdict(home.lake, DAY)["decision"] == "reject"
    assert Registry(home).champion().training_id == A
    assert Registry(home).challenger().training_id == B


def test_a_bundle_that_answers_otherwise_when_served_stops_the_graph(home: Home, run) -> None:
    result = run(A, 0.9, wobbling=1e-3)
    assert not result.success
    assert [check.passed for check in result.get_asset_check_evaluations()] == [False]
    assert Registry(home).versions() == []


def failed(result: dg.ExecuteInProcessResult) -> list[str]:
    return [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]


def test_a_version_that_is_served_other_features_than_it_was_trained_on_is_not_promoted(home: Home, run) -> None:
    result = run(A, 0.9, drifted=1e-3)
    assert not result.success
    assert failed(result) == ["served_as_trained"]
    assert [version.training_id for version in Registry(home).versions()] == [A]
    assert Registry(home).champion() is None
    assert Registry(home).aliases() == {"challenger": "1"}
    assert run(A, 0.9).success
    assert Registry(home).champion().training_id == A


def test_a_champion_whose_files_were_edited_stops_the_graph(home: Home, run) -> None:
    run(A, 0.9)
    for copy in home.root.rglob("config.json"):
        copy.write_text("other settings")
    result = run(B, 0.85)
    assert not result.success


def test_an_edited_ledger_shows_in_the_graph(home: Home, run) -> None:
    run(A, 0.9)
    with sqlite3.connect(home.ledger) as connection:
        connection.execute("drop trigger entries_are_not_updated")
        connection.execute("update entries set as_of = '2024-01-01' where seq = 1")
    connection.close()
    result = run(B, 0.95)
    assert not result.success
    assert failed(result) == ["alias_is_evaluated", "ledger_is_as_written"]
    assert metadata(result, "champion")["decision"] == load_verdict(home.lake, DAY)["decision"] == "inconclusive"
    assert Registry(home).aliases()["champion"] == "1"


def test_a_lost_ledger_stops_the_graph_and_leaves_the_champion(home: Home, run) -> None:
    run(A, 0.9)
    home.ledger.unlink()
    result = run(B, 0.95)
    assert not result.success
    assert load_verdict(home.lake, DAY)["decision"] == "inconclusive"
    assert "the ledger is gone" in load_verdict(home.lake, DAY)["reasons"][0]
    assert Registry(home).aliases()["champion"] == "1"


def refitted() -> dg.ExecuteInProcessResult:
    return dg.materialize([refit], resources={"evergreen": Evergreen(profile="quick")})


def test_a_profile_without_refits_says_so(home: Home) -> None:
    result = refitted()
    assert metadata(result, "refit") == {"decision": "none", "reason": "training.cost.refit is false"}
    assert failed(result) == []


def test_a_refit_that_fails_warns_and_stops_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("out of memory")

    monkeypatch.setattr(refits, "refit_champion", fail)
    result = refitted()
    assert result.success
    assert failed(result) == ["refit_is_settled"]
    assert [check.severity for check in result.get_asset_check_evaluations()] == [dg.AssetCheckSeverity.WARN]
    assert metadata(result, "refit")["reason"].endswith("the next run tries again: out of memory")
