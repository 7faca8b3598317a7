"""A withdrawal is written down first, finished after a kill, and says what was made of the object before."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from assets.exceptions import EvergreenError
from assets.home import Home
from assets.ingestion.landing import ObjectRead, ingest
from assets.registry.ledger import Ledger
from assets.registry.registry import Registry
from assets.settings import load_settings
from assets.warehouse.marts import partition_file
from complaints.simulation.world import COLUMNS
from pipelines import withdrawal
from pipelines.withdrawal import withdraw

AS_OF = "2024-02-01"


@pytest.fixture
def landed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ObjectRead, ...]:
    """Two objects, two publications of marts of which the second holds both, a training set and a version of each."""
    for name in ("a.csv", "b.csv"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text(f"{','.join(COLUMNS)}\nnone\n")
    a, b = ingest([str(tmp_path / "in")], home.lake, load_settings("quick").ingestion, home.domain, AS_OF).objects
    for version, objects in (("m1", [a]), ("m2", [a, b])):
        with home.lake.staging("marts") as staged:
            counts = pd.DataFrame({"object_id": [read.object_id for read in objects], "landed": 1})
            counts.to_parquet(partition_file(staged, "record_counts", "all"))
            home.lake.publish("marts", version, staged)
        with home.lake.staging(f"training_set/{AS_OF}") as staged:
            (staged / "manifest.json").write_text(json.dumps({"marts": version, "snapshot_id": f"of-{version}"}))
            home.lake.keep(f"training_set/{AS_OF}", f"of-{version}", staged)
    versions = [SimpleNamespace(version=number, snapshot_id=f"of-m{number}", as_of=AS_OF) for number in "12"]
    monkeypatch.setattr(Registry, "versions", lambda _: versions)
    return a, b


def test_what_was_made_of_it_is_named_and_stays(home: Home, landed: tuple[ObjectRead, ...]) -> None:
    done = withdraw(home, "b.csv", "not ours")
    assert (done.object.key, done.object.withdrawn, done.published) == ("b.csv", "not ours", True)
    assert (done.snapshots, done.versions) == ((f"training_set/{AS_OF}/of-m2",), ("2",))
    (entry,) = Ledger(home.ledger).entries("withdrawal")
    assert (entry.key, entry.as_of, entry.body["reason"]) == (landed[1].object_id, AS_OF, "not ours")
    assert withdraw(home, landed[1].object_id, "said again") == done
    assert len(Ledger(home.ledger).entries()) == 1


def test_a_version_whose_marts_were_removed_cannot_be_told_of(home: Home, landed: tuple[ObjectRead, ...]) -> None:
    assert landed
    shutil.rmtree(home.lake.path("marts", "m1"))
    done = withdraw(home, "a.csv", "not ours")
    assert (done.versions, done.unknown) == (("2",), ("1",))


def test_a_withdrawal_that_was_killed_is_finished_by_the_next(
    home: Home, landed: tuple[ObjectRead, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(withdrawal, "take_out", kill)
        withdraw(home, "a.csv", "not ours")
    assert withdraw(home, "a.csv", "another reason").object.withdrawn == "not ours"
    assert [entry.body["reason"] for entry in Ledger(home.ledger).entries()] == ["not ours"]


def test_an_unknown_object_leaves_no_trace(home: Home, landed: tuple[ObjectRead, ...]) -> None:
    with pytest.raises(EvergreenError, match=r"no object is called c\.csv; name one by its id or its key: .*a\.csv"):
        withdraw(home, "c.csv", "not ours")
    assert not home.ledger.exists()
