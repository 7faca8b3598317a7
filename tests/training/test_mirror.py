"""Copies of checkpoints in S3: damage is seen, a lost machine costs nothing, and a lost S3 costs only the copies."""

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from assets.exceptions import SettingsError, TrainingError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file, hash_tree
from assets.lake import Lake
from assets.settings import TrainingSettings
from assets.training.launchers.launch import override, train
from assets.training.program.checkpoints import Checkpoints
from assets.training.program.mirror import Mirror, Uploads

ROOT = Path(__file__).parents[2]


def keys() -> set[str]:
    found = boto3.client("s3").list_objects_v2(Bucket="team").get("Contents", [])
    return {entry["Key"] for entry in found}


def copy(mirror: Mirror, folder: Path) -> None:
    mirror.put(folder.name, {path.name: path.open("rb") for path in folder.iterdir()})


@pytest.fixture
def mirror(s3: ThreadedMotoServer, tmp_path: Path, save_checkpoint: Callable[..., Path]) -> Mirror:
    """Copies of the checkpoints of steps 10 and 20, which are in the folder `lost`."""
    mirror = Mirror("team", "evergreen/run", kept=2)
    for step in (10, 20):
        copy(mirror, save_checkpoint(Checkpoints(tmp_path / "lost", kept=2), step))
    return mirror


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    return content[:7] + bytes([content[7] ^ 1]) + content[8:]


def test_a_copy_is_brought_back_as_it_was(mirror: Mirror, tmp_path: Path) -> None:
    new = Checkpoints(tmp_path / "new", kept=2)
    assert mirror.fetch(new) == 20
    assert new.newest() == 20
    assert hash_tree(new.path(20)) == hash_tree(tmp_path / "lost" / "step-00000020")
    assert mirror.fetch(new) is None


def test_what_the_machine_has_is_taken_when_it_is_as_new_and_whole(mirror: Mirror, tmp_path: Path) -> None:
    old = Checkpoints(tmp_path / "lost", kept=2)
    assert mirror.fetch(old) is None
    (old.path(20) / "model.pt").write_bytes(b"")
    assert old.newest() == 10
    assert mirror.fetch(old) == 20
    assert old.newest() == 20


@pytest.mark.parametrize("name", ["model.pt", "rank-0.pt", "MANIFEST.json"])
@pytest.mark.parametrize("damage", [truncate, flip, None])
def test_a_damaged_object_is_recognised_and_the_copy_before_is_taken(
    mirror: Mirror, tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None
) -> None:
    place, client = {"Bucket": "team", "Key": f"evergreen/run/step-00000020/{name}"}, boto3.client("s3")
    if damage is None:
        client.delete_object(**place)
    else:
        client.put_object(**place, Body=damage(client.get_object(**place)["Body"].read()))
    new = Checkpoints(tmp_path / "new", kept=2)
    assert mirror.fetch(new) == 10
    assert {path.name for path in new.folder.iterdir()} == {"step-00000010", "CURRENT"}


@pytest.mark.parametrize("pointer", [b"", b"step-00000030", b"\xff", None])
def test_a_damaged_pointer_costs_nothing(mirror: Mirror, tmp_path: Path, pointer: bytes | None) -> None:
    place, client = {"Bucket": "team", "Key": "evergreen/run/CURRENT"}, boto3.client("s3")
    if pointer is None:
        client.delete_object(**place)
    else:
        client.put_object(**place, Body=pointer)
    assert mirror.fetch(Checkpoints(tmp_path / "new", kept=2)) == 20


def test_the_newest_are_kept_and_the_pointer_moves_last(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_checkpoint: Callable[..., Path]
) -> None:
    put: list[str] = []
    client = mirror._client
    upload, put_object = client.upload_fileobj, client.put_object
    monkeypatch.setattr(client, "upload_fileobj", lambda *a, **k: [put.append(a[2]), upload(*a, **k)])
    monkeypatch.setattr(client, "put_object", lambda **k: [put.append(k["Key"]), put_object(**k)])
    copy(mirror, save_checkpoint(Checkpoints(tmp_path / "lost", kept=2), 30))
    assert [key.rsplit("/")[-1] for key in put[-2:]] == ["MANIFEST.json", "CURRENT"]
    folders = {key.split("/")[2] for key in keys()}
    assert folders == {"step-00000020", "step-00000030", "CURRENT"}


def test_a_run_that_is_over_leaves_nothing_and_touches_no_other(mirror: Mirror) -> None:
    client = boto3.client("s3")
    client.put_object(Bucket="team", Key="evergreen/run-2/CURRENT", Body=b"step-00000001")
    client.create_multipart_upload(Bucket="team", Key="evergreen/run/step-00000030/model.pt")
    mirror.clear()
    assert keys() == {"evergreen/run-2/CURRENT"}
    assert "Uploads" not in client.list_multipart_uploads(Bucket="team")


def test_a_copy_that_fails_is_one_line(mirror: Mirror, tmp_path: Path, s3: ThreadedMotoServer) -> None:
    said: list[str] = []
    uploads = Uploads(Mirror("nowhere", "run", kept=1), said.append)
    uploads.begin(tmp_path / "lost" / "step-00000020")
    uploads._thread.shutdown(wait=True)
    assert len(said) == 1
    assert said[0].startswith("step-00000020 could not be copied, the copy before it stays: s3://nowhere/run: ")
    assert "\n" not in said[0]


def test_a_copy_outlives_the_folder_that_it_is_made_from(
    mirror: Mirror, tmp_path: Path, save_checkpoint: Callable[..., Path]
) -> None:
    lost = Checkpoints(tmp_path / "lost", kept=1)
    uploads = Uploads(mirror, pytest.fail)
    uploads.begin(save_checkpoint(lost, 30))
    save_checkpoint(lost, 40)
    assert not lost.path(30).exists()
    uploads._thread.shutdown(wait=True)
    assert mirror.fetch(Checkpoints(tmp_path / "new", kept=2)) == 30


@pytest.fixture
def copied(settings: TrainingSettings) -> TrainingSettings:
    return override(settings, {"checkpoint_seconds": 0.05, "checkpoints": "s3://team/evergreen/"})


def started(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_run_goes_on_from_s3_when_its_machine_is_gone(
    lake: Lake, snapshot: Snapshot, copied: TrainingSettings, bundle_path: Path, tmp_path: Path, s3: ThreadedMotoServer
) -> None:
    shown: list[str] = []

    def killed(command: list[str]) -> None:
        process = started(command)
        while sum(key.endswith("MANIFEST.json") for key in keys()) < 2:
            assert process.poll() is None, "the run ended before it was copied twice"
            time.sleep(0.01)
        process.kill()
        process.wait()
        raise TrainingError("killed")

    def finished(command: list[str]) -> None:
        process = started(command)
        shown.extend(line for line in process.communicate()[1].splitlines() if line.startswith("resumed"))
        assert process.returncode == 0

    here, there = Lake(tmp_path / "here" / "lake"), Lake(tmp_path / "there" / "lake")
    with pytest.raises(TrainingError, match="killed"):
        train(here, "2024-01-01", snapshot, copied, killed)
    again = train(there, "2024-01-01", snapshot, copied, finished)
    assert len(shown) == 1
    assert again.report["resumed"] == "exact"
    assert hash_file(again.path / "model.safetensors") == hash_file(bundle_path / "model.safetensors")
    assert keys() == set()


@pytest.mark.slow
def test_an_s3_that_goes_away_costs_only_the_copies(
    snapshot: Snapshot, copied: TrainingSettings, bundle_path: Path, tmp_path: Path, s3: ThreadedMotoServer
) -> None:
    shown: list[str] = []

    def alone(command: list[str]) -> None:
        s3.stop()
        process = started(command)
        shown.extend(process.communicate()[1].splitlines())
        assert process.returncode == 0

    made = train(Lake(tmp_path / "lake"), "2024-01-01", snapshot, copied, alone)
    assert hash_file(made.path / "model.safetensors") == hash_file(bundle_path / "model.safetensors")


def test_an_s3_that_does_not_answer_stops_the_run_before_it_starts(
    snapshot: Snapshot,
    copied: TrainingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3: ThreadedMotoServer,
) -> None:
    def never(command: list[str]) -> None:
        raise AssertionError(command)

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(
            SettingsError, match=r"training.storage.checkpoints: s3://team/evergreen/\w+: no answer"
        ) as error:
            train(Lake(tmp_path / "lake"), "2024-01-01", snapshot, copied, never)
    assert "\n" not in str(error.value)
    elsewhere = override(copied, {"checkpoints": "s3://nowhere"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*s3.get_host_and_port()))
    with pytest.raises(SettingsError, match=r"training.storage.checkpoints: s3://nowhere/.*does not exist"):
        train(Lake(tmp_path / "lake"), "2024-01-01", snapshot, elsewhere, never)


def test_the_setting_is_an_address_in_s3(copied: TrainingSettings) -> None:
    with pytest.raises(SettingsError, match=r"training.storage.checkpoints: "):
        override(copied, {"checkpoints": "/a/folder"})
