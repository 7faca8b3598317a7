import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.runtime.migration import HeadMaintainer
from mlflow import MlflowClient

from assets.display import markdown_list
from assets.evaluation.gate import Verdict, decide
from assets.evaluation.report import Golden
from assets.exceptions import BundleError, RegistryError
from assets.home import Home
from assets.registry.ledger import Ledger
from assets.registry.model_card import PAGE, shortened, with_verdict
from assets.registry.registry import MODEL, RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.registry.tracking import Tracking
from assets.settings import GatePolicy, load_domain
from assets.training.bundle import write_manifest
from assets.training.tasks import TASKS

A, B, C, DAY = "a" * 16, "b" * 16, "c" * 16, "2024-06-01"
WRITES = [
    "create_experiment",
    "create_run",
    "create_logged_model",
    "finalize_logged_model",
    "log_inputs",
    "log_outputs",
    "set_tag",
    "log_batch",
    "set_terminated",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
]
Promote = Callable[[str], tuple[RegisteredVersion, Verdict]]


class KilledError(Exception):
    pass


@contextmanager
def killed_at(owner: Any, method: str, when: str) -> Iterator[None]:
    """The process dies at its first call of a method: before it, or after it."""
    original = getattr(owner, method)

    def die(*args: Any, **kwargs: Any) -> None:
        if when == "after":
            original(*args, **kwargs)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(owner, method, die)
        yield


def test_a_database_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    """MLflow would add the same column again."""
    with killed_at(HeadMaintainer, "update_to_step", "before"):
        Tracking(tmp_path, load_domain()).client.search_registered_models()
    assert not Tracking(tmp_path, load_domain()).exists
    assert Tracking(tmp_path, load_domain()).client.search_registered_models() == []


def client(home: Home) -> MlflowClient:
    uri = f"sqlite:///{home.mlflow / 'mlflow.db'}"
    return MlflowClient(uri, uri)


def alias(home: Home) -> str | None:
    named = client(home).get_registered_model(MODEL).aliases.get("champion")
    return str(named) if named else None


def state(home: Home) -> tuple[object, ...]:
    """All that a crash must not change."""
    registry = Registry(home)
    entries = [(entry.kind, entry.key, entry.body) for entry in registry.ledger.entries()]
    versions = [(version.version, version.training_id, version.tags) for version in registry.versions()]
    return versions, entries, registry.champion(), registry.challenger(), registry.problem(), alias(home)


def test_a_home_without_models_answers_without_making_anything(tmp_path: Path) -> None:
    registry = Registry(Home(tmp_path / "bare"))
    assert (registry.champion(), registry.challenger(), registry.versions(), registry.problem()) == (
        None,
        None,
        [],
        None,
    )
    assert not (tmp_path / "bare").exists()


def test_a_version_tells_all_there_is_to_know(home: Home, bundle_of, evaluation_of) -> None:
    evaluation = evaluation_of(A)
    version = Registry(home).register(bundle_of(A), evaluation, "dagster-run")
    page = client(home).get_model_version(MODEL, version.version)
    for text in ("accuracy | 0.9000 | 0.8000", "http://127.0.0.1:3000/runs/dagster-run", "5" * 16, "1,000", "epochs"):
        assert text in page.description
    assert page.description.startswith("# Complaint routing, as of 2024-06-01\n\n## Verdict: not judged yet\n\n")
    for text in ("ab" * 32, "c0de", "software.torch", "Intended use", "Limits", r"zero\_optimization.stage"):
        assert text in page.description
    run = client(home).get_run(page.run_id)
    assert run.data.params["settings.optimizer.epochs"] == "1.0"
    assert run.data.metrics == {
        **{"accuracy": 0.9, "macro_f1": 0.8, "log_loss": 0.4, "ece": 0.02},
        **{"training/loss": 1.5, "training/validation_loss": 1.7, "training/tokens_per_second": 10.0},
    }
    assert run.inputs.dataset_inputs[0].dataset.digest == evaluation.snapshot.id
    assert {path.name for path in home.mlflow.glob(f"artifacts/{page.run_id}/artifacts/evaluation/*")} == {
        "evaluation.json",
        "reliability.png",
    }
    model = client(home).get_logged_model(page.tags["model_id"])
    assert {metric.key: metric.value for metric in model.metrics}["accuracy"] == 0.9
    assert Registry(home).challenger() == version


def test_its_run_took_as_long_as_the_training_and_has_its_curve(home: Home, bundle_of, evaluation_of) -> None:
    Registry(home).register(bundle_of(A), evaluation_of(A))
    run = client(home).get_run(client(home).get_model_version(MODEL, "1").run_id).info
    ended = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp() * 1000
    assert (run.start_time, run.end_time) == (ended - 1500, ended)
    curve = client(home).get_metric_history(run.run_id, "training/loss")
    assert [(m.step, m.value, m.timestamp - run.start_time) for m in curve] == [(1, 2.0, 900), (2, 1.5, 1400)]


def test_a_training_of_an_earlier_evergreen_has_times_too(home: Home, bundle_of, evaluation_of) -> None:
    bundle = bundle_of(A)
    training = json.loads((bundle / "training.json").read_text())
    (bundle / "training.json").write_text(json.dumps({"steps": 2, **training, "ended": None, "step_seconds": []}))
    os.utime(bundle / "training.json", (2000.0, 2000.0))
    write_manifest(bundle, TASKS["classification"])
    Registry(home).register(bundle, evaluation_of(A))
    run = client(home).get_run(client(home).get_model_version(MODEL, "1").run_id).info
    assert (run.start_time, run.end_time) == (1_998_500, 2_000_000)
    curve = client(home).get_metric_history(run.run_id, "training/loss")
    assert [m.timestamp for m in curve] == [1_999_250, 2_000_000]


def test_the_verdict_comes_first_and_replaces_the_one_before(home: Home, promoted: Promote, policy) -> None:
    version, verdict = promoted(A)
    page = client(home).get_model_version(MODEL, "1")
    first = f"# Complaint routing, as of {DAY}\n\n## Verdict: promote\n\n- "
    assert page.description.startswith(first)
    assert markdown_list(verdict.reasons) in page.description
    assert page.description.count("## Verdict") == 1
    assert "## Quality on the frozen test rows" in page.description
    run = client(home).get_run(page.run_id)
    assert run.data.tags["mlflow.note.content"] == page.description
    assert run.data.tags["verdict"] == "promote"
    Registry(home).describe(version, "reject", ["# not | <b>good</b>"])
    again = client(home).get_model_version(MODEL, "1").description
    assert again == page.description.replace("Verdict: promote", "Verdict: reject").replace(
        markdown_list(verdict.reasons), r"- \# not \| &lt;b&gt;good&lt;/b&gt;"
    )


def test_the_page_of_an_earlier_evergreen_gets_its_verdict() -> None:
    earlier = "# Title\n\n[Dagster run that registered it](x)\n\n## Intended use\n\nmore\n"
    judged = with_verdict(earlier, "promote", ["good"])
    assert judged.splitlines()[::2] == [
        *("# Title", "## Verdict: promote", "- good", "[Dagster run that registered it](x)"),
        *("## Intended use", "more"),
    ]
    assert with_verdict(judged, "promote", ["good"]) == judged


def dumped(home: Home) -> str:
    with closing(sqlite3.connect(home.mlflow / "mlflow.db")) as connection:
        return "\n".join(connection.iterdump())


def move(home: Home, folder: Path) -> Home:
    """The home elsewhere, with MLflow's copies of the bundles alone."""
    shutil.rmtree(home.lake.root / "challenger")
    shutil.move(home.root, folder)
    return Home(folder)


def test_a_card_that_mlflows_database_would_refuse_loses_its_last_sections() -> None:
    sections = [f"## {number}\n\n{'word ' * 300}" for number in range(5)]
    card = "\n\n".join(["# A model", *sections]) + "\n"
    assert shortened(card, len(card)) == card
    kept = shortened(card, PAGE)
    assert len(kept) <= PAGE
    assert kept.startswith("\n\n".join(["# A model", *sections[:3]]))
    assert "## 3" not in kept
    assert "The rest is on the page of its run" in kept


def test_a_home_that_is_moved_keeps_its_models(home: Home, promoted: Promote, tmp_path: Path) -> None:
    promoted(A)
    promoted(B)
    assert str(home.mlflow) not in dumped(home)
    moved = move(home, tmp_path / "moved")
    assert Registry(moved).fetch("1").is_relative_to(moved.root)
    assert Registry(moved).problem() is None
    Succession(Registry(moved)).rollback("1", "as it was")
    assert Registry(moved).champion().version == "1"
    assert Registry(moved).problem() is None


def test_a_home_of_an_earlier_evergreen_is_moved(home: Home, promoted: Promote, tmp_path: Path) -> None:
    promoted(A)
    expected = dumped(home)
    absolute = f"{home.mlflow.as_uri()}/artifacts"
    with closing(sqlite3.connect(home.mlflow / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", (absolute, MODEL))
        for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, 'mlflow-artifacts:', ?)", (absolute,))
        for column in ("source", "storage_location"):
            change = f"UPDATE model_versions SET {column} = replace({column}, 'mlflow-artifacts:', ?)"
            connection.execute(change, (absolute,))
    assert dumped(home).count(absolute) == 5
    moved = move(home, tmp_path / "moved")
    assert Registry(moved).fetch("1").is_relative_to(moved.root)
    assert dumped(moved) == expected


def test_its_page_shows_names_as_they_are(home: Home, bundle_of, evaluation_of, cells) -> None:
    evaluation, name = evaluation_of(A), "a|b <img src=x> **c** `d`"
    parts = tuple(part.model_copy(update={"value": name}) for part in evaluation.slices)
    Registry(home).register(bundle_of(A), evaluation.model_copy(update={"slices": parts}))
    page = client(home).get_model_version(MODEL, "1").description
    assert f"queue {name}" in {row[0] for row in cells(page)}


def test_its_page_names_the_labels_that_it_has_learned_too_little_of(home: Home, bundle_of, evaluation_of) -> None:
    evaluation = evaluation_of(A)
    Registry(home).register(bundle_of(A), evaluation)
    assert "fewer than" not in client(home).get_model_version(MODEL, "1").description
    rare = {"rare_labels": {"mortgage": 9, "other": 0}, "settings": {"min_label_rows": 10}, "id": "another"}
    again = evaluation.model_copy(update=rare)
    again.folder(home.lake).mkdir()
    Registry(home).register(home.lake.path(f"challenger/{DAY}", A), again)
    page = client(home).get_model_version(MODEL, "1").description
    assert "Learned from fewer than 10 rows of a queue, so not reliable there: Mortgage (9), Other" in page


def test_a_training_has_one_version_however_often_it_is_registered(home: Home, bundle_of, evaluation_of) -> None:
    bundle, evaluation = bundle_of(A), evaluation_of(A)
    versions = {Registry(home).register(bundle, evaluation).version for _ in range(3)}
    assert versions == {"1"}
    assert len(client(home).search_runs([client(home).get_experiment_by_name(MODEL).experiment_id])) == 1


@pytest.mark.parametrize("method", WRITES)
def test_registering_again_writes_nothing(method, home: Home, bundle_of, evaluation_of, monkeypatch) -> None:
    bundle, evaluation = bundle_of(A), evaluation_of(A)
    version = Registry(home).register(bundle, evaluation)
    monkeypatch.delattr(MlflowClient, method)
    assert Registry(home).register(bundle, evaluation) == version


def test_a_copy_that_is_not_the_bundle_is_not_registered(home: Home, bundle_of, evaluation_of, monkeypatch) -> None:
    copy = shutil.copytree

    def lossy(*what: Any, **how: Any) -> None:
        copy(*what, **how)
        (found,) = home.mlflow.rglob("model.safetensors")
        found.write_text("")

    bundle, evaluation = bundle_of(A), evaluation_of(A)
    monkeypatch.setattr(shutil, "copytree", lossy)
    with pytest.raises(BundleError, match=r"model\.safetensors is not the file that was written"):
        Registry(home).register(bundle, evaluation)
    assert Registry(home).versions() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", [*WRITES, "copytree"])
def test_a_killed_registration_is_finished_by_the_next(method, when, home: Home, bundle_of, evaluation_of) -> None:
    bundle, evaluation = bundle_of(A), evaluation_of(A)
    with killed_at(shutil if method == "copytree" else MlflowClient, method, when):
        Registry(home).register(bundle, evaluation)
    version = Registry(home).register(bundle, evaluation)
    experiment = client(home).get_experiment_by_name(MODEL).experiment_id
    (run,) = client(home).search_runs([experiment])
    (model,) = client(home).search_logged_models([experiment])
    assert [found.version for found in Registry(home).versions()] == [version.version] == ["1"]
    assert run.info.status == "FINISHED"
    assert str(model.status) == "READY"
    assert len(client(home).get_metric_history(run.info.run_id, "accuracy")) == 1
    assert Registry(home).challenger() == version
    assert (Registry(home).fetch("1") / "model.safetensors").exists()


def test_a_half_copied_bundle_is_copied_again(home: Home, bundle_of, evaluation_of) -> None:
    bundle, evaluation = bundle_of(A), evaluation_of(A)
    with killed_at(MlflowClient, "finalize_logged_model", "before"):
        Registry(home).register(bundle, evaluation)
    (copy,) = home.mlflow.rglob("model.safetensors")
    copy.write_bytes(copy.read_bytes()[:5])
    Registry(home).register(bundle, evaluation)
    assert Registry(home).fetch("1") == copy.parent


def test_a_newer_evaluation_updates_the_version(home: Home, bundle_of, evaluation_of, promoted) -> None:
    bundle, first = bundle_of(A), evaluation_of(A)
    Registry(home).register(bundle, first)
    champion, _ = promoted(B)
    second = evaluation_of(A, champion)
    version = Registry(home).register(bundle, second)
    assert version.version == "1"
    assert version.tags["evaluation"] == second.id
    assert "champion 2" in client(home).get_model_version(MODEL, "1").description
    assert len(Registry(home).versions()) == 2


def test_a_training_is_evaluated_again_with_other_numbers(home: Home, bundle_of, evaluation_of) -> None:
    """As after a change of the settings of an evaluation; MLflow keeps one value of a model's metric a step."""
    bundle = bundle_of(A)
    for accuracy in (0.9, 0.8, 0.9):
        version = Registry(home).register(bundle, evaluation_of(A, accuracy=accuracy))
    assert version.tags["accuracy"] == "0.9000"
    run = client(home).get_model_version(MODEL, version.version).run_id
    found = {metric.step: metric.value for metric in client(home).get_metric_history(run, "accuracy")}
    assert found == {0: 0.9, 1: 0.8}


def test_a_training_that_came_out_otherwise_does_not_take_a_versions_place(
    home: Home, promoted: Promote, bundle_of, evaluation_of
) -> None:
    champion, _ = promoted(A)
    bundle = home.lake.path(f"challenger/{DAY}", A)
    shutil.rmtree(bundle)
    (bundle_of(A) / "config.json").write_text("of another machine")
    (bundle / "MANIFEST.json").unlink()
    write_manifest(bundle, TASKS["classification"])
    with pytest.raises(RegistryError, match=f"training {A} is version 1 in MLflow with other files than"):
        Registry(home).register(bundle, evaluation_of(A, accuracy=0.8))
    assert Registry(home).champion() == champion
    assert Registry(home).fetch("1") != bundle


def test_what_was_not_measured_is_not_registered(home: Home, bundle_of, evaluation_of) -> None:
    broken = evaluation_of(A).model_copy(update={"golden": Golden(rows=8, max_difference=1.0)})
    with pytest.raises(RegistryError, match="served and evaluated outputs differ"):
        Registry(home).register(bundle_of(A), broken)
    with pytest.raises(RegistryError, match=f"the evaluation is of training {A}, the bundle is {B}"):
        Registry(home).register(bundle_of(B), evaluation_of(A).model_copy())
    assert Registry(home).versions() == []


def test_a_tampered_bundle_is_not_registered(home: Home, bundle_of, evaluation_of) -> None:
    bundle = bundle_of(A)
    (bundle / "model.safetensors").write_text("other weights")
    with pytest.raises(BundleError, match=r"model\.safetensors is not the file that was written"):
        Registry(home).register(bundle, evaluation_of(A))


def test_the_first_good_challenger_becomes_champion(home: Home, promoted: Promote) -> None:
    version, verdict = promoted(A)
    assert verdict.decision == "promote"
    assert Registry(home).champion() == version
    assert alias(home) == "1"
    assert [entry.kind for entry in Ledger(home.ledger).entries()] == ["verdict", "alias"]
    assert Ledger(home.ledger).entries()[0].body["numbers"]["challenger_accuracy"] == 0.9


def test_a_rejected_challenger_moves_nothing_and_is_in_the_ledger(
    home: Home, promoted: Promote, bundle_of, evaluation_of, policy: GatePolicy
) -> None:
    champion, _ = promoted(A)
    worse = evaluation_of(B, champion, accuracy=0.82)
    version = Registry(home).register(bundle_of(B), worse)
    assert Succession(Registry(home)).judge(version.version, worse, policy).decision == "reject"
    assert Registry(home).champion() == champion
    assert alias(home) == "1"
    last = Ledger(home.ledger).entries()[-1]
    assert (last.kind, last.body["decision"], last.body["version"]) == ("verdict", "reject", "2")
    assert last.body["reasons"][0].startswith("not better by at least 0.005")


def test_judging_again_changes_nothing(home: Home, promoted: Promote, evaluation_of, policy: GatePolicy) -> None:
    version, _ = promoted(A)
    before = state(home)
    assert Succession(Registry(home)).judge(version.version, evaluation_of(A), policy).decision == "unchanged"
    assert state(home) == before


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("owner", "method"),
    [(Ledger, "append"), (MlflowClient, "set_model_version_tag"), (MlflowClient, "set_registered_model_alias")],
)
def test_a_killed_promotion_ends_in_the_same_state(
    owner, method, when, home: Home, tmp_path: Path, promoted: Promote, bundle_of, evaluation_of, policy: GatePolicy
) -> None:
    champion, _ = promoted(A)
    better = evaluation_of(B, champion)
    version = Registry(home).register(bundle_of(B), better).version
    with killed_at(owner, method, when):
        Succession(Registry(home)).judge(version, better, policy)
    assert Registry(home).champion().version in ("1", "2")
    Succession(Registry(home)).judge(version, better, policy)
    assert Registry(home).champion().version == alias(home) == "2"
    assert [entry.kind for entry in Ledger(home.ledger).entries()] == ["verdict", "alias"] * 2
    assert Registry(home).problem() is None
    assert Registry(home).version("2").tags["verdict"] == "promote"


def test_only_a_verdict_about_the_version_moves_the_alias(
    home: Home, promoted: Promote, bundle_of, evaluation_of, policy: GatePolicy
) -> None:
    champion, verdict = promoted(A)
    better = evaluation_of(B, champion)
    version = Registry(home).register(bundle_of(B), better).version
    with pytest.raises(RegistryError, match="the verdict is about training a"):
        Succession(Registry(home)).enact(version, verdict)
    stale = decide(evaluation_of(B), policy, load_domain(), None)
    assert stale.decision == "promote"
    with pytest.raises(RegistryError, match="the champion has changed since the verdict"):
        Succession(Registry(home)).enact(version, stale)
    assert alias(home) == "1"
    assert len(Ledger(home.ledger).entries()) == 2


def test_a_verdict_acts_once(home: Home, promoted: Promote) -> None:
    promoted(A)
    champion, verdict = promoted(B)
    assert Succession(Registry(home)).enact("2", verdict) == champion
    Succession(Registry(home)).rollback("1", "version 2 misroutes mortgages")
    Succession(Registry(home)).enact("2", verdict)
    assert Registry(home).champion().version == alias(home) == "1"


@pytest.mark.parametrize("file", ["model.safetensors", "MANIFEST.json"])
def test_a_tampered_version_is_refused(
    file, home: Home, promoted: Promote, bundle_of, evaluation_of, policy: GatePolicy
) -> None:
    champion, _ = promoted(A)
    better = evaluation_of(B, champion)
    version = Registry(home).register(bundle_of(B), better).version
    copy = Registry(home).fetch(version) / file
    copy.write_text(copy.read_text() + " ")
    shutil.rmtree(home.lake.path(f"challenger/{DAY}", B))
    with pytest.raises(BundleError, match=r"version 2 is not intact: .*" + file):
        Registry(home).fetch(version)
    with pytest.raises(BundleError, match="version 2 is not intact"):
        Succession(Registry(home)).judge(version, better, policy)
    assert Registry(home).champion() == champion
    assert alias(home) == "1"
    with pytest.raises(BundleError, match="version 2 is not intact"):
        Succession(Registry(home)).rollback(version, "try")


def test_a_champion_whose_files_rot_is_served_from_the_lake(home: Home, promoted: Promote) -> None:
    """One flipped byte must not block every successor."""
    promoted(A)
    copy = Registry(home).fetch("1") / "model.safetensors"
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    assert Registry(home).fetch("1") == home.lake.path(f"challenger/{DAY}", A)
    assert Registry(home).problem() is None
    assert promoted(B)[1].decision == "promote"


def test_a_bundle_that_mlflow_keeps_elsewhere_is_downloaded_once(
    home: Home, promoted: Promote, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(A)
    elsewhere, calls = home.lake.path(f"challenger/{DAY}", A).rename(home.root / "elsewhere"), []
    monkeypatch.setattr("assets.registry.tracking._local_path", lambda *_: None)

    def counted(artifact_uri: str, dst_path: str, tracking_uri: str) -> str:
        calls.append(artifact_uri)
        return str(shutil.copytree(elsewhere, Path(dst_path) / "artifacts", dirs_exist_ok=True))

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", counted)
    fetched = {Registry(home).fetch("1") for _ in range(2)}
    assert len(fetched) == len(calls) == 1
    (fetched.pop() / "model.safetensors").write_text("cut short")
    assert (Registry(home).fetch("1") / "model.safetensors").read_text() != "cut short"
    assert len(calls) == 2


def test_a_champion_without_an_intact_copy_is_a_problem(home: Home, promoted: Promote) -> None:
    promoted(A)
    for found in home.root.rglob("config.json"):
        found.unlink()
    assert Registry(home).problem().startswith("version 1 is not intact: ")


def test_rollback_moves_the_alias_with_its_reason(home: Home, promoted: Promote) -> None:
    promoted(A)
    promoted(B)
    assert Succession(Registry(home)).rollback("1", "version 2 misroutes mortgages").version == "1"
    last = Ledger(home.ledger).entries()[-1]
    assert last.body["reason"] == "version 2 misroutes mortgages"
    assert last.body["previous"]["version"] == "2"
    assert (Registry(home).champion().version, alias(home)) == ("1", "1")
    before = state(home)
    Succession(Registry(home)).rollback("1", "again")
    assert state(home) == before
    Succession(Registry(home)).rollback("2", "it was the data")
    assert alias(home) == "2"


def test_what_was_rolled_back_is_not_promoted_again(home: Home, promoted: Promote, evaluation_of, policy) -> None:
    champion, _ = promoted(A)
    promoted(B)
    Succession(Registry(home)).rollback("1", "version 2 misroutes mortgages")
    verdict = Succession(Registry(home)).judge("2", evaluation_of(B, champion), policy)
    assert verdict.decision == "reject"
    assert "champion before" in verdict.reasons[0]
    assert alias(home) == "1"


def test_a_killed_rollback_is_finished_by_the_next(home: Home, promoted: Promote) -> None:
    promoted(A)
    promoted(B)
    with killed_at(MlflowClient, "set_registered_model_alias", "before"):
        Succession(Registry(home)).rollback("1", "why not")
    Succession(Registry(home)).rollback("1", "why not")
    assert alias(home) == "1"
    assert len(Ledger(home.ledger).entries("alias")) == 3


@pytest.mark.parametrize(
    ("version", "reason", "message"),
    [
        ("9", "r", "text-classifier has no version '9'; there are: 1, 2"),
        ("latest", "r", "text-classifier has no version 'latest'; there are: 1, 2"),
        ("2", "r", "version 2 was never evaluated: it has no tag 'training_id'"),
        ("1", "  ", "a rollback needs a reason"),
    ],
)
def test_rollback_refuses_in_one_line(version, reason, message, home: Home, promoted: Promote) -> None:
    promoted(A)
    client(home).create_model_version(MODEL, source=str(home.root))
    before = state(home)
    with pytest.raises(RegistryError) as caught:
        Succession(Registry(home)).rollback(version, reason)
    assert str(caught.value) == message
    assert state(home) == before


def test_there_is_nothing_to_roll_back_before_the_first_champion(home: Home, bundle_of, evaluation_of) -> None:
    Registry(home).register(bundle_of(A), evaluation_of(A))
    with pytest.raises(RegistryError, match="there is no champion yet"):
        Succession(Registry(home)).rollback("1", "r")
