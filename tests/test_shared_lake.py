"""A lake on S3: what a folder's does, for machines that share nothing else."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assets.exceptions import EvergreenError, NotPublished, ObjectsError, SettingsError, Superseded
from assets.home import Home
from assets.lake import Lake
from assets.objects import Objects
from assets.settings import EMBEDDED
from assets.shared import SharedStore

PREFIX = "team/evergreen"


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


def names(lake: Lake, table: str = "table") -> list[str]:
    return [version for _, version in lake.versions(table)]


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
    assert names(one) == ["a", "b"]
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
        assert lake.versions("predictions") == [(f"predictions/2024-07-0{day}", "v") for day in (1, 2, 3)]


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
        SharedStore(Objects("lake", f"{PREFIX}/lake")).objects.upload("table/b/.123/data", staged / "data", "123")
    assert names(two) == ["a"]
    assert not two.path("table", "b").exists()
    assert publish(two, "b", "whole").name == "b"
    assert (one.current("table") / "data").read_text() == "whole"


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("data", b"other", r"s3://lake/team/evergreen/lake/table/v/\.\w+/data: its content is not what was written"),
        ("data", None, r"s3://lake/team/evergreen/lake/table/v/\.\w+/data is gone"),
        ("MANIFEST.json", b"{", "MANIFEST.json is damaged; restore it"),
        (
            "MANIFEST.json",
            b'{"files": {"../data": {}}, "folders": [], "upload": "u"}',
            "MANIFEST.json is damaged; restore it",
        ),
        (
            "MANIFEST.json",
            b'{"files": {}, "folders": ["/tmp/x"], "upload": "u"}',
            "MANIFEST.json is damaged; restore it",
        ),
        ("MANIFEST.json", b'{"files": {}, "folders": [], "upload": "../u"}', "MANIFEST.json is damaged; restore it"),
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
    assert names(one, "days/2024-07-01") == ["a", "b", "c"]


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


def test_a_version_is_removed_by_its_manifest_and_then_its_objects(
    machines: tuple[Lake, Lake], bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    removed: list[str] = []
    remove = Objects.remove
    monkeypatch.setattr(
        Objects, "remove", lambda self, gone: remove(self, [(removed.append(name), name)[1] for name in gone])
    )
    for version in "ab":
        publish(one, version, version)
    two.path("table", "a")
    one.remove("table", "a")
    assert [name.rpartition("/")[2] for name in removed] == ["MANIFEST.json", "data"]
    assert names(two) == ["b"]
    assert not one.path("table", "a").exists()
    assert not [key for key in keys(bucket) if key.startswith("table/a/")]


def test_what_is_written_again_while_it_is_removed_is_whole(
    machines: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    publish(one, "a", "text")
    store = one.shared
    assert store is not None
    remove, again = Objects.remove, [True]

    def interfere(self: Objects, gone: Any) -> None:
        remove(self, gone)
        if again.pop() if again else False:
            publish(two, "a", "text")

    monkeypatch.setattr(Objects, "remove", interfere)
    store.remove("table", "a")
    shutil.rmtree(two.root)
    assert (two.current("table") / "data").read_text() == "text"


def test_a_copy_of_what_was_removed_is_published_again_by_being_sent(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    publish(one, "a", "text")
    copy = two.path("table", "a")
    publish(one, "b", "other")
    one.remove("table", "a")
    two.publish("table", "a", copy)
    assert (one.current("table") / "data").read_text() == "text"
    one.remove("table", "b")
    publish(two, "b", "others of the same name")
    assert (two.current("table") / "data").read_text() == (one.current("table") / "data").read_text()


def test_the_name_of_a_replaced_version_leads_to_what_took_its_place_everywhere(machines: tuple[Lake, Lake]) -> None:
    one, two = machines
    for version in "ab":
        publish(one, version, version)
    since = one.shared.since("table", "b") if one.shared else 0
    for before, by in (("b", "c"), ("c", "d")):
        with one.staging("table") as staged:
            (staged / "data").write_text(by)
            one.replace("table", before, by, staged)
    for lake in machines:
        assert [lake.path("table", name).name for name in "abcd"] == ["a", "d", "d", "d"]
        assert [lake.name("table", name) for name in "abcdx"] == ["a", "d", "d", "d", "x"]
        assert lake.read("table", "b", "data") == b"d"
        assert (lake.version("table"), names(lake)) == ("d", ["a", "d"])
        assert lake.shared is not None
        assert lake.shared.since("table", "d") == since > 0, "the order of versions stays"
    assert two.read("table", "b", "other") is None


def test_a_file_that_a_version_can_do_without_is_dropped_from_it(machines: tuple[Lake, Lake], bucket: Any) -> None:
    one, two = machines
    with one.staging("table") as staged:
        for name in ("data", "report.html"):
            (staged / name).write_text(name)
        one.publish("table", "v", staged)
    assert one.shared is not None
    for _ in range(2):
        one.shared.drop("table", "v", "report.html")
    assert [path.name for path in two.current("table").iterdir()] == ["data"]
    assert not [key for key in keys(bucket) if key.endswith("report.html")]
    one.shared.drop("table", "w", "report.html")


def test_a_table_whose_past_nobody_needs_has_one_version(machines: tuple[Lake, Lake], bucket: Any) -> None:
    for place, lake in enumerate((*machines, *machines)):
        with lake.staging("table") as staged:
            (staged / "data").write_text(str(place))
            lake.publish_alone("table", f"v{place}", staged)
    assert names(machines[0]) == ["v3"]
    assert len(keys(bucket)) == 3


def partitioned(lake: Lake, version: str, **parts: str) -> Path:
    with lake.staging("table") as staged:
        for name, text in parts.items():
            (staged / "parts").mkdir(exist_ok=True)
            (staged / "parts" / name).write_text(text)
        return lake.publish("table", version, staged)


def test_what_a_version_has_in_common_with_the_one_before_it_is_kept_once(
    machines: tuple[Lake, Lake], bucket: Any
) -> None:
    one, two = machines
    partitioned(one, "a", old="old", week="monday")
    partitioned(two, "b", old="old", week="tuesday")
    partitioned(one, "c", old="old", week="tuesday", next="more")
    partitioned(one, "d", old="older", week="tuesday", next="more")

    def objects() -> list[str]:
        found = [key.split("/") for key in keys(bucket) if "/parts/" in key]
        return sorted(f"{parts[1]}/{parts[-1]}" for parts in found)

    assert objects() == ["a/old", "a/week", "b/week", "c/next", "d/old"]
    for gone, left in (
        ("a", ["a/old", "b/week", "c/next", "d/old"]),
        ("c", ["a/old", "b/week", "c/next", "d/old"]),
        ("b", ["b/week", "c/next", "d/old"]),
    ):
        one.remove("table", gone)
        assert objects() == left
        assert one.shared is not None
        assert list(one.shared.abandoned(one.shared.listing())) == []
    shutil.rmtree(two.root)
    assert {path.name: path.read_text() for path in (two.current("table") / "parts").iterdir()} == {
        **{"old": "older", "week": "tuesday", "next": "more"}
    }
    one.remove("table", "d")
    assert objects() == []


def test_a_version_owns_what_it_shares_with_one_that_is_removed_meanwhile(
    machines: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removes the one does not see the other's manifest yet."""
    one, two = machines
    partitioned(one, "a", old="old", week="monday")
    create = Objects.create

    def interfere(self: Objects, name: str, content: bytes) -> bool:
        if name == "table/b/MANIFEST.json":
            one.remove("table", "a")
        return create(self, name, content)

    monkeypatch.setattr(Objects, "create", interfere)
    partitioned(two, "b", old="old", week="tuesday")
    shutil.rmtree(two.root)
    assert (two.path("table", "b") / "parts" / "old").read_text() == "old"
    assert one.shared is not None
    assert list(one.shared.abandoned(one.shared.listing())) == []


@pytest.mark.parametrize("at", ["../other/.upload", "a/../../.upload"])
def test_a_manifest_that_leads_out_of_its_table_is_damaged(machines: tuple[Lake, Lake], bucket: Any, at: str) -> None:
    one, two = machines
    publish(one, "a", "text")
    manifest = bucket.Object(f"{PREFIX}/lake/table/a/MANIFEST.json")
    content = json.loads(manifest.get()["Body"].read())
    content["files"]["data"]["at"] = at
    manifest.put(Body=json.dumps(content))
    with pytest.raises(ObjectsError, match=r"table/a/MANIFEST.json is damaged"):
        two.current("table")


def test_what_is_removed_while_it_is_fetched_is_not_read(
    machines: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    publish(one, "a", "text")
    publish(one, "b", "other")
    download = Objects.download

    def interfere(self: Objects, *about: Any) -> bool:
        done = download(self, *about)
        one.remove("table", "a")
        return done

    monkeypatch.setattr(Objects, "download", interfere)
    assert not two.path("table", "a").exists()


def test_what_could_not_be_removed_is_told(machines: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = machines
    publish(one, "a", "text")
    refusing = SimpleNamespace(delete_objects=lambda **_: {"Errors": [{"Key": "k", "Code": "AccessDenied"}]})
    with monkeypatch.context() as patched:
        patched.setattr(Objects, "_client", refusing)
        with pytest.raises(EvergreenError, match="s3://lake/k could not be removed: AccessDenied; run again"):
            Objects("lake", "").remove(["k"])
    assert names(one) == ["a"]
