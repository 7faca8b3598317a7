"""Retention where machines share a home: it keeps what a folder's does, and disturbs nobody on another machine."""

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from assets.hashing import hash_bytes
from assets.home import Home
from assets.registry.registry import Registry
from assets.registry.shared_ledger import ledger_of
from assets.retention.contents import contents_of
from assets.retention.marks import Marks
from assets.retention.needed import find_needed
from assets.retention.prune import plan, preview, prune
from assets.settings import EMBEDDED, RetentionSettings
from tests.retention.conftest import spend_night, steps_on_s3

SWEPT = partial(prune, now=True)


def on_s3(folder: Path, prefix: str = "team") -> Home:
    return Home(folder, EMBEDDED.model_copy(update={"objects": f"s3://lake/{prefix}"}))


@pytest.fixture
def team(bucket: Any, tmp_path: Path) -> Home:
    return on_s3(tmp_path / "one")


def paths(items: Any) -> set[str]:
    return {item.path for item in items}


def state(bucket: Any, prefix: str = "team") -> dict[str, str]:
    """Every object by its content; folders of uploads, whose names are random, by their version alone."""
    found: dict[str, str] = {}
    for entry in bucket.objects.filter(Prefix=f"{prefix}/"):
        parts = entry.key.removeprefix(f"{prefix}/").split("/")
        name = "/".join("." if part.startswith(".") and part != ".replaced" else part for part in parts)
        content = entry.get()["Body"].read()
        if parts[-1] in ("MANIFEST.json", "CURRENT"):
            read = json.loads(content)
            content = json.dumps([read.get("files"), read.get("version")]).encode()
        assert name not in found, f"two uploads of one file: {name}"
        found[name] = hash_bytes(content)
    return found


def versions(home: Home, table: str = "marts") -> list[str]:
    return [version for _, version in home.lake.versions(table)]


def test_it_keeps_and_removes_what_a_folder_does(
    home: Home, team: Home, policy: RetentionSettings, bucket: Any
) -> None:
    for each in (home, team):
        for night in range(9):
            spend_night(each, night)
    assert find_needed(Registry(team), policy) == find_needed(Registry(home), policy)
    embedded, planned = plan(home, policy), plan(team, policy)
    own = paths(item for item in (*embedded, *planned) if item.setting == "leftover")
    assert paths(planned) - own == paths(embedded) - own != set()
    assert all(item.bytes > 0 for item in planned if item.setting != "leftover")
    assert {item.setting for item in planned if item.is_shared} == {"publications", "days", "page_days", "superseded"}
    before = sum(entry.size for entry in bucket.objects.all())
    done = SWEPT(team, policy)
    SWEPT(home, policy)
    assert paths(done.removed) == paths(planned)
    assert team.lake.versions() == home.lake.versions()
    assert team.pages.names() == home.pages.names()
    assert before - sum(entry.size for entry in bucket.objects.all()) >= sum(i.bytes for i in planned if i.is_shared)
    (told,) = ledger_of(team).entries("prune")[-1:]
    (as_told,) = ledger_of(home).entries("prune")
    for setting in ("publications", "days", "superseded"):
        assert told.body["removed"][setting]["names"] == as_told.body["removed"][setting]["names"]
    assert [item for item in plan(team, policy) if item.is_shared] == []
    assert SWEPT(team, policy).removed == ()
    another = on_s3(team.root.parent / "two")
    assert (another.lake.current("drift/2024-03-09") / "report.html").exists()
    assert sorted(path.name for path in another.lake.current("drift/2024-03-05").iterdir()) == ["drift.json"]


def test_what_nothing_needs_is_marked_and_a_later_night_of_another_machine_sweeps_it(
    team: Home, policy: RetentionSettings
) -> None:
    machines = [team, on_s3(team.root.parent / "two")]
    for night in range(8):
        machine = machines[night % 2]
        spend_night(machine, night)
        told = preview(machine, policy)
        done = prune(machine, policy)
        assert (paths(done.removed), done.marked) == (paths(told.removed), told.marked)
        swept = {path for path in paths(done.removed) if path.startswith("lake/marts/")}
        assert swept == ({f"lake/marts/m{night - 4:03}"} if night > 3 else set())
    assert versions(team) == ["m004", "m005", "m006", "m007"]
    assert len(versions(team, "unneeded")) == 1


@pytest.mark.parametrize(("name", "removes"), [("evergreen-status-ab12", False), ("evergreen-rollback-ab12", False)])
def test_who_was_at_work_when_it_was_marked_is_waited_for(
    team: Home, policy: RetentionSettings, name: str, removes: bool
) -> None:
    for night in range(4):
        spend_night(team, night)
    with team.in_use(name):
        done = prune(team, policy)
        assert "lake/marts/m000" in paths(done.marked)
        spend_night(team, 4)
        assert ("lake/marts/m000" in paths(prune(team, policy).removed)) is removes
    spend_night(team, 5)
    assert "lake/marts/m000" in paths(prune(team, policy).removed)


@pytest.mark.parametrize(
    ("name", "removes"), [("evergreen-status-ab12", True), ("evergreen-rollback-ab12", False), ("b7e3-run", False)]
)
def test_who_came_later_is_waited_for_only_if_it_may_need_something_again(
    team: Home, policy: RetentionSettings, name: str, removes: bool
) -> None:
    for night in range(4):
        spend_night(team, night)
    prune(team, policy)
    spend_night(team, 4)
    with team.in_use(name):
        done = prune(team, policy)
        assert ("lake/marts/m000" in paths(done.removed)) is removes
        assert done.at_work == (name,)
        assert all(item.in_lake for item in done.removed), "the rest is this machine's"
        assert SWEPT(team, policy).removed == ()
    assert Marks.read(team.lake).readers == {name: 1}


def test_what_is_being_uploaded_is_left_and_what_was_given_up_goes(
    team: Home, policy: RetentionSettings, bucket: Any, tmp_path: Path
) -> None:
    spend_night(team, 0)
    (tmp_path / "data").write_text("half")
    store = team.lake.shared
    assert store is not None
    half = "team/lake/marts/m009/.0123/data"
    bucket.Object(half).put(Body=b"half")
    bucket.Object("team/lake/marts/m000/.4567/data").put(Body=b"half")  # of a version that another has finished
    with team.in_use("run"):
        assert {item.path for item in prune(team, policy).marked if item.setting == "abandoned"} == {
            *("lake/marts/m009/.0123", "lake/marts/m000/.4567")
        }
        spend_night(team, 1)
        prune(team, policy)
        assert bucket.Object(half).content_length == 4
    spend_night(team, 2)
    assert "lake/marts/m009/.0123" in paths(prune(team, policy).removed)
    assert not [entry for entry in bucket.objects.all() if "/.0123/" in entry.key or "/.4567/" in entry.key]
    assert (team.lake.path("marts", "m000") / "fct_records.json").exists()
    assert list(contents_of(team).abandoned()) == []


@pytest.mark.slow
def test_a_kill_anywhere_loses_nothing_and_the_next_call_goes_on(
    team: Home, policy: RetentionSettings, bucket: Any, tmp_path: Path
) -> None:
    for night in range(7):
        spend_night(team, night)
    before = {entry.key.removeprefix("team/"): entry.get()["Body"].read() for entry in bucket.objects.all()}

    def again(name: str) -> Home:
        for key, content in before.items():
            bucket.Object(f"{name}/{key}").put(Body=content)
        return on_s3(tmp_path / name, name)

    calm = again("calm")
    removed = {path for path in paths(SWEPT(calm, policy).removed) if path.startswith("lake/")}
    steps = steps_on_s3(partial(SWEPT, again("counted"), policy), tmp_path)
    assert steps > 30
    for place in range(0, steps, max(steps // 8, 1)):
        struck = again(f"struck-{place}")
        assert steps_on_s3(partial(SWEPT, struck, policy), tmp_path, place) == -signal.SIGKILL
        assert set(struck.lake.versions()) >= set(calm.lake.versions()) - {("unneeded", "")}
        SWEPT(struck, policy)
        assert state(bucket, struck.root.name) == state(bucket, "calm"), place
        assert list(contents_of(struck).abandoned()) == []
        told = [
            name for e in ledger_of(struck).entries("prune") for g in e.body["removed"].values() for name in g["names"]
        ]
        assert sorted(name for name in told if name.startswith("lake/")) == sorted(removed), place
