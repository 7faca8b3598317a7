"""What a cluster and the machine of a run exchange through S3: whole folders, or none."""

from pathlib import Path
from typing import Any

import boto3
import pytest

from assets.cluster.exchange import Exchange, files_under
from assets.exceptions import ObjectsError
from assets.hashing import hash_tree


@pytest.fixture
def exchange(bucket: Any) -> Exchange:
    return Exchange("s3://lake/home/training/one")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here" / "inside").mkdir(parents=True)
    (tmp_path / "here" / "MANIFEST.json").write_text("{}")
    (tmp_path / "here" / "inside" / "weights").write_bytes(bytes(range(256)))
    return tmp_path / "here"


def test_a_folder_arrives_as_it_was(exchange: Exchange, folder: Path, tmp_path: Path) -> None:
    assert not exchange.has("bundle")
    exchange.put("bundle", files_under(folder))
    assert exchange.has("bundle")
    exchange.get("bundle", tmp_path / "there")
    assert hash_tree(tmp_path / "there") == hash_tree(folder)


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_folder_that_is_not_as_it_was_put_does_not_appear(
    exchange: Exchange, folder: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.objects._WAITS", ())
    exchange.put("bundle", files_under(folder))
    place = {"Bucket": "lake", "Key": "home/training/one/bundle/inside/weights"}
    if damage == "gone":
        boto3.client("s3").delete_object(**place)
    else:
        boto3.client("s3").put_object(**place, Body=b"other")
    with pytest.raises(ObjectsError, match=r"^s3://lake/home/training/one.") as error:
        exchange.fetch("bundle", tmp_path / "there")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "there").exists()


def test_a_folder_that_is_here_is_not_fetched_again(exchange: Exchange, folder: Path, tmp_path: Path) -> None:
    exchange.put("snapshot", files_under(folder))
    exchange.fetch("snapshot", tmp_path / "there")
    exchange.clear()
    exchange.fetch("snapshot", tmp_path / "there")
    assert hash_tree(tmp_path / "there") == hash_tree(folder)


def test_what_is_cleared_is_one_training_s(exchange: Exchange, folder: Path) -> None:
    other = Exchange("s3://lake/home/training/one-more")
    for each in (exchange, other):
        each.put("bundle", files_under(folder))
        each.write("failure.txt", "a line")
    exchange.clear()
    assert not exchange.has("bundle")
    assert exchange.read("failure.txt") is None
    assert other.has("bundle")
    assert other.read("failure.txt") == "a line"
    other.remove("failure.txt")
    assert other.read("failure.txt") is None


def test_a_folder_of_folders_comes_as_one(exchange: Exchange, folder: Path, tmp_path: Path) -> None:
    for name in ("parts/1", "parts/0"):
        exchange.put(name, files_under(folder))
    exchange.write("parts/2/half", "of a folder whose maker was killed")
    assert exchange.folders("parts") == ["0", "1"]
    with pytest.raises(ObjectsError, match=r"home/training/one: there is no parts/2$"):
        exchange.join("parts", ["0", "1", "2"])
    assert not exchange.has("parts")
    exchange.join("parts", ["0", "1"])
    exchange.fetch("parts", tmp_path / "there")
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"0", "1"}
    assert hash_tree(tmp_path / "there" / "1") == hash_tree(folder)
