import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assets.exceptions import EvergreenError, NotPublished, SettingsError, Superseded
from assets.hashing import hash_tree
from assets.home import Home
from assets.lake import Lake
from assets.writing import replacing, write_atomically


def publish(lake: Lake, version: str, text: str) -> Path:
    with lake.staging("table") as staged:
        (staged / "data").write_text(text)
        return lake.publish("table", version, staged)


def test_readers_see_the_version_that_was_published_last(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    with pytest.raises(NotPublished, match="table has no publication yet"):
        lake.current("table")
    publish(lake, "a", "first")
    publish(lake, "b", "second")
    assert (lake.current("table") / "data").read_text() == "second"
    assert (lake.path("table", "a") / "data").read_text() == "first"


def test_versions_are_listed_whether_published_or_not(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    one, two = "family/2024-01-01", "family/2024-01-02"
    assert lake.versions(one) == lake.versions("family") == lake.tables("family") == []
    for table, version in ((two, "b"), (one, "b"), (one, "a")):
        with lake.staging(table) as staged:
            (staged / "data").write_text(version)
            (lake.keep if version == "b" else lake.publish)(table, version, staged)
    assert lake.versions(one) == [(one, "a"), (one, "b")]
    assert lake.versions("family") == [(one, "a"), (one, "b"), (two, "b")]
    assert lake.tables("family") == [one]
    assert lake.read(two, "b", "data") == b"b"
    assert lake.read(two, "b", "other") is None
    assert lake.read(two, "a", "data") is None


def test_a_failed_publication_leaves_the_previous_one_and_nothing_else(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, "a", "first")
    with pytest.raises(RuntimeError), lake.staging("table") as staged:
        (staged / "data").write_text("half")
        raise RuntimeError
    assert (lake.current("table") / "data").read_text() == "first"
    assert sorted(p.name for p in (tmp_path / "table").iterdir()) == ["CURRENT", "a"]


WRITER = """
import os, signal, sys
from pathlib import Path
from assets.lake import Lake
with Lake(Path(sys.argv[1])).staging("table") as staged:
    (staged / "data").write_text("first")
    print(staged.name, flush=True)
    if sys.stdin.readline() == "die\\n":
        os.kill(os.getpid(), signal.SIGKILL)
    Lake(Path(sys.argv[1])).publish("table", "a", staged)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing the table, until it reads a line."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parent.parent, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(".staging-")
        yield process


def test_one_writes_a_table_at_a_time_and_others_say_that_they_wait(
    tmp_path: Path, writer: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor() as pool:
        second = pool.submit(publish, Lake(tmp_path), "b", "second")
        while not caplog.messages:
            assert not second.done()
        assert caplog.messages == ["waiting for another run to finish with table"]
        writer.communicate("go on\n")
        assert second.result().name == "b"
    assert sorted(p.name for p in (tmp_path / "table").iterdir()) == ["CURRENT", "a", "b"]
    assert Lake(tmp_path).version("table") == "b"


def test_what_a_killed_writer_staged_is_removed(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    writer.communicate("die\n")
    assert writer.returncode == -signal.SIGKILL
    (tmp_path / "table" / f".staging-{os.getpid()}-of-another-with-this-id").mkdir()
    publish(Lake(tmp_path), "a", "second")
    assert sorted(p.name for p in (tmp_path / "table").iterdir()) == ["CURRENT", "a"]
    assert (Lake(tmp_path).current("table") / "data").read_text() == "second"


def test_a_pointer_moves_only_from_where_its_mover_saw_it(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, "a", "first")
    with lake.staging("table") as staged:
        lake.keep("table", "b", staged)
    publish(lake, "c", "of another run")
    with pytest.raises(Superseded, match="table: another run has replaced a by c in the meantime; run again"):
        lake.point("table", "b", "a")
    assert lake.version("table") == "c"
    lake.point("table", "c", "a")
    lake.point("table", "b", "c")
    assert lake.version("table") == "b"


def test_a_version_is_immutable(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, "a", "first")
    assert (publish(lake, "a", "other") / "data").read_text() == "first"


def test_a_table_name_cannot_leave_the_lake(tmp_path: Path) -> None:
    for name in ("../x", "a/../b", "/etc", "", "a//b"):
        with pytest.raises(EvergreenError, match="is not the name of a table"):
            Lake(tmp_path).version(name)


def test_a_failed_write_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "pointer", "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "pointer", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["pointer"]
    assert (tmp_path / "pointer").read_text() == "old"


def test_a_file_that_is_not_written_to_its_end_is_never_seen(tmp_path: Path) -> None:
    path = tmp_path / "arrays" / "one.npy"
    with replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert [p.name for p in path.parent.iterdir()] == ["one.npy"]
    assert path.read_bytes() == b"whole"


def test_a_hash_covers_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = hash_tree(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert hash_tree(tmp_path) != before


@pytest.mark.parametrize("named", ["", "../../elsewhere", "v9", "\udcae\udcff", "v1\n"])
def test_a_damaged_pointer_is_named_with_what_to_write_into_it(tmp_path: Path, named: str) -> None:
    lake = Lake(tmp_path)
    publish(lake, "v1", "first")
    pointer = tmp_path / "table" / "CURRENT"
    pointer.write_bytes(named.encode(errors="surrogateescape"))
    with pytest.raises(EvergreenError, match=r"CURRENT is damaged: .* write the newest version's name into it, v1"):
        lake.current("table")


@pytest.mark.parametrize("name", ["br[a]ck", "st*r", "who?"])
def test_a_home_that_reads_as_a_pattern_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / name))
    with pytest.raises(SettingsError, match=r"EVERGREEN_HOME: .* reads as a pattern"):
        Home.from_environment()


def test_an_empty_home_is_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", "")
    assert Home.from_environment().root == Path(__file__).parents[1] / ".evergreen"


def test_the_name_of_a_replaced_version_leads_to_what_took_its_place(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    old = publish(lake, "a", "first")
    os.utime(old, (1e9, 1e9))
    for before, by in (("a", "b"), ("b", "c")):
        with lake.staging("table") as staged:
            (staged / "data").write_text(by)
            lake.replace("table", before, by, staged)
    assert [lake.path("table", name).name for name in "abc"] == ["c", "c", "c"]
    assert (lake.version("table"), lake.versions()) == ("c", [("table", "c")])
    assert lake.current("table").stat().st_mtime == 1e9, "the order of versions stays"
    with lake.staging("table") as staged:
        lake.publish("table", "a", staged)
    assert (lake.version("table"), (lake.current("table") / "data").read_text()) == ("c", "c")
    assert lake.path("table", "d").name == "d"


def test_every_version_of_every_table_is_listed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.versions() == []
    for table, version in (("marts", "a"), ("marts", "b"), ("drift/2024-01-02", "c"), ("drift/2024-01-02T13", "d")):
        with lake.staging(table) as staged:
            lake.keep(table, version, staged)
    with lake.staging("training"):
        assert lake.versions() == [
            *(("drift/2024-01-02", "c"), ("drift/2024-01-02T13", "d")),
            *(("marts", "a"), ("marts", "b")),
        ]
    lake.remove("marts", "a")
    assert [version for table, version in lake.versions() if table == "marts"] == ["b"]
    with lake.staging("marts") as staged:
        lake.publish_alone("marts", "e", staged)
    assert [version for table, version in lake.versions() if table == "marts"] == ["e"]
