"""What one machine was asked is read by whichever machine runs the graph, and once."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pyarrow.parquet as pq
import pytest

from assets.evaluation.live import live_answers
from assets.home import Home
from assets.ingestion.landing import Landing, ingest
from assets.ingestion.served import land, served_sources, spool
from assets.settings import load_settings
from tests.stack.conftest import Bucket, home_on

FIRST, SECOND = "2024-05-01T00-00-00-000000-aa", "2024-05-02T00-00-00-000000-bb"
ASKED = [
    {
        "kind": kind,
        "at": "2024-05-01",
        "record_id": name,
        "predicted": predicted,
        "training_id": training,
        "record": record,
    }
    for name, record in (("1", {"complaint_id": "1", "narrative": "my\n“house”"}), ("2", {"complaint_id": "2"}))
    for kind, training, predicted in (("answer", "theirs", "cards"), ("shadow", "ours", "mortgage"))
]
TOLD = [
    {"kind": "feedback", "at": "2024-05-02", "record_id": "1", "label": "mortgage", "record": {"product": "Mortgage"}}
]


@pytest.fixture
def machines(seaweed: Bucket, tmp_path: Path) -> tuple[Home, Home]:
    one, two = (home_on(tmp_path / name, f"{seaweed.url}/team") for name in ("one", "two"))
    return one, two


def served(home: Home, segment: str, events: list[dict[str, Any]]) -> None:
    """What a server has left in its spool when it was killed."""
    spool(home).mkdir(parents=True, exist_ok=True)
    path = spool(home) / f"{segment}.open.jsonl"
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events) + '{"kind": "ans')


def run(home: Home) -> Landing:
    """As `raw_records` does."""
    home.claim()
    land(home)
    return ingest(served_sources(home), home.lake, load_settings("quick").ingestion, home.domain, "2024-06-01")


def test_what_one_machine_was_asked_another_reads_once(machines: tuple[Home, Home], tmp_path: Path) -> None:
    one, two = machines
    alone = Home(tmp_path / "alone")
    for segment, events, asked in ((FIRST, ASKED, one), (SECOND, TOLD, two)):
        served(asked, segment, events)
        served(alone, segment, events)
        assert land(asked) == [segment]
        assert not list(spool(asked).iterdir())
    found = run(two)
    assert found.version == run(one).version == run(alone).version
    assert [read.key for read in found.objects] == [f"0-served/{name}.jsonl" for name in (FIRST, SECOND)]
    records = pq.ParquetDataset(found.path / "records").read().to_pandas().sort_values(["complaint_id", "product"])
    assert records["complaint_id"].tolist() == ["1", "1", "2"]
    assert records["narrative"].tolist() == ["my\n“house”", "my\n“house”", None]
    assert not run(two).new


def test_a_segment_is_landed_by_its_own_machine(machines: tuple[Home, Home]) -> None:
    one, two = machines
    served(one, FIRST, ASKED)
    assert land(two) == []
    assert served_sources(two) == []
    assert land(one) == [FIRST]
    assert len(run(two).new) == 1


def test_a_machine_that_lost_its_folder_reads_nothing_twice(machines: tuple[Home, Home], tmp_path: Path) -> None:
    one, two = machines
    served(one, FIRST, ASKED)
    run(one)
    again = home_on(tmp_path / "again", str(one.objects))
    assert not run(again).new
    source = Path("served/source/0-served") / f"{FIRST}.jsonl"
    assert not (again.root / source).exists()
    copytree(one.root / "served" / "source", two.root / "served" / "source")
    assert not run(two).new


def test_live_evidence_is_of_all_machines(machines: tuple[Home, Home]) -> None:
    one, two = machines
    served(one, FIRST, ASKED)
    land(one)
    served(two, SECOND, TOLD)
    land(two)
    for home in machines:
        found = live_answers(home.lake, "ours", "theirs")
        assert found is not None
        assert (found.rows, found.only_challenger, found.only_champion) == (1, 1, 0)
