"""What the policy promises of models is kept by `evergreen prune`; what it gave up is named with its setting."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.exceptions import BundleError, RegistryError
from assets.home import Home
from assets.registry.rebuild import rebuild_registry
from assets.registry.registry import Registry
from assets.registry.succession import Succession
from assets.registry.verification import verify
from assets.retention.prune import prune
from assets.settings import GatePolicy, RetentionSettings, load_settings

A, B, C, D, E, F = (letter * 16 for letter in "abcdef")
DAY = "2024-06-01"
Promote = Callable[..., Any]


@pytest.fixture
def retention() -> RetentionSettings:
    few = {"trainings": 1, "rollbacks": 1, "reproducible": 1, "days": 1, "publications": 1}
    return load_settings("quick").retention.model_copy(update=few)


@pytest.fixture
def pruned(
    home: Home,
    promoted: Promote,
    bundle_of: Any,
    evaluation_of: Any,
    policy: GatePolicy,
    retention: RetentionSettings,
    lose_mlflow: Callable[[], None],
) -> Home:
    """A, B and C were champions in turn, D awaits approval, E and F were rejected; then all went that may."""
    for training in (A, B, C):
        promoted(training)
    for training, accuracy, approval in ((D, 0.9, "required"), (E, 0.8, "automatic"), (F, 0.8, "automatic")):
        evaluation = evaluation_of(training, Registry(home).champion(), accuracy=accuracy)
        version = Registry(home).register(bundle_of(training), evaluation).version
        Succession(Registry(home)).judge(version, evaluation, policy.model_copy(update={"approval": approval}))
    prune(home, retention, now=True)
    return home


@pytest.fixture
def lose_mlflow(home: Home, empty_database: Path) -> Callable[[], None]:
    def lose() -> None:
        shutil.copy(empty_database, home.mlflow)
        shutil.rmtree(home.mlflow / "artifacts", ignore_errors=True)

    return lose


def bundles(home: Home) -> set[str]:
    return {path.parent.name for path in home.lake.root.glob("challenger/*/*/MANIFEST.json")}


def test_the_champion_those_before_it_and_those_that_wait_stay(pruned: Home) -> None:
    registry = Registry(pruned)
    assert bundles(pruned) == {B, C, D, F}
    copies = {path.read_text() for path in pruned.mlflow.rglob("config.json")}
    assert copies == {f'{{"of": "{training}"}}' for training in (B, C, D, F)}
    assert registry.problem() is verify(registry).problem is None
    assert verify(registry).evaluations == 6, "what verdicts rest on stays"
    succession = Succession(registry)
    champion = succession.settle("4", "approve", "Ada", "looks right")
    assert champion is not None
    assert champion.training_id == D
    assert succession.rollback("3", "it misroutes mortgages").training_id == C
    gone = f"`evergreen prune` removed it on {DAY} (rollbacks and trainings in configs/retention.yaml)"
    with pytest.raises(BundleError) as refused:
        succession.rollback("1", "the first was the best")
    assert str(refused.value) == f"the bundle of version 1 is gone: {gone}"


def test_mlflow_is_made_anew_of_what_stays(pruned: Home, lose_mlflow: Callable[[], None]) -> None:
    lose_mlflow()
    rebuilt = rebuild_registry(pruned)
    assert {version.version: version.training_id for version in rebuilt.versions} == {"2": B, "3": C, "4": D, "6": F}
    removed = f"`evergreen prune` removed it on {DAY} (trainings in configs/retention.yaml)"
    assert rebuilt.left_out == tuple(
        f"training {training} of {DAY}: its bundle is not in the lake: {removed}" for training in (A, E)
    )
    registry = Registry(pruned)
    assert registry.problem() is verify(registry).problem is None
    assert Succession(registry).rollback("2", "the one before").training_id == B


def test_nothing_goes_while_nobody_can_tell_what_is_needed(
    pruned: Home, retention: RetentionSettings, lose_mlflow: Callable[[], None]
) -> None:
    before = bundles(pruned)
    lose_mlflow()
    with pytest.raises(RegistryError, match=r"the champion, .* is not in MLflow"):
        prune(pruned, retention, now=True)
    pruned.ledger.unlink()
    with pytest.raises(RegistryError, match="the ledger is not as it was written"):
        prune(pruned, retention, now=True)
    assert bundles(pruned) == before


def test_what_a_version_was_registered_with_stays(
    home: Home, promoted: Promote, evaluation_of: Any, retention: RetentionSettings
) -> None:
    """Its golden rows are answered again before anything is scored."""
    promoted(A)
    again, other = (evaluation_of(A, accuracy=accuracy) for accuracy in (0.91, 0.92))
    bundle = home.lake.path(f"challenger/{DAY}", A)
    Registry(home).register(bundle, again)
    prune(home, retention, now=True)
    assert again.folder(home.lake).exists()
    assert not other.folder(home.lake).exists()


def test_old_trainings_that_nobody_judged_take_no_place(
    home: Home, promoted: Promote, bundle_of: Any, retention: RetentionSettings
) -> None:
    for training in (A, B, C):
        promoted(training)
    unjudged = bundle_of(D)
    provenance = json.loads((unjudged / "provenance.json").read_text())
    (unjudged / "provenance.json").write_text(json.dumps(provenance | {"as_of": "2024-05-01"}))
    prune(home, retention.model_copy(update={"trainings": 3}), now=True)
    assert bundles(home) == {A, B, C}


def test_what_never_waits_any_more_may_go(
    home: Home, promoted: Promote, bundle_of: Any, evaluation_of: Any, policy: GatePolicy, retention: RetentionSettings
) -> None:
    """Its time is over, by the day of a later entry."""
    promoted(A)
    evaluation = evaluation_of(B, Registry(home).champion())
    version = Registry(home).register(bundle_of(B), evaluation).version
    required = policy.model_copy(update={"approval": "required", "approval_days": 10})
    Succession(Registry(home)).judge(version, evaluation, required)
    later = evaluation_of(C, Registry(home).champion(), accuracy=0.8, as_of="2024-06-12")
    Succession(Registry(home)).judge(Registry(home).register(bundle_of(C), later).version, later, policy)
    prune(home, retention, now=True)
    assert bundles(home) == {A, C}
