"""A version is what the ledger's training and manifest hash say: MLflow can be lost, and none takes another's place."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.exceptions import BundleError, RegistryError
from assets.home import Home
from assets.registry.rebuild import rebuild_registry
from assets.registry.registry import MODEL, Registry
from assets.registry.succession import Succession
from assets.registry.verification import verify
from assets.settings import GatePolicy

A, B, C = "a" * 16, "b" * 16, "c" * 16
DAY = "2024-06-01"
Promote = Callable[..., Any]


@pytest.fixture
def lose_mlflow(home: Home, empty_database: Path) -> Callable[[], None]:
    def lose() -> None:
        shutil.copy(empty_database, home.mlflow)
        shutil.rmtree(home.mlflow / "artifacts")

    return lose


def test_the_version_that_takes_a_lost_champions_number_does_not_answer(
    home: Home, promoted: Promote, lose_mlflow: Callable[[], None], bundle_of: Any, evaluation_of: Any, policy: Any
) -> None:
    champion, _ = promoted(A)
    lose_mlflow()
    evaluation = evaluation_of(B)
    stranger = Registry(home).register(bundle_of(B), evaluation)
    assert stranger.version == champion.version == "1"
    message = f"the champion, training {A} of {DAY}, is not in MLflow .*evergreen rebuild-registry"
    with pytest.raises(RegistryError, match=message):
        Registry(home).champion()
    with pytest.raises(RegistryError, match=message):
        Succession(Registry(home)).judge(stranger.version, evaluation, policy)
    assert Registry(home).problem() is not None
    (rebuilt,) = [version for version in rebuild_registry(home).versions if version.training_id == A]
    assert Registry(home).champion() == rebuilt
    assert Registry(home).aliases()["champion"] == rebuilt.version == "2"
    assert Registry(home).problem() is verify(Registry(home)).problem is None


def test_mlflow_is_made_anew_with_the_numbers_it_had(
    home: Home,
    promoted: Promote,
    lose_mlflow: Callable[[], None],
    bundle_of: Any,
    evaluation_of: Any,
    policy: GatePolicy,
) -> None:
    promoted(A)
    Registry(home).register(bundle_of("d" * 16), evaluation_of("d" * 16))  # never judged: the ledger does not know it
    promoted(B)
    worse = evaluation_of(C, Registry(home).champion(), accuracy=0.8)
    Succession(Registry(home)).judge(Registry(home).register(bundle_of(C), worse).version, worse, policy)
    Succession(Registry(home)).rollback("1", "version 3 misroutes mortgages")
    before = {version.version: version for version in Registry(home).versions() if version.training_id != "d" * 16}
    lose_mlflow()
    for _ in range(2):
        rebuilt = rebuild_registry(home)
        assert rebuilt.left_out == ()
        assert {version.version: version.training_id for version in rebuilt.versions} == {"1": A, "3": B, "4": C}
    after = Registry(home)
    assert after.champion() == after.version("1")
    assert after.aliases() == {"champion": "1", "challenger": "4"}
    kept = ("training_id", "manifest_sha256", "evaluation", "verdict", "ledger_hash")
    for number, version in before.items():
        assert {name: after.version(number).tags[name] for name in kept} == {name: version.tags[name] for name in kept}
    assert after.problem() is verify(after).problem is None
    assert Succession(after).rollback("3", "it was the data").training_id == B


def test_a_deleted_champion_can_be_rolled_back_from_and_made_again(home: Home, promoted: Promote) -> None:
    promoted(A)
    promoted(B)
    Registry(home).client.delete_model_version(MODEL, "2")
    with pytest.raises(RegistryError, match="rebuild-registry"):
        Registry(home).champion()
    assert Succession(Registry(home)).rollback("1", "2 was deleted").version == "1"
    assert Registry(home).champion() == Registry(home).version("1")
    assert [version.training_id for version in rebuild_registry(home).versions] == [A, B]
    assert Registry(home).champion() == Registry(home).version("1")
    assert Registry(home).problem() is None


def test_what_the_lake_lacks_is_named(home: Home, promoted: Promote, lose_mlflow: Callable[[], None]) -> None:
    promoted(A)
    promoted(B)
    lose_mlflow()
    shutil.rmtree(home.lake.path(f"challenger/{DAY}", A))
    rebuilt = rebuild_registry(home)
    assert [version.training_id for version in rebuilt.versions] == [B]
    assert rebuilt.left_out == (f"training {A} of {DAY}: its bundle is not in the lake",)
    assert Registry(home).champion() == Registry(home).version("2")


def test_without_the_champions_bundle_nothing_answers(
    home: Home, promoted: Promote, lose_mlflow: Callable[[], None]
) -> None:
    promoted(A)
    lose_mlflow()
    bundle = home.lake.path(f"challenger/{DAY}", A)
    (bundle / "config.json").write_text("other settings")
    with pytest.raises(BundleError, match=r"config\.json is not the file that was written"):
        rebuild_registry(home)
    shutil.rmtree(bundle)
    with pytest.raises(RegistryError, match=f"the champion, training {A} of {DAY}"):
        rebuild_registry(home)


def test_other_files_of_the_same_training_are_not_the_champion(home: Home, promoted: Promote) -> None:
    promoted(A)
    Registry(home).client.set_model_version_tag(MODEL, "1", "manifest_sha256", "0" * 64)
    with pytest.raises(RegistryError, match=f"the champion, training {A} of {DAY}, is not in MLflow"):
        Registry(home).champion()


def test_a_rebuild_needs_the_ledger(home: Home, promoted: Promote, lose_mlflow: Callable[[], None]) -> None:
    promoted(A)
    lose_mlflow()
    home.ledger.unlink()
    with pytest.raises(RegistryError, match="the ledger is gone"):
        rebuild_registry(home)
    with pytest.raises(RegistryError, match=r"the ledger of .* holds no verdict"):
        rebuild_registry(Home(home.root / "bare"))
