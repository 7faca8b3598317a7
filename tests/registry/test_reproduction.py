"""The verdicts of `evergreen reproduce`, with trainings that come out as they are told to."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.exceptions import NotPublished, RegistryError
from assets.home import Home
from assets.registry import reproduction
from assets.registry.registry import Registry
from assets.registry.reproduction import reproduce
from assets.registry.shared_ledger import ledger_of
from assets.settings import load_domain

LABELS = tuple(load_domain().labels)

A, DAY = "a" * 16, "2024-06-01"


def never(command: list[str]) -> None:
    raise AssertionError(command)


@pytest.fixture
def world(
    home: Home, tmp_path: Path, bundle_of: Any, evaluation_of: Any, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Version 1, its training set and its marts; what is set here comes out when it is made again."""
    Registry(home).register(bundle_of(A), evaluation_of(A))
    home.lake.path("marts", "m1").mkdir(parents=True)
    told: dict[str, Any] = {"snapshot": "5" * 16, "weights": None, "provenance": {}, "accuracy": 0.9}
    test = pd.DataFrame({"label": ["cards"] * 100})
    recorded = SimpleNamespace(id="5" * 16, as_of=DAY, manifest={"marts": "m1"}, holds_out=True, test=lambda: test)

    def rebuild(scratch: Home, found: Any, marts: Path) -> Any:
        assert (scratch.root, found, marts.name) != (home.root, None, None)
        return SimpleNamespace(id=told["snapshot"])

    def train(*_: Any) -> Any:
        again = tmp_path / "again"
        shutil.copytree(Registry(home).fetch("1"), again)
        if told["weights"]:
            (again / "model.safetensors").write_text(told["weights"])
        provenance = json.loads((again / "provenance.json").read_text()) | told["provenance"]
        (again / "provenance.json").write_text(json.dumps(provenance))
        return SimpleNamespace(path=again)

    def load(path: Path) -> Any:
        right = round(100 * (told["accuracy"] if path.name == "again" else 0.9))
        chosen = np.where(np.arange(100) < right, LABELS.index("cards"), 0)
        return SimpleNamespace(labels=LABELS, predict_proba=lambda rows: np.eye(len(LABELS))[chosen[: len(rows)]])

    monkeypatch.setattr(reproduction, "read_snapshot", lambda *_: recorded)
    monkeypatch.setattr(reproduction, "rebuild_training_set", rebuild)
    monkeypatch.setattr(reproduction, "train", train)
    monkeypatch.setattr(reproduction, "load_bundle", load)
    return told


@pytest.mark.parametrize(
    ("told", "verdict", "reason"),
    [
        ({}, "bitwise", "the same training set and the same weights"),
        ({"provenance": {"code": "another"}}, "bitwise", "the same training set and the same weights"),
        ({"snapshot": "6" * 16}, "changed", "data: its training set is 5555555555555555, and now comes to 6666666666"),
        ({"weights": "x"}, "equivalent", "nothing that is recorded differs"),
        ({"weights": "x", "accuracy": 0.8}, "changed", "weights differ; metrics by 0.1"),
        ({"weights": "x", "provenance": {"device": "H200"}}, "equivalent", "hardware: x86_64, now H200"),
        ({"weights": "x", "provenance": {"code": "another"}}, "changed", "code: c0de, now another"),
        ({"weights": "x", "provenance": {"software": {"torch": "3"}}}, "changed", "packages: {'torch': '2'}, now"),
    ],
)
def test_what_comes_out_is_graded(
    home: Home, world: dict[str, Any], told: dict[str, Any], verdict: str, reason: str
) -> None:
    world |= told
    found = reproduce(home, "1", never)
    assert found.verdict == verdict
    assert reason in found.reason
    assert found.succeeded == (verdict in ("bitwise", "equivalent"))


def test_without_its_marts_it_is_impossible(home: Home, world: dict[str, Any]) -> None:
    assert world
    home.lake.path("marts", "m1").rmdir()
    found = reproduce(home, "1", never)
    assert (found.verdict, found.succeeded) == ("impossible", False)
    assert found.reason == "marts m1, behind its training set, are gone"


def test_what_was_removed_is_named_with_its_setting(home: Home, world: dict[str, Any]) -> None:
    assert world
    home.lake.path("marts", "m1").rmdir()
    removed = {"publications": {"names": ["lake/marts/m1"]}}
    ledger_of(home).append("prune", "1", "2024-07-01", {"removed": removed, "reason": "1 by publications"})
    found = reproduce(home, "1", never)
    assert found.verdict == "impossible"
    assert found.reason == (
        "marts/m1, which it was built from, is gone: `evergreen prune` removed it on 2024-07-01 (reproducible in "
        "configs/retention.yaml)"
    )


def test_without_its_training_set_it_is_impossible(
    home: Home, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world

    def gone(*_: Any) -> None:
        raise NotPublished("training_set/2024-06-01 has no version 5 in this home")

    monkeypatch.setattr(reproduction, "read_snapshot", gone)
    assert reproduce(home, "1", never).reason == "training_set/2024-06-01 has no version 5 in this home"


def test_an_unknown_version_is_a_mistake(home: Home, world: dict[str, Any]) -> None:
    assert world
    with pytest.raises(RegistryError, match="has no version '7'"):
        reproduce(home, "7", never)
