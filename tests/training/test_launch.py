"""What a model is a function of, which command is started, and what is refused before anything starts."""

import sys
from pathlib import Path

import pytest

from assets.exceptions import BaseModelError, SettingsError, TrainingError
from assets.features.snapshot import Snapshot
from assets.lake import Lake
from assets.settings import TrainingSettings, load_settings
from assets.training.launchers import launch
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import override, plan_training, train
from assets.training.launchers.processes import worker_command


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epochs": 0}, "optimizer.epochs"),
        ({"epochz": 1}, "epochz"),
        ({"batch_rows": "many"}, "optimizer.batch_rows"),
        ({"seed": 1.5}, "optimizer.seed"),
    ],
)
def test_an_override_that_cannot_be_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(SettingsError, match=f"training.{field}: "):
        override(load_settings("quick").training, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deepspeed": "zero-9"}, "no 'zero-9' in configs/deepspeed; it has zero-0"),
        ({"ranks": 3}, "16 rows cannot be shared by 3 ranks"),
        ({"batch_rows": 1024}, "1024, of 256 training rows"),
        ({"hostfile": "/no/such/hostfile"}, "no file /no/such/hostfile"),
    ],
)
def test_settings_that_do_not_fit_stop_before_a_process_starts(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        plan_training(snapshot, override(settings, change), tmp_path, tmp_path)


def test_an_unknown_base_model_leaves_nothing_behind(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run
) -> None:
    with pytest.raises(BaseModelError, match="'no/such-model' is neither a local folder nor in the hub's cache"):
        train(lake, "2024-02-02", snapshot, override(settings, {"base_model": "no/such-model"}), run)
    assert lake.version("challenger/2024-02-02") is None
    assert not list((lake.root / "challenger/2024-02-02").iterdir())


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 3.0}, {"deepspeed": "zero-1"}, {"ranks": 2}])
def test_another_input_is_another_model(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, change: dict[str, object]
) -> None:
    before = plan_training(snapshot, settings, tmp_path, tmp_path).training_id
    assert plan_training(snapshot, override(settings, change), tmp_path, tmp_path).training_id != before


@pytest.mark.parametrize(("change", "shared"), [({"ranks": 2}, True), ({"seed": 1}, False), ({"epochs": 3.0}, False)])
def test_only_the_number_of_ranks_may_change_in_a_run(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, change: dict[str, object], shared: bool
) -> None:
    one, other = (plan_training(snapshot, s, tmp_path, tmp_path) for s in (settings, override(settings, change)))
    assert (one.checkpoints == other.checkpoints) == shared


def test_where_machines_share_a_home_checkpoints_are_copied_to_it(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = plan_training(snapshot, settings, tmp_path, tmp_path)
    servers = {"OBJECTS": "s3://team/home", "DATABASE": "postgresql://127.0.0.1/x", "MLFLOW": "http://127.0.0.1:1"}
    for name, value in servers.items():
        monkeypatch.setenv(f"EVERGREEN_{name}", value)
    shared = plan_training(snapshot, settings, tmp_path, tmp_path)
    assert alone.settings.storage.checkpoints is None
    assert shared.settings.storage.checkpoints == "s3://team/home/checkpoints"
    assert (shared.training_id, shared.checkpoints) == (alone.training_id, alone.checkpoints)
    elsewhere = settings.model_copy(
        update={"storage": shared.settings.storage.model_copy(update={"checkpoints": "s3://other/copies"})}
    )
    assert plan_training(snapshot, elsewhere, tmp_path, tmp_path).settings.storage.checkpoints == "s3://other/copies"


def test_other_code_is_another_model(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan_training(snapshot, settings, tmp_path, tmp_path).training_id
    assert plan_training(snapshot, settings, tmp_path, tmp_path).training_id == before
    monkeypatch.setattr(launch, "hash_code", lambda: "other")
    assert plan_training(snapshot, settings, tmp_path, tmp_path).training_id != before


def test_the_place_of_the_encoder_is_not_part_of_the_model(
    snapshot: Snapshot, settings: TrainingSettings, encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").symlink_to(encoder)
    moved = override(settings, {"base_model": str(tmp_path / "elsewhere")})
    assert (
        plan_training(snapshot, moved, tmp_path, tmp_path).training_id
        == plan_training(snapshot, settings, tmp_path, tmp_path).training_id
    )


def test_a_hostfile_counts_its_slots(snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("one slots=4\n# two slots=16\nthree slots=4\n")
    plan = plan_training(snapshot, override(settings, {"hostfile": str(hostfile)}), tmp_path, tmp_path)
    assert plan.world_size == 8
    hostfile.write_text("one\n")
    with pytest.raises(SettingsError, match="needs lines such as"):
        plan_training(snapshot, override(settings, {"hostfile": str(hostfile)}), tmp_path, tmp_path)


def test_several_ranks_go_through_a_launcher() -> None:
    plan = Path("plan.json")
    assert worker_command(plan, 1, None) == [sys.executable, "-m", "assets.training.program.worker", "plan.json"]
    assert "--nproc-per-node=4" in worker_command(plan, 4, None)
    assert worker_command(plan, 4, "hosts")[3:6] == ["deepspeed", "--hostfile", "hosts"]


def test_the_same_inputs_are_not_trained_again(
    lake: Lake, snapshot: Snapshot, settings: TrainingSettings, bundle_path: Path
) -> None:
    def never(command: list[str]) -> None:
        raise AssertionError(command)

    again = train(lake, snapshot.as_of, snapshot, settings, never)
    assert again.reused
    assert again.path == bundle_path
    assert lake.version(f"challenger/{snapshot.as_of}") == again.training_id


def test_a_damaged_version_is_made_again(lake: Lake, snapshot: Snapshot, settings: TrainingSettings) -> None:
    other = override(settings, {"seed": 77})
    damaged = lake.path("challenger/2024-03-03", plan_training(snapshot, other, lake.root, lake.root).training_id)
    damaged.mkdir(parents=True)
    (damaged / "MANIFEST.json").write_text("{}")

    def stop(command: list[str]) -> None:
        raise TrainingError("started")

    with pytest.raises(TrainingError, match="started"):
        train(lake, "2024-03-03", snapshot, other, stop)
    assert not damaged.exists()
