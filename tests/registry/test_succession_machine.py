"""Whatever comes in whatever order, killed wherever it writes: there is a champion, and the ledger says why.

Hypothesis draws sequences of runs, approvals, rejections, rollbacks, edits by hand and kills against the real gate, the
real ledger and MLflow on SQLite. What has to hold is worked out from the entries anew, by other means than the code's.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from mlflow import MlflowClient

from assets.evaluation.report import Evaluation
from assets.exceptions import BundleError, RegistryError
from assets.home import Home
from assets.registry import anchors
from assets.registry.ledger import Entry, Ledger
from assets.registry.registry import MODEL, RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.settings import GatePolicy

TRAINED_TO = {str(n): f"2024-05-{(n + 1) // 2:02}" for n in range(1, 7)}
"""The last day of the training rows, by version: each has a twin."""
ROTTEN, FOREIGN = "7", "8"
"""A version whose files are not those that were registered, and one that was never evaluated."""
GOOD, BAD = 0.9, 0.75
"""Accuracies above and below any champion's and the baseline's."""
PATIENCE = 3
"""The challengers of a reign for whom GOOD is proof: 12 rows right only by them, and 2 only by the champion."""
WRITES = [
    (Ledger, "append"),
    (anchors, "write_atomically"),
    (MlflowClient, "set_model_version_tag"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "set_registered_model_tag"),
    (MlflowClient, "delete_registered_model_alias"),
]

Act = Callable[[], object]
Kill = tuple[int, str, bool] | None
VERSIONS = st.sampled_from([*TRAINED_TO, ROTTEN])
# More often than not what can be approved, or rolled back to.
WAITING = st.runner().flatmap(lambda machine: st.sampled_from([*TRAINED_TO, ROTTEN, *3 * machine.waiting()]))
FORMER = st.runner().flatmap(lambda machine: st.sampled_from([*TRAINED_TO, ROTTEN, FOREIGN, *4 * machine.holders()]))
KILLS: st.SearchStrategy[Kill] = st.one_of(
    st.none(), st.none(), st.tuples(st.integers(1, 6), st.sampled_from(["before", "after"]), st.booleans())
)
"""At which write, on which side of it, and whether the same is tried again or something else comes next."""


class KilledError(Exception):
    pass


@contextmanager
def killed_at_write(number: int, when: str) -> Iterator[None]:
    """The process dies at its n-th write to the ledger or to MLflow, if it comes that far."""
    writes = 0

    def dying(write: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            nonlocal writes
            writes += 1
            if writes == number and when == "before":
                raise KilledError
            written = write(*args, **kwargs)
            if writes == number:
                raise KilledError
            return written

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WRITES:
            patch.setattr(owner, name, dying(getattr(owner, name)))
        yield


@dataclass
class World:
    """A home with eight versions and no verdict yet, to which it can be brought back in milliseconds."""

    home: Home
    registry: Registry
    policy: GatePolicy
    evaluation_of: Callable[..., Evaluation]
    versions: dict[str, RegisteredVersion] = field(default_factory=dict)

    @property
    def alias(self) -> str | None:
        return self.registry.aliases().get("champion")

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.home.mlflow / "mlflow.db", self.home.ledger, self.anchor

    @property
    def anchor(self) -> Path:
        return self.home.ledger.with_suffix(".anchor")

    def save(self, name: str) -> None:
        for file in self.files:
            saved = file.with_name(f"{file.name}.{name}")
            saved.unlink(missing_ok=True)
            if file.exists():
                copy(file, saved)

    def restore(self, name: str) -> None:
        for file in (self.home.ledger, self.anchor):
            file.unlink(missing_ok=True)
        for file in self.files:
            if (saved := file.with_name(f"{file.name}.{name}")).exists():
                copy(saved, file)

    def state(self) -> dict[str, object]:
        """All that doing something twice must not change; nor must a kill, but that an edit may be found twice."""
        told = [(entry.kind, entry.body) for entry in self.registry.ledger.entries()]
        return {
            "edits": [entry for entry in told if entry[0] == "alias-edit"],
            "told": [entry for entry in told if entry[0] != "alias-edit"],
            "verdicts": {version.version: version.tags.get("verdict") for version in self.registry.versions()},
            "champion": self.registry.champion(),
            "alias": self.alias,
        }


def copy(source: Path, target: Path) -> None:
    """An SQLite file into another, through SQLite: MLflow keeps connections to it open; an anchor as it is."""
    if ".anchor" in source.name:
        shutil.copy(source, target)
        return
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        new.execute("pragma synchronous = off")
        old.backup(new)


@pytest.fixture
def world(
    home: Home,
    registry: Registry,
    policy: GatePolicy,
    bundle_of: Callable[[str], Path],
    evaluation_of: Callable[..., Evaluation],
) -> World:
    world = World(home, registry, policy, evaluation_of)
    for number in [*TRAINED_TO, ROTTEN]:
        training = f"{number:0>16}"
        registered = world.registry.register(bundle_of(training), evaluation_of(training))
        assert registered.version == number
    (world.registry.fetch(ROTTEN) / "config.json").write_text("other settings")
    shutil.rmtree(home.lake.path("challenger/2024-06-01", f"{ROTTEN:0>16}"))
    world.registry.client.create_model_version(MODEL, source=str(home.root))
    world.versions = {version.version: version for version in world.registry.versions()}
    world.save("template")
    return world


class SuccessionMachine(RuleBasedStateMachine):
    """Steps that people, schedules and accidents take, on one home."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.killed = self.edited = self.crowned = False
        self.day = 1
        world.restore("template")

    @rule(
        version=VERSIONS,
        accuracy=st.sampled_from([GOOD, GOOD, GOOD, BAD]),
        stale=st.one_of(st.none(), st.none(), st.none(), VERSIONS),
        later=st.sampled_from([-1, 0, 0, 1, 1]),
        holds=st.sampled_from([0, 2]),
        approval=st.sampled_from(["automatic", "required", "required"]),
        edits=st.sampled_from(["restore", "accept"]),
        enough=st.sampled_from([True, True, True, False]),
        kill=KILLS,
    )
    def run(
        self,
        version: str,
        accuracy: float,
        stale: str | None,
        later: int,
        holds: int,
        approval: str,
        edits: str,
        enough: bool,
        kill: Kill,
    ) -> None:
        """A challenger is measured beside the champion (or beside who is not that any more) and judged."""
        expected_champion = self._champion_after(edits)
        beside = self.world.versions[stale or expected_champion] if stale or expected_champion else None
        as_of = f"2024-06-{max(1, self.day + later):02}"
        self.day = max(1, self.day + later, self.day)
        evaluation = self._evaluate(version, beside, accuracy, as_of)
        changes = {"approval": approval, "alias_edits": edits, "min_test_rows": 100 if enough else 300}
        policy = self.world.policy.model_copy(update=changes | {"rollback_holds_days": holds})
        expected = self._expected(version, expected_champion, beside, evaluation, policy)
        decisions: list[str] = []

        def judge() -> None:
            decisions.append(Succession(self.world.registry).judge(version, evaluation, policy).decision)
            if decisions[-1] != "unchanged":
                assert self._said(version)[-1].body["decision"] == decisions[-1]

        known = not self.killed
        if self._do(judge, kill):
            self.edited = False
            assert self.world.registry.problem() is None
        if known and decisions:
            assert decisions[0] == expected

    @rule(version=WAITING, decision=st.sampled_from(["approve", "approve", "reject"]), kill=KILLS)
    def settle(self, version: str, decision: Any, kill: Kill) -> None:
        waits, sound = version in self.waiting(), not self.killed
        champion = self.world.registry.champion()
        done = self._do(lambda: Succession(self.world.registry).settle(version, decision, "Ada", "because"), kill)
        assert waits or not done
        if done and decision == "reject" and kill is None and sound:
            assert self.world.registry.champion() == champion

    @rule(version=FORMER, kill=KILLS)
    def rollback(self, version: str, kill: Kill) -> None:
        former, sound = version in self.holders(), not self.killed
        done = self._do(lambda: Succession(self.world.registry).rollback(version, "because"), kill)
        assert done == former or kill is not None or not sound

    @precondition(lambda self: not self.killed)
    @rule(version=st.one_of(st.none(), FORMER, FORMER))
    def edit_by_hand(self, version: str | None) -> None:
        client = self.world.registry.client
        if version:
            client.set_registered_model_alias(MODEL, "champion", version)
        elif self.world.alias:
            client.delete_registered_model_alias(MODEL, "champion")
        self.edited = True

    @rule(number=st.integers())
    def decide_on_retraining(self, number: int) -> None:
        self.world.registry.ledger.append("retraining", str(number), "2024-06-01", {"decision": "skip"})

    @rule(left=st.integers(0, 30), version=VERSIONS, action=st.sampled_from(["promote", "approve", "rollback"]))
    def tamper(self, left: int, version: str, action: str) -> None:
        """The ledger loses its end, its count mended; or an entry is made up, its hashes right. Both are found."""
        registry, entries = self.world.registry, self.world.registry.ledger.entries()
        self.world.save("before")
        if left < len(entries) - self.killed:
            cut(self.world.home.ledger, left)
            assert registry.ledger.problem() is not None
            self.world.restore("before")
        if version not in self.holders():
            moves = self._moves()
            body = {"version": version, "training_id": self.world.versions[version].training_id, "action": action}
            previous = {"training_id": moves[-1].body["training_id"]} if moves else None
            registry.ledger.append("alias", "made-up", "2024-06-01", body | {"previous": previous, "reason": "because"})
            assert registry.ledger_problem() is not None
            self.world.restore("before")

    @invariant()
    def the_champion_is_evaluated_intact_and_explained(self) -> None:
        registry, moves = self.world.registry, self._moves()
        champion = registry.champion()
        self.crowned |= champion is not None
        if not (self.killed or self.edited):
            assert self.world.alias == (champion.version if champion else None)
        if champion is None:
            assert not self.crowned
            assert moves == []
            return
        registry.require_servable(champion)
        assert moves[-1].body["version"] == champion.version
        at = registry.ledger.champion_at("2024-12-31")
        assert at is not None
        assert at == moves[-1]

    @invariant()
    def nothing_was_done_to_the_ledger(self) -> None:
        assert self.world.registry.ledger.problem() is None
        assert self.world.registry.ledger_problem() is None

    @invariant()
    def the_alias_is_where_the_ledger_says(self) -> None:
        if not (self.killed or self.edited):
            assert self.world.registry.problem() is None

    @invariant()
    def only_a_settled_verdict_makes_a_champion(self) -> None:
        """A version comes first by a verdict or an approval, once, and newer than what was rolled back; then again by
        a rollback or an accepted edit."""
        held: set[str] = set()
        for move in self._moves():
            version, action = move.body["version"], move.body["action"]
            if action in ("rollback", "accept"):
                assert version in held
            else:
                assert version not in held
                assert self._settled(move) == action
                assert TRAINED_TO[version] > self._withdrawn_to(move.seq)
            held.add(version)

    def _do(self, act: Act, kill: Kill) -> bool:
        """Do it, and again, which changes nothing; or be killed in it, and end in the same state when it is done again.

        Says whether it was done: what is refused says so.
        """
        if kill is None:
            done, _ = self._done_twice(act)
            self.killed &= not done
            return done
        number, when, again = kill
        self.world.save("before")
        done, wanted = self._done_twice(act)
        self.world.restore("before")
        with killed_at_write(number, when):
            try:
                act()
            except (KilledError, RegistryError, BundleError):
                self.killed = True
        if not again:
            return False
        repeated, state = self._done_twice(act)
        assert (repeated, state | {"edits": wanted["edits"]}) == (done, wanted)
        self.killed &= not done
        return done

    def _done_twice(self, act: Act) -> tuple[bool, dict[str, object]]:
        done = attempt(act)
        state = self.world.state()
        assert attempt(act) == done
        assert self.world.state() == state
        return done, state

    def _evaluate(self, version: str, beside: RegisteredVersion | None, accuracy: float, as_of: str) -> Evaluation:
        training = self.world.versions[version].training_id
        trained_to = TRAINED_TO.get(version, "2024-05-31")
        return self.world.evaluation_of(training, beside, accuracy=accuracy, trained_to=trained_to, as_of=as_of)

    def _expected(
        self,
        version: str,
        champion: str | None,
        beside: RegisteredVersion | None,
        evaluation: Evaluation,
        policy: GatePolicy,
    ) -> str:
        if version == champion:
            return "unchanged"
        as_of = evaluation.as_of
        since, by_hand = self._reign_after(policy.alias_edits, as_of)
        if since > as_of or policy.min_test_rows > 200 or (beside.version if beside else None) != champion:
            return "inconclusive"
        newer = TRAINED_TO.get(version, "2024-05-31") > self._withdrawn_to()
        if evaluation.challenger.accuracy == BAD or version in self.holders() or not newer:
            return "reject"
        if beside and len(self._measured_beside(beside) - {evaluation.id}) >= PATIENCE:
            return "reject"
        held = by_hand and int(as_of[-2:]) < int(since[-2:]) + policy.rollback_holds_days
        return "promote" if policy.approval == "automatic" and not held else "awaiting-approval"

    def _measured_beside(self, champion: RegisteredVersion) -> set[str]:
        """The evaluations that the gate could decide on beside a champion."""
        said = [entry.body for entry in self.world.registry.ledger.entries("verdict")]
        decided = [body for body in said if body["decision"] in ("promote", "awaiting-approval", "reject")]
        return {body["evaluation"] for body in decided if body["champion"] == champion.training_id}

    def _reign_after(self, edits: str, as_of: str) -> tuple[str, bool]:
        """Since when the champion whom a run finds has been that, and whether a person made it so again."""
        if self._champion_after(edits) != (self._moves()[-1].body["version"] if self._moves() else None):
            return as_of, True
        last = self._moves()[-1:]
        return (last[0].as_of, last[0].body["action"] in ("rollback", "accept")) if last else ("", False)

    def _champion_after(self, edits: str) -> str | None:
        """Whom a run finds as champion, once an edit by hand is restored or accepted."""
        moves, alias = self._moves(), self.world.alias
        accepted = edits == "accept" and self.edited and alias in self.holders()
        return alias if accepted else moves[-1].body["version"] if moves else None

    def holders(self) -> list[str]:
        """The versions that are or were champion."""
        return sorted({move.body["version"] for move in self._moves()})

    def waiting(self) -> list[str]:
        """The versions whose last verdict awaits approval."""
        last = {entry.body["version"]: entry for entry in self.world.registry.ledger.entries("verdict")}
        return [version for version, entry in last.items() if entry.body["decision"] == "awaiting-approval"]

    def _moves(self) -> list[Entry]:
        return [entry for entry in self.world.registry.ledger.entries() if entry.kind == "alias"]

    def _withdrawn_to(self, before: int | None = None) -> str:
        moves = [move for move in self._moves() if before is None or move.seq < before]
        withdrawn = [move.body["previous"]["version"] for move in moves if move.body["action"] == "rollback"]
        return max((TRAINED_TO[version] for version in withdrawn), default="")

    def _said(self, version: str, *kinds: str) -> list[Entry]:
        """The verdicts on a version, or the entries of other kinds about it, oldest first."""
        entries = self.world.registry.ledger.entries()
        return [
            entry for entry in entries if entry.kind in (kinds or ("verdict",)) and entry.body["version"] == version
        ]

    def _settled(self, move: Entry) -> str:
        """What was said last about the version of a move before it: promote, approve, or what does not make one."""
        said = self._said(move.body["version"], "verdict", "approval")
        return str([entry for entry in said if entry.seq < move.seq][-1].body["decision"])


def cut(path: Path, left: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("drop trigger entries_are_not_deleted")
        connection.execute("delete from entries where seq > ?", (left,))
        connection.execute("update sqlite_sequence set seq = ?", (left,))
        connection.commit()


def attempt(act: Act) -> bool:
    try:
        act()
    except (RegistryError, BundleError):
        return False
    return True


@pytest.mark.parametrize(
    ("examples", "steps"), [(8, 12), pytest.param(100, 30, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_there_is_always_a_champion_that_the_ledger_explains(world: World, examples: int, steps: int) -> None:
    machines: list[SuccessionMachine] = []

    def machine() -> SuccessionMachine:
        machines.append(SuccessionMachine(world))
        return machines[-1]

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        # Making a failure smaller takes minutes, and a dozen steps can be read as they are.
        settings=settings(max_examples=examples, stateful_step_count=steps, phases=[Phase.generate]),
    )
    assert len(machines) >= examples
