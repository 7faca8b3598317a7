"""A lake on S3: what a folder's does, for machines that share nothing else."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from assets.exceptions import EvergreenError, NotPublished, SettingsError, Superseded
from assets.home import Home
from assets.lake import Lake
from assets.objects import Objects
from assets.retention.prune import prune
from assets.settings import EMBEDDED, load_settings
from assets.shared import SharedStore

PREFIX = "team/evergreen"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    bucket = boto3.resource("s3").Bucket("lake")
    bucket.create()
    bucket.objects.delete()
    return bucket


def shared(folder: Path, prefix: str) -> Home:
    """A home on S3, with a folder of this machine's."""
    return Home(folder, EMBEDDED.model_copy(update={"objects": f"s3://lake/{prefix}"}))


@pytest.fixture
def machines(bucket: Any, tmp_path: Path) -> tuple[Lake, Lake]:
    """The lakes of two machines that share a prefix, and no folder."""
    one, two = (shared(tmp_path / name, PREFIX).lake for name in ("one", "two"))
    return one, two


def publish(lake: Lake, version: str, text: str, table: str = "table") -> Path:
    with lake.staging(table) as staged:
        (staged / "data").write_text(text)
        return lake.publish(table, version, staged)


def keys(bucket: Any) -> list[str]:
    return [entry.key.removeprefix(f"{PREFIX}/lake/") for entry in bucket.objects.all()]


def test_what_a_machine_publishes_another_reads(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    with pytest.raises(NotPublished, match="table has no publication yet"):
        two.current("table")
    publish(one, "a", "first")
    assert (two.current("table") / "data").read_text() == "first"
    publish(two, "b", "second")
    assert (one.current("table") / "data").read_text() == "second"
    assert one.version("table") == two.version("table") == "b"
    assert (two.path("table", "a") / "data").read_text() == "first"
    assert one.versions_of("table") == ["a", "b"]
    assert not one.path("table", "c").exists()


def test_folders_and_files_come_as_they_were(machines: tuple[Lake, Lake]) -> None:
    one, _ = machines
    with one.staging("table") as staged:
        (staged / "parts" / "deep").mkdir(parents=True)
        (staged / "empty").mkdir()
        (staged / "parts" / "deep" / "a.bin").write_bytes(bytes(range(256)))
        (staged / "MANIFEST.json").write_text("a file of the version's own")
        (staged / "nothing").touch()
        one.publish("table", "v", staged)
    shutil.rmtree(one.root)
    for lake in machines:
        folder = lake.current("table")
        assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
            *("MANIFEST.json", "empty", "nothing", "parts", "parts/deep", "parts/deep/a.bin")
        ]
        assert (folder / "parts" / "deep" / "a.bin").read_bytes() == bytes(range(256))
        assert (folder / "MANIFEST.json").read_text() == "a file of the version's own"


def test_two_who_build_on_the_same_publication_never_publish_over_each_other(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "a", "first")
    with one.staging("table") as staged:
        (staged / "data").write_text("mine")
        publish(two, "b", "theirs")
        with pytest.raises(Superseded, match="table: another run has replaced a by b in the meantime; run again"):
            one.publish("table", "c", staged)
    assert one.version("table") == "b"
    assert (two.path("table", "c") / "data").read_text() == "mine"  # nothing is lost


def test_a_first_publication_has_one_writer_too(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    with one.staging("table") as staged:
        (staged / "data").write_text("mine")
        publish(two, "b", "theirs")
        with pytest.raises(Superseded, match="another run has replaced None by b"):
            one.publish("table", "c", staged)


def test_there_and_back_is_another_publication(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "a", "first")
    with one.staging("table") as staged:
        (staged / "data").write_text("of what a was")
        publish(two, "b", "second")
        publish(two, "a", "first")
        with pytest.raises(Superseded, match="another run has replaced a by a"):
            one.publish("table", "c", staged)


def test_who_publishes_what_another_did_has_done_so(machines: tuple[Lake, Lake], bucket: Any) -> None:
    one, two = machines
    publish(one, "a", "first")
    with one.staging("table") as staged:
        (staged / "data").write_text("the same")
        publish(two, "b", "the same")
        one.publish("table", "b", staged)
    before = json.loads(bucket.Object(f"{PREFIX}/lake/table/CURRENT").get()["Body"].read())
    assert [version for version, _ in before["moves"]] == ["a", "b"]
    one.publish("table", "b", one.path("table", "b"))
    assert json.loads(bucket.Object(f"{PREFIX}/lake/table/CURRENT").get()["Body"].read()) == before


def test_a_version_is_immutable_whoever_writes_it(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    with one.staging("table") as staged:
        (staged / "data").write_text("first")
        with two.staging("table") as other:
            (other / "data").write_text("other bytes")
            two.keep("table", "a", other)
        one.keep("table", "a", staged)
    assert (one.path("table", "a") / "data").read_text() == "other bytes"
    assert (two.path("table", "a") / "data").read_text() == "other bytes"


def test_a_pointer_moves_only_from_where_its_mover_saw_it(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "a", "first")
    with one.staging("table") as staged:
        (staged / "data").write_text("b")
        one.keep("table", "b", staged)
    publish(two, "c", "of another machine")
    with pytest.raises(Superseded, match="table: another run has replaced a by c in the meantime; run again"):
        one.point("table", "b", "a")
    with pytest.raises(EvergreenError, match="table has no version d"):
        one.point("table", "d", "c")
    two.point("table", "b", "c")
    assert one.version("table") == "b"


def test_tables_are_listed_by_their_pointers(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    for day in ("2024-07-02", "2024-07-01"):
        publish(one, "v", "text", f"predictions/{day}")
    with one.staging("predictions/2024-07-03") as staged:
        (staged / "data").write_text("not published")
        one.keep("predictions/2024-07-03", "v", staged)
    publish(one, "v", "text", "predictions_of_another/2024-07-04")
    for lake in (two, one):
        assert lake.tables("predictions") == ["predictions/2024-07-01", "predictions/2024-07-02"]
        assert lake.kept("predictions") == [(f"predictions/2024-07-0{day}", "v") for day in (1, 2, 3)]


def test_what_was_written_is_not_fetched_and_what_is_here_is_linked(
    machines: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    fetched: list[str] = []
    download = Objects.download
    monkeypatch.setattr(
        Objects, "download", lambda self, name, *rest: (fetched.append(name), download(self, name, *rest))[1]
    )
    for version, texts in (("v1", ("same", "old")), ("v2", ("same", "new!"))):
        with one.staging("table") as staged:
            for name, text in zip("ab", texts, strict=True):
                (staged / name).write_text(text)
            one.publish("table", version, staged)
    one.current("table")
    assert fetched == []
    first = two.path("table", "v1") / "a"
    assert first.samefile(two.path("table", "v1") / "a")
    assert (two.current("table") / "a").samefile(first)
    assert sorted(name.rpartition("/")[2] for name in fetched) == ["a", "b", "b"]


def test_a_damaged_copy_beside_is_not_linked(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "v1", "same")
    (two.current("table") / "data").write_text("lost")
    publish(one, "v2", "same")
    assert (two.current("table") / "data").read_text() == "same"


def test_many_fetch_one_version_at_the_same_time(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "v", "text" * 10_000)
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: (two.current("table") / "data").read_text(), range(16)))
    assert texts == {"text" * 10_000}
    assert [path.name for path in (two.root / "table").iterdir()] == ["v"]


def test_what_a_killed_reader_had_fetched_is_fetched_again(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "v", "whole")
    half = two.root / "table" / ".fetched-v"
    half.mkdir(parents=True)
    (half / "data").write_text("who")
    assert (two.current("table") / "data").read_text() == "whole"
    assert not half.exists()


def test_a_version_without_its_manifest_does_not_exist(machines: tuple[Lake, Lake], bucket: Any) -> None:
    one, two = machines
    publish(one, "a", "first")
    with one.staging("table") as staged:
        (staged / "data").write_text("half")
        SharedStore(Objects("lake", f"{PREFIX}/lake")).objects.upload("table/b/123/data", staged / "data", "123")
    assert two.versions_of("table") == ["a"]
    assert not two.path("table", "b").exists()
    assert publish(two, "b", "whole").name == "b"
    assert (one.current("table") / "data").read_text() == "whole"


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("data", b"other", r"s3://lake/team/evergreen/lake/table/v/\w+/data: its content is not what was written"),
        ("data", None, r"s3://lake/team/evergreen/lake/table/v/\w+/data is gone"),
        ("MANIFEST.json", b"{", "MANIFEST.json is damaged; restore it"),
        ("MANIFEST.json", b'{"files": {"../data": {}}, "folders": []}', "MANIFEST.json is damaged; restore it"),
        ("MANIFEST.json", b'{"files": {}, "folders": ["/tmp/x"]}', "MANIFEST.json is damaged; restore it"),
        ("MANIFEST.json", None, "table: version v, its current one, is gone"),
        ("CURRENT", b"{}", "s3://lake/team/evergreen/lake/table/CURRENT is damaged; restore it"),
        ("CURRENT", b'{"moves": [], "generation": 1}', "CURRENT is damaged; restore it"),
        ("CURRENT", b"\xff", "CURRENT is damaged; restore it"),
        ("CURRENT", b'{"moves": [["../x", "m"]], "generation": 1}', "CURRENT is damaged; restore it"),
    ],
)
def test_damage_is_one_line_that_names_the_object(
    machines: tuple[Lake, Lake],
    bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    content: bytes | None,
    message: str,
) -> None:
    monkeypatch.setattr("assets.objects._WAITS", (0, 0))
    one, two = machines
    publish(one, "v", "text")
    (found,) = [entry for entry in bucket.objects.all() if entry.key.endswith(f"/{key}")]
    found.delete() if content is None else found.put(Body=content)
    with pytest.raises(EvergreenError, match=message) as error:
        two.current("table")
    assert "\n" not in str(error.value)


def test_a_file_is_read_without_the_others(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "v", "text")
    for lake in machines:
        assert lake.read("table", "v", "data") == b"text"
        assert lake.read("table", "v", "other") is None
        assert lake.read("table", "w", "data") is None
    assert not (two.root / "table").exists()


def test_a_killed_writers_folder_is_removed(machines: tuple[Lake, Lake]) -> None:
    one, _ = machines
    (one.root / "table" / ".staging-x.none").mkdir(parents=True)
    publish(one, "v", "text")
    assert [path.name for path in (one.root / "table").iterdir()] == ["v"]


def test_a_name_cannot_leave_the_lake(machines: tuple[Lake, Lake]) -> None:
    for name in ("../x", "a/../b", "/etc", "", "a//b"):
        with pytest.raises(EvergreenError, match="is not the name of a table"):
            machines[0].version(name)


def test_copies_from_one_address_are_never_taken_for_anothers(bucket: Any, tmp_path: Path) -> None:
    publish(shared(tmp_path / "a", "one").lake, "v", "of one")
    with pytest.raises(SettingsError, match="a has copies of s3://lake/one, not of s3://lake/two; choose another"):
        _ = shared(tmp_path / "a", "two").lake
    with pytest.raises(SettingsError, match="not of a home here; choose another folder, or set EVERGREEN_OBJECTS"):
        _ = Home(tmp_path / "a").lake
    publish(Home(tmp_path / "b").lake, "v", "of none")
    with pytest.raises(SettingsError, match="b is a home of its own; choose another folder for copies of s3://lake/o"):
        _ = shared(tmp_path / "b", "one").lake


def test_copies_are_bounded_and_of_what_is_still_there(machines: tuple[Lake, Lake], bucket: Any) -> None:
    one, two = machines
    for version in "abc":
        publish(one, version, version * 1000)
        publish(one, version, version * 1000, "days/2024-07-01")
    for version in "cab":
        two.path("table", version)
    one.trim(1e9)
    assert [path.name for path in sorted((one.root / "table").iterdir())] == ["a", "b", "c"]
    two.trim(2 * 1000)
    assert [path.name for path in sorted((two.root / "table").iterdir())] == ["a", "b"]
    bucket.objects.filter(Prefix=f"{PREFIX}/lake/table/b/").delete()
    for lake in machines:
        lake.trim(1e9)
        assert not lake.path("table", "b").exists()
        assert (lake.path("table", "c") / "data").read_text() == "c" * 1000
    assert one.versions_of("days/2024-07-01") == ["a", "b", "c"]


def test_a_lake_of_its_own_is_not_trimmed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, "a", "text")
    lake.trim(0)
    assert lake.version("table") == "a"


def test_a_prefix_belongs_to_the_domain_that_claimed_it_first(bucket: Any, tmp_path: Path) -> None:
    one, two = (shared(tmp_path / name, PREFIX) for name in ("one", "two"))
    one.claim()
    two.claim()
    assert bucket.Object(f"{PREFIX}/DOMAIN").get()["Body"].read() == f"{one.domain.name}\nday".encode()
    bucket.Object(f"{PREFIX}/DOMAIN").put(Body=b"another\nday")
    for act in (two.require_known, two.claim):
        with pytest.raises(SettingsError, match=rf"EVERGREEN_OBJECTS: s3://lake/{PREFIX} is the home of the domain an"):
            act()
    bucket.Object(f"{PREFIX}/DOMAIN").put(Body=f"{one.domain.name}\nhour".encode())
    with pytest.raises(SettingsError, match="has a night every hour, not every day; keep that cadence"):
        two.claim()


def test_retention_removes_no_ones_versions_where_machines_share_them(bucket: Any, tmp_path: Path) -> None:
    home = shared(tmp_path / "one", PREFIX)
    for version in "abc":
        publish(home.lake, version, version * 1000)
    pruned = prune(home, load_settings("quick").retention.model_copy(update={"copies_gb": 2e-6}))
    assert pruned.removed == ()
    assert home.lake.versions_of("table") == ["a", "b", "c"]
    assert [path.name for path in sorted((home.root / "lake" / "table").iterdir())] == ["b", "c"]
