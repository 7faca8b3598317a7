"""The rows of a training that workers of a cluster encode in advance: what each rank would make of them itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from assets.cluster import chunks
from assets.cluster.chunks import Needs, Worker
from assets.cluster.exchange import Exchange
from assets.features.snapshot import Snapshot
from assets.hashing import hash_tree
from assets.settings import TrainingSettings
from assets.training.launchers.cluster import PLAN, PREPARED, _put
from assets.training.launchers.launch import override, plan_training
from assets.training.launchers.preparation import prepare_rows
from assets.training.launchers.rank import _prepare
from assets.training.plan import TrainingPlan
from assets.training.tasks.classification import encoding
from assets.training.tasks.classification.data import load_training_data


@pytest.fixture
def exchange(s3: ThreadedMotoServer) -> Exchange:
    return Exchange("s3://team/home/training/one")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The chunks of 100 rows that a worker was given, in this process; it is lost after each, another takes over."""
    numbers_given: list[int] = []

    def distribute(numbers: list[int], exchange: Exchange, make: Any, needs: Needs) -> Iterator[int]:
        assert needs == Needs(3)
        for number in reversed(numbers):
            numbers_given.append(number)
            yield from Worker(exchange.address, make)({"item": [number]})["item"]

    monkeypatch.setattr(encoding, "_CHUNK_ROWS", 100)
    monkeypatch.setattr(chunks, "_distribute", distribute)
    return numbers_given


def planned(snapshot: Snapshot, settings: TrainingSettings, folder: Path, many: int | None) -> TrainingPlan:
    changes = {"bulk_rows": many, "rank_cpus": 3, "validation_share": 0.1}
    return plan_training(snapshot, override(settings, changes), folder, folder)


def test_ranks_read_what_they_would_encode(
    snapshot: Snapshot, settings: TrainingSettings, exchange: Exchange, tmp_path: Path, given: list[int]
) -> None:
    here = planned(snapshot, settings, tmp_path, 256)
    load_training_data(here)
    _put(exchange, here)
    there = TrainingPlan.model_validate_json(exchange.read(PLAN) or "")
    for _ in range(2):
        prepare_rows(there, exchange, print)
        assert given == [2, 1, 0]
    plan = _prepare(there, exchange, tmp_path / "node", "attempt", 0, 1)
    assert plan.prepared == tmp_path / "node" / PREPARED
    load_training_data(plan.model_copy(update={"snapshot": Path("/nowhere")}))
    assert hash_tree(plan.cache) == hash_tree(here.cache)


def test_a_driver_that_is_launched_again_encodes_the_rest(
    snapshot: Snapshot, settings: TrainingSettings, exchange: Exchange, tmp_path: Path, given: list[int]
) -> None:
    def die(line: str) -> None:
        if line.startswith("1 of 3"):
            raise KeyboardInterrupt

    plan = planned(snapshot, settings, tmp_path, 1)
    _put(exchange, plan)
    with pytest.raises(KeyboardInterrupt):
        prepare_rows(plan, exchange, die)
    assert not exchange.has(PREPARED)
    prepare_rows(plan, exchange, die)
    assert given == [2, 1, 0]
    exchange.clear()
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="team")


@pytest.mark.parametrize("many", [None, 257])
def test_few_rows_are_encoded_by_each_machine(
    snapshot: Snapshot, settings: TrainingSettings, exchange: Exchange, tmp_path: Path, many: int | None
) -> None:
    _put(exchange, planned(snapshot, settings, tmp_path, many))
    there = TrainingPlan.model_validate_json(exchange.read(PLAN) or "")
    assert there.prepared is None
    assert _prepare(there, exchange, tmp_path / "node", "attempt", 0, 1).prepared is None


def test_where_rows_are_encoded_changes_no_training(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path
) -> None:
    ids = {planned(snapshot, settings, tmp_path, many).training_id for many in (None, 1)}
    assert len(ids) == 1
