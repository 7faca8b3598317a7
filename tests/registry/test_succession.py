"""Approvals by people, twins of what was rolled back, and aliases that were moved by hand."""

from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from assets.evaluation.gate import Verdict
from assets.evaluation.report import Evaluation
from assets.exceptions import RegistryError
from assets.home import Home
from assets.registry.registry import MODEL, RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.settings import GatePolicy, load_domain

A, B, C = "a" * 16, "b" * 16, "c" * 16
DAY, LATER = "2024-06-01", "2024-06-02"
Promote = Callable[..., tuple[RegisteredVersion, Verdict]]


@pytest.fixture
def succession(home: Home) -> Succession:
    return Succession(Registry(home))


@pytest.fixture
def client(home: Home) -> MlflowClient:
    uri = f"sqlite:///{home.mlflow / 'mlflow.db'}"
    return MlflowClient(uri, uri)


def alias(client: MlflowClient) -> str | None:
    named = client.get_registered_model(MODEL).aliases.get("champion")
    return str(named) if named else None


def kinds(home: Home) -> list[str]:
    return [entry.kind for entry in Registry(home).ledger.entries()]


@pytest.fixture
def waiting(home: Home, promoted: Promote, policy: GatePolicy, bundle_of: Any, evaluation_of: Any) -> Evaluation:
    """The evaluation of version 2, better than champion 1, which awaits approval."""
    champion, _ = promoted(A)
    evaluation: Evaluation = evaluation_of(B, champion)
    Registry(home).register(bundle_of(B), evaluation)
    required = policy.model_copy(update={"approval": "required"})
    assert Succession(Registry(home)).judge("2", evaluation, required).decision == "awaiting-approval"
    return evaluation


@pytest.mark.usefixtures("waiting")
def test_what_awaits_approval_is_not_champion(home: Home, client: MlflowClient) -> None:
    assert alias(client) == "1"
    assert kinds(home)[-1] == "verdict"


@pytest.mark.usefixtures("waiting")
def test_an_approval_makes_the_champion_once(home: Home, succession: Succession, client: MlflowClient) -> None:
    for _ in range(2):
        assert succession.settle("2", "approve", "Ada", "looks right").version == "2"
    assert alias(client) == "2"
    assert kinds(home)[-2:] == ["approval", "alias"]
    assert Registry(home).ledger.entries()[-1].body["reason"] == "approved by Ada: looks right"


@pytest.mark.usefixtures("waiting")
def test_a_rejection_leaves_the_champion_and_is_final(home: Home, succession: Succession, client: MlflowClient) -> None:
    assert succession.settle("2", "reject", "Ada", "mortgages look odd").version == "1"
    with pytest.raises(RegistryError, match="version 2 is already settled: reject by Ada: mortgages look odd"):
        succession.settle("2", "approve", "Bob", "no, they do not")
    assert alias(client) == "1"
    assert kinds(home)[-1] == "approval"


def test_a_rejection_before_the_first_champion_leaves_none(
    home: Home, succession: Succession, policy: GatePolicy, bundle_of: Any, evaluation_of: Any
) -> None:
    evaluation = evaluation_of(A)
    Registry(home).register(bundle_of(A), evaluation)
    required = policy.model_copy(update={"approval": "required"})
    assert succession.judge("1", evaluation, required).decision == "awaiting-approval"
    assert succession.settle("1", "reject", "Ada", "too early") is None
    assert Registry(home).champion() is None


def test_approvals_are_refused_in_one_line(
    succession: Succession, waiting: Evaluation, promoted: Promote, client: MlflowClient
) -> None:
    with pytest.raises(RegistryError, match="an approval needs a name and a reason"):
        succession.settle("2", "approve", " ", "looks right")
    with pytest.raises(RegistryError, match="version 1 does not await approval: its last verdict is 'promote'"):
        succession.settle("1", "approve", "Ada", "looks right")
    promoted(C)
    with pytest.raises(RegistryError, match="the champion has changed since the verdict"):
        succession.settle("2", "approve", "Ada", "looks right")
    assert alias(client) == "3"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.usefixtures("waiting")
def test_a_killed_approval_is_finished_by_the_next(
    when: str, succession: Succession, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = MlflowClient.set_registered_model_alias

    def die(*args: Any) -> None:
        if when == "after":
            move(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", die)
        with pytest.raises(KeyboardInterrupt):
            succession.settle("2", "approve", "Ada", "looks right")
    succession.settle("2", "approve", "Ada", "looks right")
    assert alias(client) == "2"
    assert succession.registry.problem() is None


def test_the_same_proof_is_too_little_for_the_fourth_of_a_reign_though_those_before_it_wait(
    home: Home, succession: Succession, promoted: Promote, policy: GatePolicy, bundle_of: Any, evaluation_of: Any
) -> None:
    champion, _ = promoted(A)
    required = policy.model_copy(update={"approval": "required"})
    decisions = []
    for day in range(1, 5):
        evaluation = evaluation_of(B, champion, as_of=f"2024-06-{day:02}")
        if day == 1:
            Registry(home).register(bundle_of(B), evaluation)
        decisions += [succession.judge("2", evaluation, required).decision for _ in range(2)]
    assert decisions == 6 * ["awaiting-approval"] + 2 * ["reject"]


def test_a_twin_of_what_was_rolled_back_needs_new_data(
    home: Home, succession: Succession, promoted: Promote, policy: GatePolicy, bundle_of: Any, evaluation_of: Any
) -> None:
    champion, _ = promoted(A)
    promoted(B)
    succession.rollback("1", "version 2 misroutes mortgages")
    wanted = (
        (C, DAY, DAY, "reject", "has seen nothing newer"),
        ("d" * 16, LATER, LATER, "awaiting-approval", "the rollback of 2024-06-01 holds until 2024-06-15"),
        ("e" * 16, LATER, "2024-06-15", "promote", ""),
    )
    for training, trained_to, as_of, decision, reason in wanted:
        twin = evaluation_of(training, champion, accuracy=0.93, trained_to=trained_to, as_of=as_of)
        version = Registry(home).register(bundle_of(training), twin)
        verdict = succession.judge(version.version, twin, policy)
        assert verdict.decision == decision
        assert reason in verdict.reasons[0]


def test_a_twin_of_what_was_rolled_back_since_its_verdict_is_not_approved(
    home: Home, succession: Succession, promoted: Promote, policy: GatePolicy, bundle_of: Any, evaluation_of: Any
) -> None:
    champion, _ = promoted(A)
    required = policy.model_copy(update={"approval": "required"})
    for training in (B, C):
        evaluation = evaluation_of(training, champion)
        version = Registry(home).register(bundle_of(training), evaluation).version
        assert succession.judge(version, evaluation, required).decision == "awaiting-approval"
    succession.settle("2", "approve", "Ada", "looks right")
    succession.rollback("1", "version 2 misroutes mortgages")
    with pytest.raises(RegistryError, match="a version trained to 2024-06-01 was rolled back, and this one"):
        succession.settle("3", "approve", "Ada", "looks right, too")
    assert succession.registry.problem() is None
    assert succession.settle("3", "reject", "Ada", "a twin of 2") == succession.registry.champion() == champion


def test_a_verdict_in_other_words_is_not_another_one(
    home: Home, succession: Succession, waiting: Evaluation, policy: GatePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person has settled does not open again because a label is called otherwise now."""
    required = policy.model_copy(update={"approval": "required"})
    before = succession.judge("2", waiting, required)
    succession.settle("2", "reject", "Ada", "misroutes mortgages")
    told = kinds(home)
    domain = load_domain()
    renamed = domain.model_copy(update={"labels": {label: f"the new {label}" for label in domain.labels}})
    monkeypatch.setattr(Home, "domain", renamed)
    after = succession.judge("2", waiting, required)
    assert (after.reasons != before.reasons, after.numbers) == (True, before.numbers)
    assert kinds(home) == told


def test_a_verdict_that_is_reached_again_is_the_last_one(
    succession: Succession, waiting: Evaluation, policy: GatePolicy
) -> None:
    """Another verdict lay between: what awaited approval, and does so again, can be approved."""
    required = policy.model_copy(update={"approval": "required"})
    strict = required.model_copy(update={"min_test_rows": 10_000})
    for found, decision in ((strict, "inconclusive"), (required, "awaiting-approval"), (required, "awaiting-approval")):
        assert succession.judge("2", waiting, found).decision == decision
    verdicts = [entry.body["decision"] for entry in succession.registry.ledger.entries("verdict")]
    assert verdicts == ["promote", "awaiting-approval", "inconclusive", "awaiting-approval"]
    assert succession.settle("2", "approve", "Ada", "looks right").version == "2"


@pytest.mark.usefixtures("waiting")
def test_who_never_was_champion_is_made_it_neither_by_rollback_nor_by_hand(
    succession: Succession, client: MlflowClient
) -> None:
    with pytest.raises(RegistryError, match="version 2 was never champion: only a verdict or an approval makes one"):
        succession.rollback("2", "no time to approve it")
    client.set_registered_model_alias(MODEL, "champion", "2")
    succession.reconcile(LATER, "accept")
    assert alias(client) == "1"
    assert succession.registry.ledger.entries("alias-edit")[0].body["decision"] == "restored"
    assert succession.registry.problem() is None


@pytest.mark.parametrize(("how", "left"), [("restore", "2"), ("accept", "1")])
def test_an_alias_moved_by_hand_is_written_down_and_settled_by_policy(
    how: str, left: str, home: Home, succession: Succession, promoted: Promote, client: MlflowClient
) -> None:
    promoted(A)
    promoted(B)
    client.set_registered_model_alias(MODEL, "champion", "1")
    assert Registry(home).problem() == "the alias points at version 1, the ledger says 2"
    for _ in range(2):
        succession.reconcile(LATER, how)  # type: ignore[arg-type]
    champion = Registry(home).champion()
    assert champion is not None
    assert champion.version == alias(client) == left
    (entry,) = Registry(home).ledger.entries("alias-edit")
    assert (entry.as_of, entry.body["found"], entry.body["ledger"]) == (LATER, "1", "2")
    assert Registry(home).problem() is None


def test_an_unfit_version_is_never_accepted(
    home: Home, succession: Succession, promoted: Promote, client: MlflowClient
) -> None:
    promoted(A)
    client.create_model_version(MODEL, source=str(home.root))
    client.set_registered_model_alias(MODEL, "champion", "2")
    succession.reconcile(LATER, "accept")
    assert alias(client) == "1"
    assert Registry(home).ledger.entries("alias-edit")[0].body["decision"] == "restored"


def test_an_alias_that_was_removed_is_put_back(succession: Succession, promoted: Promote, client: MlflowClient) -> None:
    promoted(A)
    client.delete_registered_model_alias(MODEL, "champion")
    succession.reconcile(LATER, "accept")
    assert alias(client) == "1"


def test_an_alias_before_any_verdict_is_removed(
    home: Home, succession: Succession, client: MlflowClient, bundle_of: Any, evaluation_of: Any
) -> None:
    Registry(home).register(bundle_of(A), evaluation_of(A))
    client.set_registered_model_alias(MODEL, "champion", "1")
    succession.reconcile(LATER, "restore")
    assert alias(client) is None
    assert Registry(home).champion() is None


def test_a_ledger_that_was_written_anew_is_noticed(home: Home, promoted: Promote) -> None:
    promoted(A)
    registry = Registry(home)
    assert registry.ledger_problem() is None
    entries = registry.ledger.entries()
    home.ledger.unlink()
    home.ledger.with_suffix(".anchor").unlink()
    for entry in entries:
        registry.ledger.append(entry.kind, entry.key, entry.as_of, entry.body | {"reasons": ["it was the best"]})
    assert registry.ledger.problem() is None
    assert registry.ledger_problem() == "the verdict on version 1 is not the one that MLflow knows"


@pytest.mark.usefixtures("waiting")
def test_an_approval_that_comes_too_late_is_refused(home: Home, succession: Succession, client: MlflowClient) -> None:
    last = Registry(home).ledger.entries()[-1]
    assert last.body["numbers"]["policy_approval_days"] == 30
    succession.registry.ledger.append("retraining", "k", "2024-07-02", {"decision": "skip"})
    with pytest.raises(RegistryError, match="version 2 could be approved until 2024-07-01, but the ledger has reached"):
        succession.settle("2", "approve", "Ada", "looks right")
    assert alias(client) == "1"
    assert succession.settle("2", "reject", "Ada", "too late") == succession.registry.champion()


def test_a_backfill_replaces_no_later_champion_and_says_so(
    home: Home, succession: Succession, promoted: Promote, policy: GatePolicy, bundle_of: Any, evaluation_of: Any
) -> None:
    promoted(A)
    champion, _ = promoted(B, as_of=LATER)
    assert champion.as_of == LATER
    assert [getattr(Registry(home).champion(day), "version", None) for day in ("2024-05-31", DAY, LATER)] == [
        *(None, "1", "2")
    ]
    backfill = evaluation_of(C, Registry(home).champion(DAY), accuracy=0.95)
    version = Registry(home).register(bundle_of(C), backfill).version
    verdict = succession.judge(version, backfill, policy)
    assert verdict.decision == "inconclusive"
    assert verdict.reasons[0].startswith(
        "cannot measure: it is a backfill as of 2024-06-01, and version 2 has been champion since 2024-06-02"
    )
    assert Registry(home).champion() == champion


@pytest.mark.parametrize("kind", ["promotion", "approval"])
def test_a_move_that_was_interrupted_is_made_up_for_by_whatever_comes_next(
    kind: str,
    home: Home,
    succession: Succession,
    waiting: Evaluation,
    policy: GatePolicy,
    bundle_of: Any,
    evaluation_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Succession, "_move", die)
        if kind == "approval":
            succession.settle("2", "approve", "Ada", "looks right")
        else:
            succession.judge("2", waiting, policy)
    worse = evaluation_of(C, Registry(home).champion(), accuracy=0.8)
    version = Registry(home).register(bundle_of(C), worse).version
    succession.judge(version, worse, policy)
    assert kinds(home)[-3:] == [kinds(home)[-3], "alias", "verdict"]
    champion = Registry(home).champion()
    assert champion is not None
    assert champion.version == "2"
    assert Registry(home).problem() is None


def test_a_move_that_cannot_be_made_up_for_is_written_down(
    home: Home, succession: Succession, waiting: Evaluation, policy: GatePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Succession, "_move", die)
        succession.judge("2", waiting, policy)
    for found in home.root.rglob("config.json"):
        found.write_text("rotten")
    for _ in range(2):
        with pytest.raises(RegistryError):
            succession.rollback("9", "only to catch up")
    lapse = Registry(home).ledger.entries("lapse")
    assert len(lapse) == 1
    assert (
        lapse[0].body["reason"].startswith("its promotion was interrupted and can no longer be finished: version 2 is")
    )
    assert Registry(home).ledger.entries("alias")[-1].body["version"] == "1"


def test_the_ledger_says_who_was_champion(home: Home, succession: Succession, promoted: Promote) -> None:
    promoted(A)
    assert Registry(home).ledger.champion_at("2024-05-31") is None
    promoted(B)
    found = Registry(home).ledger.champion_at("2024-06-01")
    assert found is not None
    assert (found.body["version"], found.body["action"]) == ("2", "promote")
    assert found.body["reason"].startswith("accuracy 0.9000 is 0.1000 above the baseline's")
