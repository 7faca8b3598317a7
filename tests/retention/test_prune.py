"""What nothing needs goes, and nothing else: over forty nights, beside others at work, after a kill anywhere."""

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import duckdb
import pytest

from assets.exceptions import EvergreenError
from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from assets.retention.contents import Removable
from assets.retention.prune import plan, preview
from assets.retention.prune import prune as mark_and_sweep
from assets.settings import RetentionSettings

Nights = Callable[[int], Home]
prune = partial(mark_and_sweep, now=True)


def entries(home: Home) -> list[dict[str, Any]]:
    return [entry.body["removed"] for entry in ledger_of(home).entries("prune")]


def names(home: Home) -> list[str]:
    return [name for removed in entries(home) for group in removed.values() for name in group["names"]]


def test_forty_nights_leave_what_twenty_do(
    home: Home, policy: RetentionSettings, spend: Callable[[int], None], listing: Callable[[Home], list[str]]
) -> None:
    sizes = []
    for night in range(40):
        spend(night)
        prune(home, policy)
        sizes.append(len(listing(home)))
    # Two files an object: the records are the truth, and stay.
    assert sizes[39] - sizes[19] == 20 * 2
    assert sorted(path.name for path in (home.lake.root / "marts").glob("m*")) == ["m037", "m038", "m039"]
    assert len(home.lake.tables("predictions")) == policy.days
    assert len(list((home.reports / "evidently").glob("*.html"))) == policy.page_days
    assert len(list(home.pictures.glob("*/*/*.png"))) == policy.page_days
    records = home.lake.current("raw_records") / "records"
    assert sorted(int(path.stem) for path in records.iterdir()) == list(range(40))
    assert [path.name for path in records.parent.parent.iterdir() if path.is_dir()] == [records.parent.name]
    assert plan(home, policy) == []


def test_what_would_go_is_what_goes_and_the_ledger_has_it(nights: Nights, policy: RetentionSettings) -> None:
    home = nights(9)
    planned = plan(home, policy)
    assert ledger_of(home).entries() == []
    before = _bytes(home)
    done = prune(home, policy)
    assert list(done.removed) == planned
    assert {item.path for item in planned if item.setting != "leftover"} == set(names(home))
    assert not [item.path for item in planned if (home.root / item.path).exists()]
    (told,) = entries(home)
    counted = Counter(item.setting for item in planned)
    assert {setting: group["count"] for setting, group in told.items()} == counted
    assert set(counted) == {"publications", "days", "page_days", "superseded", "leftover"}
    assert done.bytes == sum(item.bytes for item in planned) == before - _bytes(home)
    assert prune(home, policy).removed == ()
    assert len(entries(home)) == 1


def _bytes(home: Home) -> int:
    """What the files of the lake and the reports take, each once, whatever its links."""
    found = [path.stat() for part in (home.lake.root, home.reports) for path in part.rglob("*") if path.is_file()]
    return sum({file.st_ino: file.st_blocks * 512 for file in found}.values())


def test_a_record_that_the_newest_version_lacks_stays_in_an_older_one(
    nights: Nights, policy: RetentionSettings
) -> None:
    home = nights(4)
    (home.lake.current("raw_records") / "records" / "1.parquet").unlink()
    prune(home, policy)
    left = sorted(path.name for path in (home.lake.root / "raw_records").iterdir() if path.is_dir())
    assert left == ["r002", "r003"]
    assert (home.lake.path("raw_records", "r002") / "records" / "1.parquet").exists()


def test_a_damaged_pointer_keeps_its_table(nights: Nights, policy: RetentionSettings) -> None:
    home = nights(6)
    (home.lake.root / "marts" / "CURRENT").write_text("gone")
    prune(home, policy)
    assert len(list((home.lake.root / "marts").glob("m*"))) == 6


def test_what_killed_processes_left_goes(nights: Nights, policy: RetentionSettings) -> None:
    home = nights(2)
    left = [
        *(
            "lake/marts/.staging-a/x",
            "lake/drift/2024-03-01/.staging-b/x",
            "lake/marts/.CURRENT-c",
            "features/.online-d/x",
        ),
        *("features/.apply-e/x", "warehouse/.parse-f/x", "cache/tokens/.staging-g/x", "running/evergreen-score-h.lock"),
        *("lake/predictions/2024-03-01/.parts-i.parts/0.parquet", "lake/.writing/drift/2019-01-01.lock"),
        "mlflow/.mlflow.db-k/mlflow.db",
    ]
    stays = [
        "running/3f6c.lock",
        "lake/predictions/2024-03-02/.parts-j.parts/0.parquet",
        "source/mine.csv",
        "notes.txt",
    ]
    for name in [*left, *stays]:
        (home.root / name).parent.mkdir(parents=True, exist_ok=True)
        (home.root / name).write_text("x")
    prune(home, policy)
    assert [name for name in left if (home.root / name).exists()] == []
    assert [name for name in stays if not (home.root / name).exists()] == []
    (told,) = entries(home)
    assert (told["leftover"]["count"], told["leftover"]["names"]) == (len(left), [])


def test_the_last_used_of_what_can_be_made_again_stays(home: Home, policy: RetentionSettings) -> None:
    kept = {"checkpoints": "run", "replay": "own", "cache/texts": "table"}
    for folder, name in kept.items():
        for age, place in ((1, "old"), (0, name)):
            path = home.root / folder / place
            path.mkdir(parents=True)
            (path / "file").write_text("x")
            os.utime(path, (1e9 - age, 1e9 - age))
    prune(home, policy)
    assert {folder: [path.name for path in (home.root / folder).iterdir()] for folder in kept} == {
        folder: [name] for folder, name in kept.items()
    }


def test_symbolic_links_are_neither_followed_nor_removed(
    nights: Nights, policy: RetentionSettings, tmp_path: Path
) -> None:
    home, outside = nights(6), tmp_path / "outside"
    copytree(home.lake.root / "drift", outside / "drift")
    copytree(home.lake.root / "marts", outside / "marts")
    before = sorted(outside.rglob("*"))
    (home.lake.root / "drift").rename(tmp_path / "moved")
    (home.lake.root / "drift").symlink_to(outside / "drift")
    (home.lake.root / "marts" / "m000x").symlink_to(outside / "marts" / "m000")
    (home.lake.root / "marts" / "m000" / "link").symlink_to(outside / "marts")
    os.utime(home.lake.root / "marts" / "m000", (1e9, 1e9))
    prune(home, policy)
    assert sorted(outside.rglob("*")) == before
    assert (home.lake.root / "drift").is_symlink()
    assert (home.lake.root / "marts" / "m000x").is_symlink()
    assert not (home.lake.root / "marts" / "m000").exists()
    (home.root / "pruned").rmdir()
    (home.root / "pruned").symlink_to(outside)
    with pytest.raises(EvergreenError, match="pruned is a symbolic link"):
        prune(home, policy)
    assert sorted(outside.rglob("*")) == before


_READER = """
import duckdb
home = Home.from_environment()
with home.in_use("evergreen-reader-1"):
    marts = home.lake.current("marts")
    print(marts.name, flush=True)
    sys.stdin.readline()
    print(duckdb.execute("select count(*) from read_parquet(?)", [f'{marts}/*.parquet']).fetchone()[0], flush=True)
"""


def test_a_reader_in_another_process_finds_what_it_came_upon(
    nights: Nights, spend: Callable[[int], None], policy: RetentionSettings, beside: Callable[..., Any]
) -> None:
    home = nights(1)
    for part in ("a", "b"):
        path = home.lake.current("marts") / f"{part}.parquet"
        duckdb.sql("select 1 as x").write_parquet(str(path))
    with beside(_READER) as reader:
        assert reader.stdout.readline() == "m000\n"
        for night in range(1, 6):
            spend(night)
        done = prune(home, policy)
        assert (done.removed, done.at_work) == ((), ("evergreen-reader-1",))
        assert "is removed while others are at work: evergreen-reader-1" in done.sentence
        out, said = reader.communicate("go\n")
        assert out == "2\n", said
    assert "lake/marts/m000" in {item.path for item in prune(home, policy).removed}


def test_a_reader_that_was_killed_holds_nothing(
    nights: Nights, policy: RetentionSettings, beside: Callable[..., Any]
) -> None:
    home = nights(6)
    with beside(_READER) as reader:
        reader.stdout.readline()
        reader.kill()
        reader.wait()
    assert prune(home, policy).removed
    assert not list((home.root / "running").glob("*.lock"))


def test_nobody_comes_in_while_things_are_moved(nights: Nights, beside: Callable[..., Any]) -> None:
    home = nights(1)
    with home.closed() as others, beside(_READER) as reader:
        assert others == ()
        assert "waiting for another run to finish with removing what nothing needs" in reader.stderr.readline()
        assert not list((home.root / "running").glob("*.lock"))
        released = home
    assert released is home


@pytest.mark.parametrize("now", [True, False])
def test_a_kill_anywhere_loses_nothing_and_the_next_call_goes_on(
    nights: Nights,
    spend: Callable[[int], None],
    policy: RetentionSettings,
    tmp_path: Path,
    listing: Callable[[Home], list[str]],
    now: bool,
) -> None:
    home, prune = nights(8), partial(mark_and_sweep, now=now)
    if not now:
        prune(home, policy)
        spend(8)
    told = len(names(home))
    calm = Home(tmp_path / "calm")
    copytree(home.root, calm.root)
    removed = {item.path for item in prune(calm, policy).removed if item.setting != "leftover"}
    assert [item for item in removed if item.startswith("lake/marts/")]
    steps = _steps(home, tmp_path, policy, None, now=now)
    assert steps > 100
    for place in sorted(random.Random(7).sample(range(steps), 25)):
        struck = Home(tmp_path / f"struck-{place}")
        copytree(home.root, struck.root)
        assert _steps(struck, tmp_path, policy, place, now=now) == -signal.SIGKILL
        prune(struck, policy)
        assert listing(struck) == listing(calm), place
        assert sorted(names(struck)[told:]) == sorted(removed), place
        assert ledger_of(struck).problem() is None


def _steps(home: Home, folder: Path, policy: RetentionSettings, kill_at: int | None, *, now: bool) -> int:
    """Prune a home, or a copy of it, in a process of its own that is killed when it comes to a step.

    Steps are what the process asks of the system: files opened, made, renamed and removed. Without one, their number.
    """
    if kill_at is None:
        copytree(home.root, folder / "counted")
        home = Home(folder / "counted")
    counted = folder / "steps"
    child = os.fork()
    if child == 0:
        seen = 0

        def strike(event: str, _: object) -> None:
            nonlocal seen
            if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "sqlite3.connect"):
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        sys.addaudithook(strike)
        mark_and_sweep(home, policy, now=now)
        counted.write_text(str(seen))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if kill_at is not None else int(json.loads(counted.read_text())) - 2


def paths(items: Iterable[Removable]) -> list[str]:
    return sorted(item.path for item in items)


def going(home: Home) -> list[str]:
    """The folders of the marts that are there."""
    return sorted(path.name for path in (home.lake.root / "marts").glob("m*"))


def test_what_nothing_needs_is_marked_and_a_later_night_sweeps_it(
    home: Home, policy: RetentionSettings, spend: Callable[[int], None]
) -> None:
    sizes = []
    for night in range(12):
        spend(night)
        done = mark_and_sweep(home, policy)
        sizes.append(len(done.marked))
        swept = {item.path for item in done.removed if item.path.startswith("lake/marts/")}
        assert swept == ({f"lake/marts/m{night - 4:03}"} if night > 3 else set())
        again = mark_and_sweep(home, policy)
        assert (again.removed, paths(again.marked)) == ((), paths(done.marked)), "the day is the same"
    assert going(home) == ["m008", "m009", "m010", "m011"]
    assert sizes[-1] == sizes[-2] > 0
    assert [version for table, version in home.lake.versions() if table == "unneeded"] == [
        home.lake.version("unneeded")
    ]


def test_what_is_needed_again_is_unmarked(
    nights: Nights, spend: Callable[[int], None], policy: RetentionSettings
) -> None:
    home = nights(4)
    mark_and_sweep(home, policy)
    spend(4)
    home.lake.point("marts", "m000", "m004")
    mark_and_sweep(home, policy)
    home.lake.point("marts", "m004", "m000")
    spend(5)
    done = mark_and_sweep(home, policy)
    assert "lake/marts/m000" in {item.path for item in done.marked}
    assert "m000" in going(home), "it was needed when the last run looked: its time begins again"
    spend(6)
    assert "lake/marts/m000" in {item.path for item in mark_and_sweep(home, policy).removed}


@pytest.mark.parametrize(("grace", "swept"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_the_grace_is_counted_in_days_of_the_home(
    nights: Nights, spend: Callable[[int], None], policy: RetentionSettings, grace: int, swept: int
) -> None:
    home, patient = nights(4), policy.model_copy(update={"grace_days": grace})
    mark_and_sweep(home, patient)
    nights_later = 0
    while "m000" in going(home):
        nights_later += 1
        spend(3 + nights_later)
        mark_and_sweep(home, patient)
    assert nights_later == swept


def test_what_would_be_marked_and_what_would_go_is_told_before(
    nights: Nights, spend: Callable[[int], None], policy: RetentionSettings
) -> None:
    home = nights(4)
    told = preview(home, policy)
    assert home.lake.version("unneeded") is None
    done = mark_and_sweep(home, policy)
    assert (done.removed, done.marked) == (told.removed, told.marked)
    assert f"; {len(done.marked)} marked, " in done.sentence
    assert paths(preview(home, policy, now=True).removed) == paths(told.marked)
    spend(4)
    assert preview(home, policy).removed == mark_and_sweep(home, policy).removed != ()
