"""Local files, folders and S3 list the same keys; what is wrong with a source is one clear line."""

import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import boto3
import pytest

from assets.exceptions import SourceError
from assets.hashing import hash_file, hash_tree
from assets.ingestion.landing import Landing, ingest
from assets.ingestion.sources import fingerprint, list_objects
from assets.lake import Lake
from assets.s3 import UnreachableError
from assets.settings import IngestionSettings, load_domain
from tests.conftest import empty_bucket

DOMAIN = load_domain()

WriteCsv = Callable[[Path, Iterable[list[str]]], Path]


@pytest.fixture
def folder(tmp_path: Path, write_csv: WriteCsv, complaint: Callable[..., list[str]]) -> Path:
    write_csv(tmp_path / "in" / "b.csv", [complaint(1), complaint(2)])
    write_csv(tmp_path / "in" / "2024" / "a.csv", [complaint(3), complaint(4)[:-1]])
    (tmp_path / "in" / "README.md").write_text("not a source")
    return tmp_path / "in"


@pytest.fixture
def s3(objects_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    empty_bucket("complaints", objects_server, monkeypatch)
    return objects_server


def upload(folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            boto3.client("s3").upload_file(str(path), "complaints", prefix + path.relative_to(folder).as_posix())


def test_a_folder_lists_its_objects_by_relative_key(folder: Path) -> None:
    assert [found.key for found in list_objects([str(folder)]).objects] == ["2024/a.csv", "b.csv"]
    assert [found.key for found in list_objects([str(folder / "b.csv")]).objects] == ["b.csv"]


def test_a_bucket_gives_the_same_publication_as_the_folder(
    folder: Path, tmp_path: Path, settings: IngestionSettings, s3: str
) -> None:
    upload(folder, "in/")
    (folder / "c.csv").write_text("a neighbour of the prefix")
    upload(folder, "in-2/")
    (folder / "c.csv").unlink()
    local = ingest([str(folder)], Lake(tmp_path / "local"), settings, DOMAIN, "2023-02-01")
    for source in ("s3://complaints/in", "s3://complaints/in/"):
        remote = ingest([source], Lake(tmp_path / "remote"), settings, DOMAIN, "2023-02-01")
        assert remote.version == local.version
        assert hash_tree(remote.path) == hash_tree(local.path)
        assert {p.name for p in remote.path.iterdir()} == {"records", "rejects", "objects.parquet"}
    assert [found.key for found in list_objects(["s3://complaints/in/b.csv"]).objects] == ["b.csv"]


def test_an_object_is_hashed_on_its_way(folder: Path, tmp_path: Path, s3: str) -> None:
    upload(folder, "")
    found = list_objects(["s3://complaints"]).objects[-1]
    with found.fetch(tmp_path) as fetched:
        assert fetched.sha256 == hash_file(folder / "b.csv")
        assert fetched.path.read_bytes() == (folder / "b.csv").read_bytes()
        assert fetched.stable
    assert not fetched.path.exists()


def test_a_night_over_s3_gets_only_what_is_new_or_changed(
    folder: Path, tmp_path: Path, settings: IngestionSettings, s3: str, caplog: pytest.LogCaptureFixture
) -> None:
    def night(lake: Lake) -> tuple[Landing, list[str]]:
        caplog.clear()
        landing = ingest(["s3://complaints/in"], lake, settings, DOMAIN, "2023-02-01")
        gets = [
            record.getMessage().split()[6] for record in caplog.records if "GET /complaints/" in record.getMessage()
        ]
        return landing, gets

    caplog.set_level("INFO", "werkzeug")
    upload(folder, "in/")
    lake = Lake(tmp_path / "lake")
    assert night(lake)[1] == ["/complaints/in/2024/a.csv", "/complaints/in/b.csv"]
    assert night(lake)[1] == []
    (folder / "b.csv").write_bytes((folder / "2024" / "a.csv").read_bytes())
    upload(folder / "2024", "in/2025/")
    upload(folder, "in/")
    boto3.client("s3").delete_object(Bucket="complaints", Key="in/2024/a.csv")
    landing, gets = night(lake)
    assert gets == ["/complaints/in/2025/a.csv", "/complaints/in/b.csv"]
    assert landing.overwritten == ("s3://complaints/in/b.csv",)
    assert landing.deleted == ("s3://complaints/in/2024/a.csv",)
    assert landing.not_read == ("s3://complaints/in/README.md",)
    (lake.root / "raw_records" / "seen.json").unlink()
    again, gets = night(lake)
    assert (again.version, len(gets), again.overwritten) == (landing.version, 2, ())


def test_an_object_in_s3_is_whole_whatever_its_last_line(
    folder: Path, tmp_path: Path, settings: IngestionSettings, s3: str
) -> None:
    (folder / "b.csv").write_bytes((folder / "b.csv").read_bytes()[:-1])
    upload(folder, "in/")
    lake = Lake(tmp_path / "lake")
    local = ingest([str(folder / "b.csv")], lake, settings, DOMAIN, "2023-02-01")
    assert (local.records, local.reasons) == (1, {"unfinished-last-line": 1})
    remote = ingest(["s3://complaints/in/b.csv"], lake, settings, DOMAIN, "2023-02-02")
    assert (remote.records, remote.rejects, len(remote.objects)) == (2, 0, 1)


def test_a_fingerprint_changes_with_the_objects(folder: Path, s3: str) -> None:
    upload(folder, "")
    before = fingerprint([str(folder)]), fingerprint(["s3://complaints"])
    assert before == (fingerprint([str(folder)]), fingerprint(["s3://complaints"]))
    (folder / "c.csv").write_text("new")
    upload(folder, "")
    assert fingerprint([str(folder)]) != before[0]
    assert fingerprint(["s3://complaints"]) != before[1]


@pytest.mark.parametrize("source", ["s3://complaints/nothing", "s3://no-such-bucket/in", "s3:///in"])
def test_what_s3_refuses_is_one_clear_line(s3: str, source: str) -> None:
    with pytest.raises(SourceError, match=source) as caught:
        list_objects([source])
    assert "\n" not in str(caught.value)


def test_an_unreachable_endpoint_is_named(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(UnreachableError, match=f"s3://complaints/in: no answer .*{endpoint}"):
            list_objects(["s3://complaints/in"])


def test_a_local_source_that_holds_nothing_is_one_clear_line(folder: Path) -> None:
    (folder / "empty").mkdir()
    for name, problem in (("nope", "no such file"), ("empty", r"no \*\.csv"), ("README.md", "ends in")):
        with pytest.raises(SourceError, match=problem):
            list_objects([str(folder), str(folder / name)])
