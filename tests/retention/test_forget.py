"""A forgotten record is nowhere in the home and does not come back, and nothing else is lost; after a kill anywhere."""

import csv
import json
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from assets.exceptions import EvergreenError
from assets.features import snapshot as snapshots
from assets.features.content import content_hash
from assets.features.snapshot import Snapshot, pick_rows, read_snapshot
from assets.hashing import hash_file, hash_tree
from assets.home import Home
from assets.ingestion import landing
from assets.ingestion.forgotten import Forgotten
from assets.ingestion.landing import find_imbalances, ingest, objects
from assets.ingestion.served import drop_read, served_events, served_files, served_sources, spool
from assets.ingestion.served import land as land_served
from assets.objects import Objects
from assets.registry.shared_ledger import ledger_of
from assets.retention.forget import ENTRY, forget, look
from assets.retention.prune import plan
from assets.serving.spool import Spool
from assets.settings import EMBEDDED, load_domain, load_settings
from assets.warehouse.marts import content, hashes, mart, seal
from assets.warehouse.project import build_marts, built
from complaints.simulation.world import COLUMNS
from tests.retention.conftest import steps_on_s3

DAY = "2024-04-01"
SETTINGS = load_settings("quick")
ADA, BEN = "ada-70041", "ben-70042"
SECRETS = {ADA, "Ottoline paid", "Ottoline corrected it", "Ottoline wrote on no day", "Ottoline was cut short"}
KEPT = {BEN, "the neighbour has words of his own"}

Traces = Callable[[Path, Collection[str]], dict[str, set[str]]]


def record(record_id: str, text: str, day: str = "2024-02-01") -> list[str]:
    fields = dict.fromkeys(load_domain().source.fields, "") | {"product": "Mortgage", "company": "ACME", "state": "NY"}
    fields |= {"date_received": day, "date_sent_to_company": day, "narrative": text, "complaint_id": record_id}
    return list(fields.values())


def write(path: Path, *rows: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def others(count: int, first: int = 0) -> list[list[str]]:
    dice = random.Random(first)
    words = [f"{a}{b}" for a in ("bank", "card", "loan", "fee", "house") for b in "abcdefghij"]
    days = [f"2024-0{1 + place % 2}-{1 + place % 28:02}" for place in range(count)]
    return [record(f"n{first + place}", " ".join(dice.choices(words, k=20)), day) for place, day in enumerate(days)]


def land(home: Home, source: Path, as_of: str = DAY) -> landing.Landing:
    return ingest([str(source)], home.lake, SETTINGS.ingestion, home.domain, as_of, forgotten=Forgotten.read(home))


def freeze(home: Home, marts: Path) -> Snapshot:
    few = {"test_rows": 30, "min_train_rows": 20, "max_train_rows": 500, "reference_rows": 5}
    settings = SETTINGS.snapshot.model_copy(update=few)
    rows, removed, starts = pick_rows(marts, DAY, settings, home.domain.columns)
    told = {"inputs": "i", "marts": marts.name, "settings": settings.model_dump(), "removed": removed}
    parts = dict(zip(("train", "test", "reference"), rows, strict=True))
    return snapshots._keep(home, DAY, parts, (), told | {"removed_starts": starts})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects: in them a record twice, corrected, on no day of any calendar, and as a piece of a line."""
    folder = tmp_path_factory.mktemp("source") / "in"
    ada = record(ADA, "Ottoline paid, and nobody answered her letters about the house")
    write(folder / "a.csv", *others(150), ada, record(BEN, "the neighbour has words of his own"))
    broken = ["2024-02-03", "Mortgage", "Ottoline was cut short", ADA]
    write(
        folder / "b.csv",
        *others(40, first=500),
        ada,
        record(ADA, "Ottoline corrected it, and nobody answered her other letters"),
        record(ADA, "Ottoline wrote on no day", day="1970-01-01"),
        broken,
        broken[:2],
    )
    return folder


@pytest.fixture(scope="module")
def lived(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with two publications of the marts and all that is made of records, by the stages or in their place."""
    home = Home(tmp_path_factory.mktemp("lived") / "home")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EVERGREEN_HOME", str(home.root))
        for name in ("a.csv", "b.csv"):
            (home.root.parent / "in").mkdir(exist_ok=True)
            shutil.copy(source / name, home.root.parent / "in")
            land(home, home.root.parent / "in")
        build_marts(home)
        _publish_again(home)
        frozen = freeze(home, built(home))
        home.lake.point(f"training_set/{DAY}", frozen.id, None)
        _answer(home, frozen)
        _leave(home)
    return home


def _publish_again(home: Home) -> None:
    """Publish the marts, and others with a file less, which share all of their files."""
    marts = built(home)
    with home.lake.staging("marts") as staged:
        shutil.copytree(marts, staged, copy_function=os.link, dirs_exist_ok=True)
        (staged / "MANIFEST.json").unlink()
        min((staged / "labels").iterdir()).unlink()
        home.lake.publish("marts", seal(staged, marts), staged)
    home.lake.point("marts", marts.name, home.lake.version("marts"))


def _answer(home: Home, frozen: Snapshot) -> None:
    """Predictions of a day, and an evaluation with MLflow's copy of it."""
    test = pd.concat([frozen.test(), frozen.train()])[["record_id"]]
    for table, name in ((f"predictions/{DAY}", "predictions"), (f"evaluation/{DAY}", "golden")):
        with home.lake.staging(table) as staged:
            test.to_parquet(staged / f"{name}.parquet", index=False)
            (staged / "manifest.json").write_text(json.dumps({"marts_version": frozen.manifest["marts"]}))
            home.lake.publish(table, "0" * 16, staged)
    copy = home.mlflow / "artifacts" / "1" / "golden.parquet"
    copy.parent.mkdir(parents=True)
    copy.hardlink_to(home.lake.current(f"evaluation/{DAY}") / "golden.parquet")


def _leave(home: Home) -> None:
    """Caches, checkpoints, the home of a replay, and what a killed writer, scoring and removal left."""
    words = np.array([f"{ADA} Ottoline paid"])
    for name in ("cache/texts/t/1.npy", "cache/tokens/k/tokens.npy", "checkpoints/r/1/batch.npy"):
        (home.root / name).parent.mkdir(parents=True)
        np.save(home.root / name, words)
    rows = home.lake.current(f"predictions/{DAY}") / "predictions.parquet"
    places = (
        "replay/x/lake/marts/v",
        f"lake/predictions/{DAY}/.parts-k.parts",
        "lake/marts/.staging-x",
        "pruned/1/lake",
    )
    for place in places:
        (home.root / place).mkdir(parents=True)
        shutil.copy(rows, home.root / place / "rows.parquet")
    (home.root / "forget.key").write_text("ab" * 32)


@pytest.fixture
def home(lived: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    shutil.copytree(lived.root, tmp_path / "home", symlinks=True)
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


def rows_of(home: Home) -> dict[str, set[str]]:
    """The rows of each table of the lake that are not about her, whatever version they are in."""
    found: dict[str, set[str]] = {}
    for table, version in home.lake.versions():
        for path in home.lake.path(table, version).rglob("*.parquet"):
            if path.name != "objects.parquet":
                rows = map(repr, pq.read_table(path).to_pylist())
                found.setdefault(table, set()).update(row for row in rows if not any(word in row for word in SECRETS))
    return found


def test_it_is_nowhere_and_everybody_else_is_where_they_were(home: Home, traces: Traces) -> None:
    before, told = rows_of(home), traces(home.root, SECRETS)
    assert {path.split("/")[0] for path in told} == {
        *("lake", "warehouse", "mlflow", "cache", "checkpoints", "replay", "pruned")
    }
    tables = {"raw_records", "marts", "training_set", "predictions", "evaluation"}
    assert {path.split("/")[1] for path in told if path.startswith("lake/")} == tables
    assert set.union(*told.values()) == SECRETS
    planned = look(home, [ADA])
    assert traces(home.root, SECRETS) == told
    done = forget(home, [ADA])
    assert (done.found, done.objects) == (planned.found, planned.objects)
    assert traces(home.root, SECRETS) == {}
    assert rows_of(home) == before
    assert all(len(rows) > 0 for rows in before.values())
    assert traces(home.lake.root, KEPT)


def test_each_object_says_how_many_it_has_lost_and_the_next_marts_add_up(home: Home, traces: Traces) -> None:
    before = {read.key: read for read in objects(home.lake.current("raw_records"))}
    done = forget(home, [ADA])
    after = {read.key: read for read in objects(home.lake.current("raw_records"))}
    assert done.sources == ("a.csv", "b.csv")
    assert {key: read.forgotten for key, read in after.items()} == {"a.csv": 1, "b.csv": 4}
    for key, read in after.items():
        assert read.landed == before[key].landed - read.forgotten == read.records + read.rejects
    assert find_imbalances(home.lake.current("raw_records")) == []
    build_marts(home)
    sql = "select sum(landed), sum(valid + quarantined + duplicate) from read_parquet(?)"
    with duckdb.connect() as connection:
        assert connection.execute(sql, [mart(built(home), "record_counts")]).fetchall() == [(192, 192)]
    assert traces(home.root, SECRETS) == {}


@pytest.mark.parametrize("way", ["again", "other object", "newer reader", "other content"])
def test_it_does_not_come_back(
    home: Home, source: Path, tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    forget(home, [ADA])
    version = home.lake.version("raw_records")
    folder = tmp_path / "again"
    shutil.copytree(source, folder)
    if way == "other object":
        shutil.copy(folder / "b.csv", folder / "c.csv")
    if way == "newer reader":
        monkeypatch.setattr(landing, "READER", landing.READER + 1)
    if way == "other content":
        write(folder / "a.csv", *others(3), record(f" {ADA} ", "Ottoline paid"), record(BEN, "says more"))
    landed = land(home, folder, "2024-04-02")
    assert find_imbalances(landed.path) == []
    assert (landed.version == version) == (way == "again")
    assert traces(home.root, SECRETS) == {}
    assert sum(read.forgotten for read in landed.objects) == {"other object": 9, "other content": 6}.get(way, 5)


def test_a_training_set_has_a_new_name_that_the_old_one_leads_to(home: Home) -> None:
    table = f"training_set/{DAY}"
    old = read_snapshot(home.lake, DAY, home.lake.version(table) or "")
    rows = {part: getattr(old, part)() for part in ("train", "test", "reference")}
    done = forget(home, [ADA])
    new = read_snapshot(home.lake, DAY, old.id)
    assert new.id == home.lake.version(table) != old.id
    parts = {part: pq.read_table(new.path / f"{part}.parquet") for part in rows}
    assert new.id == content_hash(parts, home.domain.columns, ())
    (lost,) = new.manifest["lost"]
    assert (lost["id"], lost["ledger"], sum(lost["rows"].values())) == (old.id, done.entry, 1)
    for part, before in rows.items():
        after = getattr(new, part)().reset_index(drop=True)
        pd.testing.assert_frame_equal(after, before[before.record_id != ADA].reset_index(drop=True))
        assert getattr(new, f"{part}_rows") == len(after)
    again = forget(home, [BEN])
    assert read_snapshot(home.lake, DAY, old.id).manifest["lost"][1]["ledger"] == again.entry


def test_the_marts_are_named_by_their_content_and_what_names_them_finds_them(home: Home) -> None:
    old = home.lake.version("marts") or ""
    forget(home, [ADA])
    folder = home.lake.path("marts", old)
    assert folder == home.lake.current("marts")
    assert content(folder) == folder.name != old
    assert all(hash_file(folder / name) == digest for name, digest in hashes(folder).items())


def test_what_was_superseded_before_it_lost_rows_still_is(home: Home) -> None:
    """The raw table has an older version, of the first object alone, whose rows are all in the newest."""
    policy = SETTINGS.retention
    before = {item.path for item in plan(home, policy)}
    assert [version for table, version in home.lake.versions() if table == "raw_records"][1:]
    forget(home, [ADA])
    after = {item.path for item in plan(home, policy)}
    assert [path.split("/")[1] for path in sorted(before) if "raw_records" in path] == ["raw_records"]
    assert [path.split("/")[1] for path in sorted(after) if "raw_records" in path] == ["raw_records"]


def test_the_ledger_has_neither_its_id_nor_its_words(home: Home) -> None:
    done = forget(home, [ADA])
    (entry,) = ledger_of(home).entries(ENTRY)
    assert (entry.seq, entry.body["records"]) == (done.entry, 1)
    assert entry.body["training_sets"] == done.training_sets
    assert not {ADA, "Ottoline"} & set(json.dumps(entry.as_dict()).replace('"', " ").split())
    assert ledger_of(home).problem() is None


def test_a_second_time_changes_nothing(home: Home) -> None:
    first = forget(home, [ADA])
    state = hash_tree(home.lake.root)
    again = forget(home, [f"{ADA} ", ADA])
    assert (again.found, again.sources, again.entry) == ((), first.sources, first.entry)
    assert hash_tree(home.lake.root) == state
    assert len(ledger_of(home).entries()) == 1


@pytest.mark.parametrize("ids", [["nobody"], [ADA, "nobody"], [""], [], ["ada"], ["Ottoline"]])
def test_who_is_not_there_is_a_mistake_and_nothing_is_done(home: Home, ids: list[str]) -> None:
    before = hash_tree(home.lake.root)
    for either in (look, forget):
        with pytest.raises(EvergreenError, match=r"has the id|by their ids"):
            either(home, ids)
    assert hash_tree(home.lake.root) == before
    assert ledger_of(home).entries() == []


def test_nothing_is_done_while_others_are_at_work(home: Home) -> None:
    with home.in_use("a-run"), pytest.raises(EvergreenError, match="others are at work: a-run; run again when"):
        forget(home, [ADA])
    assert home.lake.version("forgotten") is None


@pytest.mark.parametrize("key", [None, "cd" * 32])
def test_without_its_key_nothing_is_ingested(home: Home, source: Path, key: str | None) -> None:
    forget(home, [ADA])
    (home.root / "forget.key").unlink()
    if key:
        (home.root / "forget.key").write_text(key)
    with pytest.raises(EvergreenError, match="is not the key that records were forgotten with"):
        land(home, source)


@pytest.mark.slow
def test_a_kill_anywhere_is_made_good_by_the_next_call(home: Home, tmp_path: Path, traces: Traces) -> None:
    calm = _copy(home, tmp_path / "calm")
    forget(calm, [ADA])
    steps = _forget_in_a_process(_copy(home, tmp_path / "counted"), tmp_path, None)
    assert steps > 100
    for place in sorted(random.Random(7).sample(range(steps), 30)):
        struck = _copy(home, tmp_path / f"struck-{place}")
        assert _forget_in_a_process(struck, tmp_path, place) == -signal.SIGKILL
        forget(struck, [ADA])
        assert _state(struck) == _state(calm), place
        assert traces(struck.root, SECRETS) == {}
        shutil.rmtree(struck.root)


def _copy(home: Home, root: Path) -> Home:
    shutil.copytree(home.root, root, symlinks=True)
    return Home(root)


def _state(home: Home) -> dict[str, str]:
    """Every file by its content, and the ledger by its entries."""
    files = {path.relative_to(home.root).as_posix(): path for path in home.root.rglob("*") if path.is_file()}
    state = {name: hash_file(path) for name, path in files.items() if not name.endswith((".lock", ".door"))}
    entries = [replace(entry, hash="").as_dict() for entry in ledger_of(home).entries()]
    return {name: digest for name, digest in state.items() if "ledger." not in name} | {"": json.dumps(entries)}


def _forget_in_a_process(home: Home, folder: Path, kill_at: int | None) -> int:
    """Forget in a process of its own that is killed when it comes to a step. Without one, the number of its steps."""
    counted = folder / "steps"
    child = os.fork()
    if child == 0:
        seen = 0

        def strike(event: str, _: object) -> None:
            nonlocal seen
            if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "sqlite3.connect"):
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        sys.addaudithook(strike)
        forget(home, [ADA])
        counted.write_text(str(seen))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if kill_at is not None else int(counted.read_text()) - 2


SERVED = {"served-7001", "Ottoline asked"}


def event(record_id: str, text: str, kind: str = "answer", **more: object) -> str:
    asked = {"complaint_id": record_id, "narrative": text, "date_received": "2024-03-01"}
    told = {"at": "2024-03-01T00:00:00", "record_id": record_id, "label": "mortgage", "training_id": "t1"}
    return json.dumps({"kind": kind, **told, "record": asked if kind == "answer" else more or None}) + "\n"


def close(home: Home, name: str, *events: str, ending: str = ".jsonl") -> Path:
    path = spool(home) / f"{name}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(events))
    return path


def serve(home: Home) -> None:
    """A segment that ingestion has read, one that it has not, one that waits, and one that a killed server left."""
    hers, his = event("served-7001", "Ottoline asked"), event("served-7002", "he asked, too")
    close(home, "2024-03-01T10-00-00-000000-aa", hers, his)
    land_served(home)
    served_sources(home)
    shutil.copytree(home.root / "served" / "source", home.root.parent / "kept")
    ingest_served(home, "2024-04-02")
    close(home, "2024-03-02T10-00-00-000000-bb", hers, event("served-7003", "and a third"))
    close(home, "2024-03-02T11-00-00-000000-bb", hers)
    land_served(home)
    served_sources(home)
    close(home, "2024-03-03T10-00-00-000000-cc", event("served-7001", "", kind="feedback", product="Mortgage"), his)
    close(home, "2024-03-04T10-00-00-000000-dd", hers, hers[:-9], ending=".open.jsonl")


def ingest_served(home: Home, as_of: str) -> landing.Landing:
    known = Forgotten.read(home)
    found = ingest(served_sources(home), home.lake, SETTINGS.ingestion, home.domain, as_of, forgotten=known)
    drop_read(home)
    return found


def test_what_was_served_is_reached_wherever_it_is(home: Home, traces: Traces) -> None:
    serve(home)
    assert {path.rsplit("/", 1)[0].partition("/2024")[0] for path in traces(home.root, SERVED)} == {
        *("lake/served", "served/spool", "served/source/0-served"),
        *(f"lake/raw_records/{version}/records" for version in [home.lake.version("raw_records")]),
    }
    assert sum(found.rows for found in look(home, ["served-7001"]).found) == 11
    done = forget(home, ["served-7001"])
    assert traces(home.root, SERVED) == {}
    assert (done.sources, "evergreen serve" in done.sentence) == ((), False)
    known = duckdb.sql(f"select record_id, count(*) from read_parquet({served_events(home.lake)}) group by all")
    assert sorted(known.fetchall()) == [("served-7002", 2), ("served-7003", 1)]
    ids = {json.loads(line)["Complaint ID"] for path in served_files(home) for line in path.read_text().splitlines()}
    assert ids == {"served-7002", "served-7003"}
    again = forget(home, ["served-7001"])
    assert (again.found, again.entry) == ((), done.entry)


def test_what_was_served_does_not_come_back_and_all_adds_up(home: Home, traces: Traces) -> None:
    serve(home)
    before = objects(home.lake.current("raw_records"))
    forget(home, ["served-7001"])
    found = ingest_served(home, "2024-04-03")
    assert find_imbalances(found.path) == []
    assert (found.deleted, found.overwritten) == ((), ())
    assert {read.key for read in found.new} == {
        f"0-served/2024-03-0{day}T10-00-00-000000-{name}.jsonl" for day, name in ((2, "bb"), (3, "cc"))
    }
    assert sum(read.records for read in found.objects) == sum(read.records for read in before) - 1 + 2
    assert list(served_files(home)) == []
    again = ingest([str(home.root.parent / "kept")], home.lake, SETTINGS.ingestion, home.domain, "2024-04-03")
    assert again.version == found.version, "the object that was read before is known, with all that it had"
    close(home, "2024-03-05T10-00-00-000000-ee", event("served-7001", "", kind="feedback", product="Mortgage"))
    close(home, "2024-03-05T11-00-00-000000-ee", event("served-7001", "Ottoline asked"), event("served-7004", "new"))
    land_served(home)
    ingest_served(home, "2024-04-04")
    assert traces(home.root, SERVED) == {}
    build_marts(home)
    sql = "select sum(landed) - sum(valid + quarantined + duplicate) from read_parquet(?)"
    with duckdb.connect() as connection:
        assert connection.execute(sql, [mart(built(home), "record_counts")]).fetchall() == [(0,)]


def test_a_server_that_writes_such_a_record_is_told_of_and_leaves_it_out(home: Home, traces: Traces) -> None:
    writer = Spool(home, 3600, 1 << 20, lambda: None)
    writer.start()
    written = threading.Event()
    writer.append([json.loads(event("served-7001", "Ottoline asked"))], lambda _: written.set())
    assert written.wait(30)
    done = forget(home, ["served-7001"])
    assert "1 forgotten: 0 rows in 0 files; 1 more in what `evergreen serve` is writing" in done.sentence
    assert [found.is_open for found in done.found] == [True]
    assert list(traces(home.root, SERVED)) == [done.found[0].path]
    writer.close()
    land_served(home)
    assert traces(home.root, SERVED) == {}
    again = forget(home, ["served-7001"])
    assert (again.found, again.entry) == ((), done.entry)


def test_objects_are_dropped_once_they_are_read_and_not_before(home: Home) -> None:
    close(home, "2024-03-01T10-00-00-000000-aa", event("served-7001", "Ottoline asked"))
    land_served(home)
    drop_read(home)
    (path,) = served_files(home)
    content = path.read_bytes()
    ingest_served(home, "2024-04-02")
    assert list(served_files(home)) == []
    path.write_bytes(content)  # as a kill before it was dropped would leave it
    close(home, "2024-03-02T10-00-00-000000-bb", event("served-7002", "he asked"))
    land_served(home)
    found = ingest_served(home, "2024-04-03")
    assert ([read.key for read in found.new], found.deleted, found.overwritten) == (
        ["0-served/2024-03-02T10-00-00-000000-bb.jsonl"],
        (),
        (),
    )
    assert list(served_files(home)) == []


def machine(name: str, folder: Path) -> Home:
    return Home(folder / name, EMBEDDED.model_copy(update={"objects": "s3://lake/team"}))


@pytest.fixture
def team(lived: Home, bucket: Any, tmp_path: Path) -> tuple[Home, Home]:
    """The same home on S3: of a machine that has made all of it, and of one that has read all of it."""
    one, two = machine("one", tmp_path), machine("two", tmp_path)
    assert one.lake.versions() == []
    shutil.copytree(lived.root, one.root, symlinks=True, dirs_exist_ok=True)
    for table, version in lived.lake.versions():
        with one.lake.staging(table) as staged:
            shutil.copytree(lived.lake.path(table, version), staged, dirs_exist_ok=True)
            one.lake.keep(table, version, staged)
    for table in {table for table, _ in lived.lake.versions()}:
        one.lake.point(table, lived.lake.version(table) or "", None)
    for name in ("checkpoints/r/step-1/batch.bin", "training/t/snapshot/train.csv", "scoring/d/v/inputs/0/rows.bin"):
        bucket.Object(f"team/{name}").put(Body=ADA.encode())
    read_all(two)
    return one, two


def read_all(home: Home) -> None:
    """A copy of every version, and what is made of them."""
    for table, version in home.lake.versions():
        home.lake.path(table, version)
    for name in ("cache/texts/t/1.npy", "checkpoints/r/1/batch.npy"):
        (home.root / name).parent.mkdir(parents=True)
        np.save(home.root / name, np.array([ADA]))
    (home.root / "forget.key").write_text("ab" * 32)


def on_s3(bucket: Any, folder: Path) -> Path:
    """A folder with the content of every object."""
    shutil.rmtree(folder, ignore_errors=True)
    for entry in bucket.objects.all():
        path = folder / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.get()["Body"].read())
    return folder


def test_it_is_neither_on_s3_nor_read_from_any_machines_copies(
    home: Home, team: tuple[Home, Home], bucket: Any, traces: Traces, tmp_path: Path
) -> None:
    one, two = team
    before, old = rows_of(home), {table: two.lake.version(table) for table, _ in two.lake.versions()}
    assert set.union(*traces(on_s3(bucket, tmp_path / "s3"), SECRETS).values()) == SECRETS
    embedded, planned = forget(home, [ADA]), look(one, [ADA])
    done = forget(one, [ADA])
    assert planned.found == done.found
    assert {(found.path, found.rows) for found in done.found} == {(found.path, found.rows) for found in embedded.found}
    assert replace(done, found=()) == replace(embedded, found=())
    assert [e.body for e in ledger_of(one).entries()] == [e.body for e in ledger_of(home).entries()]
    assert one.lake.versions() == home.lake.versions()
    assert traces(on_s3(bucket, tmp_path / "s3"), SECRETS) == traces(one.root, SECRETS) == {}
    assert traces(two.root, SECRETS), "it has not looked yet"
    with two.in_use("evergreen-status-1"):
        assert traces(two.root, SECRETS) == {}
    assert rows_of(two) == rows_of(one) == before
    for table, version in old.items():
        assert two.lake.path(table, version or "").name == home.lake.path(table, version or "").name
    assert (two.root / "lake" / "marts").exists(), "what was not about her may stay"
    again = forget(one, [ADA])
    assert (again.found, again.entry) == ((), done.entry)


def test_a_machine_that_comes_anew_looks_before_it_reads(team: tuple[Home, Home], traces: Traces) -> None:
    one, two = team
    forget(one, [ADA])
    again = Home(two.root, two.environment)
    assert traces(two.root, SECRETS)
    assert again.lake.root.is_dir()
    assert traces(two.root, SECRETS) == {}
    requests = []
    read = Objects.read
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Objects, "read", lambda self, name: (requests.append(name), read(self, name))[1])
        np.save(two.root / "own.npy", np.zeros(1))
        for _ in range(3):
            again.catch_up()
    assert requests == ["FORGOTTEN"] * 3, "one request each time"


@pytest.mark.slow
def test_a_kill_anywhere_on_s3_is_made_good_by_the_next_call(
    team: tuple[Home, Home], bucket: Any, traces: Traces, tmp_path: Path
) -> None:
    one, _ = team
    shutil.copytree(one.root, tmp_path / "before", symlinks=True)
    objects = {entry.key: entry.get()["Body"].read() for entry in bucket.objects.all()}

    def again(name: str) -> Home:
        bucket.objects.delete()
        for key, body in objects.items():
            bucket.Object(key).put(Body=body)
        shutil.copytree(tmp_path / "before", tmp_path / name, symlinks=True)
        return machine(name, tmp_path)

    steps = steps_on_s3(partial(forget, again("counted"), [ADA]), tmp_path)
    calm = machine("calm", tmp_path).lake.versions()
    assert steps > 30
    for place in sorted(random.Random(7).sample(range(steps), 8)):
        struck = again(f"struck-{place}")
        assert steps_on_s3(partial(forget, struck, [ADA]), tmp_path, place) == -signal.SIGKILL
        forget(struck, [ADA])
        assert traces(on_s3(bucket, tmp_path / "s3"), SECRETS) == {}, place
        assert traces(struck.root, SECRETS) == {}, place
        assert struck.lake.versions() == calm
        another = machine(f"another-{place}", tmp_path)
        assert rows_of(another).keys() == {table for table, _ in calm} - {"forgotten"}
