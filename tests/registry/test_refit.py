"""A refit takes the place of the champion that it is one of; the gate goes on by the version that was evaluated."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assets.evaluation.evaluate import Champion
from assets.evaluation.report import Evaluation, Reference, write_evaluation
from assets.exceptions import RegistryError, SnapshotError, TrainingError
from assets.features.checks import Finding
from assets.home import Home
from assets.monitoring.champion import evaluated_rows
from assets.registry import refit as module
from assets.registry.ledger import Ledger
from assets.registry.rebuild import rebuild_registry
from assets.registry.refit import Refit, refit_champion
from assets.registry.registry import MODEL, Registry
from assets.registry.succession import Succession
from assets.registry.verification import verify
from assets.retention.needed import find_needed
from assets.settings import GatePolicy, Settings, load_settings

A, B, DAY = "a" * 16, "b" * 16, "2024-06-01"
REFIT_OF_A = "1" * 16
Promote = Callable[..., Any]


class Killed(BaseException):
    """As a kill does: nothing that follows runs."""


def never(command: list[str]) -> None:
    raise AssertionError(command)


@pytest.fixture
def settings(policy: GatePolicy) -> Settings:
    found = load_settings("full")
    assert found.training.cost.refit
    return found.model_copy(update={"gate": policy})


@pytest.fixture
def told(home: Home, bundle_of: Any, evaluation_of: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the trainings and the measurements of refits come to, and how many trainings there were."""
    world: dict[str, Any] = {"lost": 2, "reference_rows": 200, "trained": [], "faults": 0, "fails": None}
    snapshot = SimpleNamespace(id="6" * 16, as_of=DAY)

    def train(lake: Any, as_of: str, found: Any, recipe: Any, run: Any, publish: bool) -> Any:
        assert (as_of, found.id, publish) == (DAY, snapshot.id, False)
        if world["fails"]:
            raise world["fails"]
        training = hash_of(Registry(home).champion().training_id)
        path = lake.path(f"challenger/{DAY}", training)
        world["trained"].append(training)
        world["recipe"] = recipe
        return SimpleNamespace(path=path if path.exists() else bundle_of(training), report={"seconds": 1.5})

    def measure(lake: Any, as_of: str, found: Any, path: Path, beside: Champion, *_: Any) -> Evaluation:
        right = {"only_challenger": 2, "only_champion": world["lost"], "rows": 200}
        seen = Reference(challenger=0.85 + (2 - world["lost"]) / 200, champion=0.85, **right)
        version = Registry(home).version(beside.version)
        evaluation = evaluation_of(path.name, version, accuracy=0.851)
        facts = evaluation.snapshot.model_copy(update={"id": found.id, "test_rows": 0, "period": {"train": (DAY, DAY)}})
        changes = {"refit_of": beside.training_id, "reference": seen, "snapshot": facts}
        evaluation = evaluation.model_copy(update=changes)
        write_evaluation(evaluation, evaluation.folder(lake))
        return evaluation

    def freeze(found_home: Home, evaluated: Any) -> Any:
        return SimpleNamespace(**vars(snapshot), reference_rows=world["reference_rows"])

    def check(found_home: Home, found: Any) -> list[Finding]:
        return [Finding("no_overlap", 100, world["faults"], "train rows that test rows repeat")]

    for name, fake in (("train", train), ("evaluate_refit", measure), ("build_refit_set", freeze)):
        monkeypatch.setattr(module, name, fake)
    monkeypatch.setattr(module, "read_snapshot", lambda *_: None)
    monkeypatch.setattr(module, "check_training_set", check)
    return world


def hash_of(training: str) -> str:
    return {A: REFIT_OF_A, B: "2" * 16}[training]


def test_a_champion_is_refitted_once(home: Home, promoted: Promote, told: dict[str, Any], settings: Settings) -> None:
    promoted(A)
    found = refit_champion(home, settings, never)
    assert isinstance(found, Refit)
    registry = Registry(home)
    champion = registry.champion()
    assert (champion.training_id, champion.refit_of, champion.version) == (REFIT_OF_A, A, "2")
    assert registry.evaluated_champion().training_id == A
    assert registry.aliases() == {"challenger": "1", "champion": "2"}
    assert told["recipe"].optimizer.epochs == 1.0  # as the evaluated version's, not the profile's
    *_, verdict, move = Ledger(home.ledger).entries()
    assert (verdict.body["decision"], verdict.body["refit_of"], verdict.body["champion"]) == ("promote", A, A)
    assert (move.body["action"], move.body["previous"]["training_id"]) == ("refit", A)
    assert verify(registry).problem is registry.problem() is None
    assert refit_champion(home, settings, never) == "no champion is due for a refit"
    assert told["trained"] == [REFIT_OF_A]


def test_the_ledger_says_what_a_refit_is_of_whatever_mlflow_does(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    registry = Registry(home)
    registry.client.delete_model_version_tag(MODEL, "2", "refit_of")
    registry.client.set_model_version_tag(MODEL, "1", "refit_of", B)
    assert registry.champion().refit_of == A
    assert registry.evaluated_champion().training_id == A
    assert Succession(registry).due_refit() is None
    Succession(registry).rollback("1", "the refit misroutes mortgages")
    assert registry.evaluated_champion().training_id == A


def test_its_page_says_what_it_is(home: Home, promoted: Promote, told: dict[str, Any], settings: Settings) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    page = Registry(home).client.get_model_version(MODEL, "2").description
    for text in (f"This is a refit: training {A}, repeated", "## Quality on the reference rows", "champion 1"):
        assert text in page
    assert "This is a refit" not in Registry(home).client.get_model_version(MODEL, "1").description


def test_nothing_is_refitted_unless_it_is_asked_for(home: Home, promoted: Promote, told: dict[str, Any]) -> None:
    promoted(A)
    assert refit_champion(home, load_settings("quick"), never) == "training.cost.refit is false"
    assert told["trained"] == []


def test_there_is_nothing_to_refit_before_the_first_champion(home: Home, settings: Settings) -> None:
    assert refit_champion(home, settings, never) == "no champion is due for a refit"


def test_a_refit_that_is_worse_leaves_the_champion(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    told["lost"] = 40
    assert refit_champion(home, settings, never).verdict.decision == "reject"
    assert Registry(home).champion().training_id == A
    assert verify(Registry(home)).problem is None
    assert refit_champion(home, settings, never) == "no champion is due for a refit"


def test_too_few_reference_rows_spare_the_training(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    told["reference_rows"] = 49
    assert refit_champion(home, settings, never) == ("there are 49 reference rows, and a refit needs at least 50")
    assert told["trained"] == []


def test_rows_that_leak_are_not_learned_from(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    told["faults"] = 3
    with pytest.raises(SnapshotError, match=r"refit of version 1 is not sound: no_overlap: 3 of 100: train rows that"):
        refit_champion(home, settings, never)
    assert told["trained"] == []


def test_a_refit_that_fails_leaves_the_champion_and_is_tried_again(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    told["fails"] = TrainingError("out of memory")
    with pytest.raises(TrainingError):
        refit_champion(home, settings, never)
    assert Registry(home).champion().training_id == A
    told["fails"] = None
    assert refit_champion(home, settings, never).verdict.decision == "promote"


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (Registry, "register"),
        (Succession, "judge_refit"),
        (Succession, "_mark"),
        (Succession, "_move"),
        (Registry, "point"),
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_killed_between_two_steps_the_next_run_completes_it(
    where: type,
    what: str,
    after: bool,
    home: Home,
    promoted: Promote,
    told: dict[str, Any],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promoted(A)
    done = getattr(where, what)

    def killed(*arguments: Any, **named: Any) -> None:
        if after:
            done(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(where, what, killed)
        with pytest.raises(Killed):
            refit_champion(home, settings, never)
    refit_champion(home, settings, never)
    registry = Registry(home)
    assert registry.champion().training_id == REFIT_OF_A
    assert registry.aliases()["champion"] == "2"
    assert [version.training_id for version in registry.versions()] == [A, REFIT_OF_A]
    acts = [
        (entry.kind, entry.body.get("action", entry.body["decision"] if entry.kind == "verdict" else ""))
        for entry in Ledger(home.ledger).entries()
    ]
    assert acts == [("verdict", "promote"), ("alias", "promote"), ("verdict", "promote"), ("alias", "refit")]
    assert verify(registry).problem is registry.problem() is None


def test_the_next_challenger_is_judged_beside_the_version_that_was_evaluated(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings, evaluation_of: Any, policy: GatePolicy
) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    again = evaluation_of(A)
    assert Succession(Registry(home)).judge("1", again, policy).decision == "unchanged"
    version, verdict = promoted(B, trained_to="2024-06-02")
    assert (verdict.decision, verdict.champion, version.version) == ("promote", REFIT_OF_A, "3")
    assert Registry(home).champion().training_id == B
    assert refit_champion(home, settings, never).version.training_id == "2" * 16
    assert verify(Registry(home)).problem is None


def test_a_rollback_to_the_version_that_was_evaluated_holds(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    Succession(Registry(home)).rollback("1", "the refit misroutes mortgages")
    assert Registry(home).champion().training_id == A
    assert refit_champion(home, settings, never) == "no champion is due for a refit"
    assert Succession(Registry(home)).rollback("2", "it does not").training_id == REFIT_OF_A
    assert verify(Registry(home)).problem is Registry(home).problem() is None


def test_a_refit_awaits_approval_where_all_do(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings, policy: GatePolicy
) -> None:
    promoted(A)
    strict = settings.model_copy(update={"gate": policy.model_copy(update={"approval": "required"})})
    assert refit_champion(home, strict, never).verdict.decision == "awaiting-approval"
    assert Registry(home).champion().training_id == A
    Succession(Registry(home)).settle("2", "approve", "Ada", "looks right")
    assert Registry(home).champion().training_id == REFIT_OF_A
    assert refit_champion(home, strict, never) == "no champion is due for a refit"
    assert verify(Registry(home)).problem is None


def test_both_come_back_when_mlflow_is_made_anew(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings, empty_database: Path
) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    (home.mlflow / "mlflow.db").write_bytes(empty_database.read_bytes())
    rebuilt = rebuild_registry(home)
    assert [(version.version, version.training_id) for version in rebuilt.versions] == [("1", A), ("2", REFIT_OF_A)]
    assert Registry(home).champion().refit_of == A
    assert Registry(home).aliases() == {"challenger": "1", "champion": "2"}
    assert verify(Registry(home)).problem is Registry(home).problem() is None


def test_the_gate_says_what_it_lacks_when_the_version_that_was_evaluated_is_gone(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    Registry(home).client.delete_model_version(MODEL, "1")
    with pytest.raises(RegistryError, match=f"training {A} of {DAY}, is not in MLflow .*rebuild-registry"):
        Registry(home).evaluated_champion()


def test_the_version_that_was_evaluated_is_kept_for_the_gate(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    sparing = settings.retention.model_copy(update={"rollbacks": 0, "trainings": 1, "reproducible": 0})
    assert find_needed(Registry(home), sparing).bundles == {A, REFIT_OF_A}


def test_a_refit_of_another_version_than_the_champion_is_unlawful(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    promoted(A)
    refit_champion(home, settings, never)
    promoted(B, trained_to="2024-06-02")
    ledger = Ledger(home.ledger)
    about = {"version": "9", "training_id": "9" * 16, "manifest_sha256": None}
    ledger.append("verdict", "x", DAY, about | {"decision": "promote", "champion": B, "refit_of": A, "evaluation": "e"})
    previous = {"version": "3", "training_id": B}
    ledger.append("alias", "x", DAY, about | {"action": "refit", "previous": previous})
    assert "it is a refit of another version than the champion" in Registry(home).ledger_problem()


def test_what_watches_it_goes_by_the_evaluation_of_the_version_that_was_evaluated(
    home: Home, promoted: Promote, told: dict[str, Any], settings: Settings
) -> None:
    import pandas as pd

    promoted(A)
    refit_champion(home, settings, never)
    champion, evaluated = Registry(home).champion(), Registry(home).version("1")
    for number, version in enumerate((champion, evaluated)):
        folder = home.lake.path(f"evaluation/{DAY}", version.tags["evaluation"])
        rows = pd.DataFrame({"record_id": [str(number)], "known_at": [pd.Timestamp(DAY)], "label": ["cards"]})
        rows.assign(predicted="cards", confidence=0.9).to_parquet(folder / "predictions.parquet")
    for version in (champion, evaluated):
        assert evaluated_rows(home.lake, version)["record_id"].tolist() == ["1"]
    assert json.loads(
        (home.lake.path(f"evaluation/{DAY}", champion.tags["evaluation"]) / "evaluation.json").read_text()
    )
