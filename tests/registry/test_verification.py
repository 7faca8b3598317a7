"""What is done to the ledger behind Evergreen's back is found; until it is undone nothing is judged, none answers."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.report import write_evaluation
from assets.exceptions import RegistryError
from assets.home import Home
from assets.registry.ledger import Entry, Ledger
from assets.registry.registry import Registry
from assets.registry.rules import unlawful
from assets.registry.succession import Succession
from assets.registry.verification import verify
from assets.settings import GatePolicy

A, B, C = "a" * 16, "b" * 16, "c" * 16
DAY = "2024-06-01"
Promote = Callable[..., Any]


@pytest.fixture
def reigns(home: Home, promoted: Promote) -> Registry:
    """Version 2 was champion and was rolled back to version 1; every memory of that is in place."""
    promoted(A)
    promoted(B)
    Succession(Registry(home)).rollback("1", "version 2 misroutes mortgages")
    assert verify(Registry(home)).problem is None
    return Registry(home)


def edit(path: Path, *statements: str) -> None:
    """What somebody with the file can do, its triggers dropped."""
    with closing(sqlite3.connect(path)) as connection:
        for (trigger,) in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            connection.execute(f"drop trigger {trigger}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def remove_last(home: Home) -> None:
    edit(
        home.ledger,
        "delete from entries where seq = (select max(seq) from entries)",
        "update sqlite_sequence set seq = (select max(seq) from entries)",
    )


def crown(home: Home, version: str, training: str, action: str, key: str = "v3-1") -> None:
    """Append an alias entry with all its hashes right, as a ledger without an anchor lets anybody do."""
    beside = home.ledger.with_suffix(".anchor")
    remembered = beside.read_text()
    moves = Ledger(home.ledger).entries("alias")
    previous = {name: moves[-1].body[name] for name in ("version", "training_id")}
    body = {"alias": "champion", "action": action, "reason": "it is the best", "previous": previous}
    Ledger(home.ledger).append("alias", key, DAY, body | {"version": version, "training_id": training})
    beside.write_text(remembered)


def refused(registry: Registry, match: str) -> None:
    """Found by everybody who asks, and the ledger is not written on."""
    problem = verify(registry).problem
    assert problem is not None
    assert match in problem
    with pytest.raises(RegistryError, match="the ledger is not as it was written"):
        registry.champion()


def test_a_removed_rollback_is_found_though_the_count_was_mended(home: Home, reigns: Registry) -> None:
    remove_last(home)
    assert reigns.ledger.entries()[-1].body["version"] == "2"
    refused(reigns, "entries after 4 were removed")
    with pytest.raises(RegistryError, match="entries after 4 were removed"):
        reigns.ledger.append("retraining", "k", DAY, {})


def test_mlflow_remembers_a_removed_rollback_when_the_anchor_was_mended(home: Home, reigns: Registry) -> None:
    remove_last(home)
    home.ledger.with_suffix(".anchor").unlink()
    refused(reigns, "MLflow has followed entry 5")


def test_an_older_copy_of_the_ledger_is_found(home: Home, promoted: Promote) -> None:
    promoted(A)
    older = shutil.copy(home.ledger, home.root / "older.db")
    promoted(B)
    shutil.copy(older, home.ledger)
    refused(Registry(home), "entries after 2 were removed")


def test_an_anchor_elsewhere_remembers_what_the_home_forgot(home: Home, tmp_path: Path) -> None:
    """Somebody who owns the home can mend the ledger and what lies beside it, but not what lies elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ledger = Ledger(home.ledger, elsewhere)
    for number in range(3):
        ledger.append("failure", str(number), DAY, {})
    remove_last(home)
    home.ledger.with_suffix(".anchor").unlink()
    assert Ledger(home.ledger).problem() is None
    problem = ledger.problem()
    assert problem is not None
    assert f"entries after 2 were removed: {elsewhere}" in problem
    home.ledger.unlink()
    with pytest.raises(RegistryError, match="the ledger is gone"):
        ledger.append("failure", "3", DAY, {})


def test_an_anchor_elsewhere_that_cannot_be_written_stops_the_append(home: Home, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"configs/ledger\.yaml: anchor: there is no folder .*elsewhere"):
        Ledger(home.ledger, tmp_path / "elsewhere").append("failure", "1", DAY, {})
    assert Ledger(home.ledger).entries() == []


def test_a_kill_between_an_entry_and_its_anchor_is_no_edit(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(home.ledger)
    ledger.append("failure", "1", DAY, {})

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("assets.registry.anchors.write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            ledger.append("failure", "2", DAY, {})
    assert ledger.problem() is None
    ledger.append("failure", "3", DAY, {})
    assert ledger.problem() is None


def test_entries_that_the_anchor_does_not_know_of_are_found(home: Home) -> None:
    ledger, beside = Ledger(home.ledger), home.ledger.with_suffix(".anchor")
    ledger.append("failure", "1", DAY, {})
    remembered = beside.read_text()
    for number in "23":
        ledger.append("failure", number, DAY, {})
    beside.write_text(remembered)
    assert str(ledger.problem()).startswith("entries 2 to 3 were not appended by Evergreen")


def test_a_rejected_version_that_was_crowned_by_an_appended_entry_is_found(
    home: Home, promoted: Promote, bundle_of: Any, evaluation_of: Any, policy: GatePolicy
) -> None:
    champion, _ = promoted(A)
    worse = evaluation_of(B, champion, accuracy=0.82)
    version = Registry(home).register(bundle_of(B), worse).version
    assert Succession(Registry(home)).judge(version, worse, policy).decision == "reject"
    crown(home, version, B, "promote", Registry(home).ledger.entries("verdict")[-1].key)
    refused(Registry(home), "entry 4 makes version 2 the champion, and its verdict is reject")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"action": "promote", "training_id": C}, "its verdict is about another training"),
        ({"key": "v9-1"}, "no verdict to promote it comes before it"),
        ({"action": "approve"}, "nobody has approved it"),
        ({"action": "rollback", "training_id": C}, "it was never champion"),
        ({"action": "accept"}, "no manual edit was accepted before it"),
        ({"action": "crown"}, "'crown' cannot make a champion"),
        ({"previous": None}, "the champion before it was a different one"),
        ({"manifest_sha256": "0" * 64}, "its files are not those that were judged"),
    ],
)
def test_each_move_must_follow_from_what_is_before_it(changes: dict[str, Any], why: str) -> None:
    def entry(seq: int, kind: str, key: str, body: dict[str, Any]) -> Entry:
        return Entry(seq, kind, key, DAY, body, "")

    def promotion(seq: int, training: str, previous: str | None) -> list[Entry]:
        files = {"version": str(seq), "training_id": training, "manifest_sha256": training * 4}
        verdict = entry(seq, "verdict", f"v{seq}", files | {"decision": "promote", "champion": previous})
        body = {"action": "promote", "previous": previous and {"training_id": previous}}
        return [verdict, entry(seq + 1, "alias", f"v{seq}", files | body)]

    lawful = [*promotion(1, A, None), *promotion(3, B, A)]
    assert unlawful(lawful) is None
    last = lawful[-1]
    changed = Entry(4, "alias", changes.get("key", last.key), DAY, last.body | changes, "")
    assert str(unlawful([*lawful[:-1], changed])).endswith(f"and {why}")
    assert str(unlawful([*lawful, Entry(5, "alias", last.key, DAY, last.body, "")])) is not None


def test_an_edited_evaluation_is_found_and_not_judged_again(
    home: Home, promoted: Promote, bundle_of: Any, evaluation_of: Any, policy: GatePolicy
) -> None:
    champion, _ = promoted(A)
    worse = evaluation_of(B, champion, accuracy=0.82)
    version = Registry(home).register(bundle_of(B), worse).version
    Succession(Registry(home)).judge(version, worse, policy)
    assert (verify(Registry(home)).evaluations, verify(Registry(home)).gone) == (2, 0)
    better = evaluation_of(B, champion, accuracy=0.95).model_copy(update={"id": worse.id})
    write_evaluation(better, worse.folder(home.lake))
    problem = verify(Registry(home)).problem
    assert problem == f"the evaluation {worse.id} of {DAY} is not the one that entry 3 judged"
    verdict = Succession(Registry(home)).judge(version, better, policy)
    assert verdict.decision == "inconclusive"
    assert "is not the one that was judged before" in verdict.reasons[0]
    assert Registry(home).champion() == champion
    write_evaluation(worse, worse.folder(home.lake))
    assert (verify(Registry(home)).problem, verify(Registry(home)).evaluations) == (None, 3)
    shutil.rmtree(better.folder(home.lake))
    assert (verify(Registry(home)).evaluations, verify(Registry(home)).gone) == (1, 2)


@pytest.mark.parametrize(
    ("forgotten", "why"),
    [
        ([], "the ledger is gone"),
        (["anchor"], "is not the one that MLflow knows"),
        (["anchor", "mlflow"], "it holds no verdict, but the lake has verdict/"),
    ],
)
def test_a_deleted_ledger_is_noticed_while_anything_remembers_it(
    forgotten: list[str], why: str, home: Home, promoted: Promote, empty_database: Path
) -> None:
    promoted(A)
    with home.lake.staging(f"verdict/{DAY}") as staged:
        home.lake.publish(f"verdict/{DAY}", "v", staged)
    home.ledger.unlink()
    if "anchor" in forgotten:
        home.ledger.with_suffix(".anchor").unlink()
    if "mlflow" in forgotten:
        shutil.copy(empty_database, home.mlflow)
    refused(Registry(home), why)


def test_nothing_is_judged_beside_a_lost_ledger(
    home: Home, promoted: Promote, bundle_of: Any, evaluation_of: Any, policy: GatePolicy
) -> None:
    """A run of an older date must not find a home without a champion, and crown whoever comes."""
    promoted(A)
    home.ledger.unlink()
    home.ledger.with_suffix(".anchor").unlink()
    evaluation = evaluation_of(B)
    version = Registry(home).register(bundle_of(B), evaluation).version
    verdict = Succession(Registry(home)).judge(version, evaluation, policy)
    assert verdict.decision == "inconclusive"
    assert verdict.reasons[0].startswith("cannot measure: the ledger is not as it was written")
    assert Registry(home).aliases()["champion"] == "1"
    assert not home.ledger.exists()


def test_what_is_not_as_it_was_written_is_not_written_on(home: Home, reigns: Registry) -> None:
    edit(home.ledger, "update entries set body = json_set(body, '$.reason', 'why not') where seq = 5")
    refused(reigns, "entry 5 is not what was appended")
    for act in (
        lambda: Succession(reigns).rollback("2", "try"),
        lambda: Succession(reigns).settle("2", "approve", "Ada", "try"),
    ):
        with pytest.raises(RegistryError, match="the ledger is not as it was written"):
            act()


def test_a_home_from_before_there_were_anchors_is_read_and_anchored(home: Home, promoted: Promote) -> None:
    """Its verdicts are keyed by version, its entries know no files, and its tag no hash."""
    version, _ = promoted(A)
    registry = Registry(home)
    entries = registry.ledger.entries()
    home.ledger.unlink()
    home.ledger.with_suffix(".anchor").unlink()
    for entry in entries:
        files = {"manifest_sha256", "evaluation_sha256"}
        body = {name: value for name, value in entry.body.items() if name not in files}
        registry.ledger.append(entry.kind, "v1-1", entry.as_of, body)
    home.ledger.with_suffix(".anchor").unlink()
    verdict = registry.ledger.entries("verdict")[0]
    registry.client.set_model_version_tag("text-classifier", "1", "ledger_hash", verdict.hash)
    registry.client.set_registered_model_tag("text-classifier", "ledger_entry", "2")
    assert verify(registry).problem is None
    assert registry.champion() == registry.version(version.version)
    promoted(B)
    assert home.ledger.with_suffix(".anchor").exists()
    assert registry.champion() == registry.version("2")
    assert verify(registry).problem is None
    assert Succession(registry).rollback("1", "back").training_id == A
