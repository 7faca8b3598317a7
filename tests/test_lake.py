import os
import subprocess
from pathlib import Path

import pytest

from assets.exceptions import EvergreenError, NotPublished, SettingsError
from assets.lake import Home, Lake, hash_tree, write_atomically


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


def test_a_failed_publication_leaves_the_previous_one_and_nothing_else(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, "a", "first")
    with pytest.raises(RuntimeError), lake.staging("table") as staged:
        (staged / "data").write_text("half")
        raise RuntimeError
    assert (lake.current("table") / "data").read_text() == "first"
    assert sorted(p.name for p in (tmp_path / "table").iterdir()) == ["CURRENT", "a"]


def test_what_a_killed_process_staged_is_removed_and_a_living_ones_is_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (tmp_path / "table" / f".staging-{pid}-x").mkdir(parents=True)
    publish(Lake(tmp_path), "a", "first")
    assert [p.name for p in (tmp_path / "table").glob(".staging-*")] == [f".staging-{os.getpid()}-x"]


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
