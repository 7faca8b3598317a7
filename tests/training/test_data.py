"""Training rows: encoded once, mapped by everyone, the newest held back."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from assets.exceptions import SettingsError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_tree
from assets.settings import TrainingSettings, load_domain
from assets.training.launchers.launch import override, plan_training
from assets.training.plan import TrainingPlan
from assets.training.program.batches import Sampler, validation_batches
from assets.training.program.cache import cached
from assets.training.tasks import TASKS
from assets.training.tasks.classification import data, encoding
from assets.training.tasks.classification.data import TrainingData, load_training_data
from assets.training.tasks.classification.preprocessing import Encoded, fit_preprocessing

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

ARRAYS = [field.name for field in fields(Encoded)]


@pytest.fixture
def plan(snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path) -> TrainingPlan:
    return plan_training(snapshot, settings, tmp_path, tmp_path)


def changed(plan: TrainingPlan, **changes: object) -> TrainingPlan:
    return plan.model_copy(update={"settings": override(plan.settings, changes)})


def without_rows(plan: TrainingPlan) -> TrainingPlan:
    """The plan of a run that finds nothing to read but the cache."""
    return plan.model_copy(update={"snapshot": Path("/nowhere")})


def folders(plan: TrainingPlan) -> set[str]:
    return {path.name for path in (plan.cache / "tokens").iterdir() if path.is_dir()}


def same(one: TrainingData, other: TrainingData) -> bool:
    arrays = all(np.array_equal(getattr(one.rows, name), getattr(other.rows, name)) for name in ARRAYS)
    fitted = one.preprocessing == other.preprocessing and one.tokenizer.to_str() == other.tokenizer.to_str()
    return arrays and fitted and np.array_equal(one.labels, other.labels)


def test_rows_are_encoded_once_as_serving_would(
    plan: TrainingPlan, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_CHUNK_ROWS", 100)
    first = load_training_data(plan)
    expected = first.preprocessing.encode(frame, first.tokenizer)
    for name in ARRAYS:
        found = getattr(first.rows, name)
        assert np.array_equal(found, getattr(expected, name)), name
        assert found.dtype == getattr(expected, name).dtype, name
    assert [LABELS[label] for label in first.labels] == frame["label"].tolist()
    assert same(first, load_training_data(without_rows(plan)))


def prepared(plan: TrainingPlan, folder: Path) -> TrainingPlan:
    """The plan of a machine with another cache, and what workers have made of the snapshot's rows."""
    task = TASKS[plan.task]
    (folder / "encoder").mkdir(parents=True)
    task.fit_encoder(plan, folder / "encoder")
    encode = task.encoder(folder / "encoder")
    for number, chunk in enumerate(task.chunks(plan)):
        answer = folder / "answers" / f"{number:09}" / "a-try"
        answer.mkdir(parents=True)
        pq.write_table(chunk, folder / "rows.parquet")
        encode(pq.read_table(folder / "rows.parquet"), answer)
    return without_rows(plan).model_copy(update={"prepared": folder, "cache": folder / "cache"})


@pytest.mark.parametrize("change", [{}, {"hashed_words": 0}, {"validation_share": 0.1, "max_tokens": 16}])
def test_rows_that_workers_have_encoded_are_the_same_to_the_last_bit(
    plan: TrainingPlan, tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_CHUNK_ROWS", 100)
    here = changed(plan, **change)
    there = prepared(here, tmp_path / "prepared")
    assert len([*there.prepared.glob("answers/*")]) == 3
    load_training_data(here)
    load_training_data(there)
    assert folders(here) == folders(there)
    assert hash_tree(here.cache) == hash_tree(there.cache)


def test_rows_are_mapped_so_that_ranks_share_them(plan: TrainingPlan) -> None:
    found = load_training_data(plan)
    for array in (*(getattr(found.rows, name) for name in ARRAYS), found.labels):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable


def test_a_model_without_words_and_features_is_cached_too(plan: TrainingPlan) -> None:
    bare = changed(plan, hashed_words=0).model_copy(update={"features": ()})
    found = load_training_data(bare)
    assert found.rows.buckets.shape == (0,)
    assert found.rows.features.shape == (256, 0)
    assert same(found, load_training_data(without_rows(bare)))


@pytest.mark.parametrize(
    "change", [{"max_tokens": 16}, {"hashed_words": 256}, {"prior_labels": 5}, {"validation_share": 0.1}]
)
def test_rows_that_would_differ_are_encoded_again(plan: TrainingPlan, change: dict[str, object]) -> None:
    load_training_data(plan)
    other = changed(plan, **change)
    with pytest.raises(FileNotFoundError):
        load_training_data(without_rows(other))
    assert not same(load_training_data(plan), load_training_data(other))


def test_another_snapshot_tokenizer_code_or_choice_of_features_is_encoded_again(
    plan: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_training_data(plan)
    with pytest.raises(FileNotFoundError):
        load_training_data(without_rows(plan).model_copy(update={"snapshot_id": "another"}))
    with pytest.raises(FileNotFoundError):
        load_training_data(without_rows(plan).model_copy(update={"features": plan.features[1:]}))
    tokenizer = (plan.base_model / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(tokenizer.replace('"lowercase": true', '"lowercase": false'))
    with pytest.raises(FileNotFoundError):
        load_training_data(without_rows(plan).model_copy(update={"base_model": tmp_path}))
    monkeypatch.setattr(data, "hash_file", lambda path: path.name)
    with pytest.raises(FileNotFoundError):
        load_training_data(without_rows(plan))


def test_what_does_not_touch_the_rows_does_not_encode_them_again(plan: TrainingPlan) -> None:
    first = load_training_data(plan)
    other = changed(plan, epochs=9, seed=9, batch_rows=8, batch_tokens=64, learning_rate=1)
    assert same(first, load_training_data(without_rows(other)))


@pytest.mark.parametrize("file", [*(f"{name}.npy" for name in ARRAYS), "labels.npy", "preprocessing.json"])
def test_a_damaged_cache_is_made_again(plan: TrainingPlan, file: str) -> None:
    first = load_training_data(plan)
    kept = {name: np.array(getattr(first.rows, name)) for name in ARRAYS}
    (folder,) = folders(plan)
    path = plan.cache / "tokens" / folder / file
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:7], b"", whole + b"}"):
        path.write_bytes(damage)
        again = load_training_data(plan)
        assert path.read_bytes() == whole
        assert all(np.array_equal(getattr(again.rows, name), kept[name]) for name in ARRAYS)
    path.unlink()
    load_training_data(plan)
    assert path.read_bytes() == whole


def read(folder: Path) -> str:
    return (folder / "content").read_text()


def test_one_makes_it_while_the_others_wait(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "content").write_text(str(len(made)))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cached(tmp_path, "key", make, read), range(8)))
    assert found == ["1"] * 8


def test_what_a_failed_maker_leaves_is_never_seen(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "content").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "key", fail, read)
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [".lock"]


def test_a_maker_that_is_killed_holds_nobody_up(tmp_path: Path) -> None:
    code = """
import signal, sys
from pathlib import Path
from assets.training.program.cache import cached
def make(folder):
    (folder / "content").write_text("half")
    print("making", flush=True)
    signal.pause()
cached(Path(sys.argv[1]), "key", make, lambda folder: (folder / "content").read_text())
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "making\n"
        process.kill()
    assert cached(tmp_path, "key", lambda folder: (folder / "content").write_text("whole"), read) == "whole"
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {".lock", "key"}


def test_only_the_last_used_are_kept(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "content").touch()

    for key in ("a", "b", "c", "a", "d", "e"):
        cached(tmp_path, key, make, read)
    assert {path.name for path in (tmp_path / "tokens").iterdir() if path.is_dir()} == {"a", "d", "e"}


def test_the_last_used_is_kept_though_the_clock_was_set_back(tmp_path: Path) -> None:
    for key in ("a", "b", "c"):
        cached(tmp_path, key, lambda folder: (folder / "content").touch(), read)
        os.utime(tmp_path / "tokens" / key, (2**32, 2**32 + ord(key)))
    cached(tmp_path, "d", lambda folder: (folder / "content").touch(), read)
    assert {path.name for path in (tmp_path / "tokens").iterdir() if path.is_dir()} == {"b", "c", "d"}


def test_nothing_is_held_back_unless_asked_for(plan: TrainingPlan) -> None:
    found = load_training_data(plan)
    assert found.trained == len(found.rows) == 256
    assert validation_batches(found, 100, 0, 2) == []


def test_the_newest_rows_are_held_back_and_never_trained_on(plan: TrainingPlan, frame: pd.DataFrame) -> None:
    found = load_training_data(changed(plan, validation_share=0.1, epochs=2))
    newest = frame.sort_values(["known_at", "record_id"]).index[-26:]
    assert np.arange(found.trained, len(found.rows)).tolist() == newest.tolist()
    sampler = Sampler.of(found, changed(plan, epochs=2).settings, world_size=2)
    seen = {int(row) for step in range(sampler.steps) for row in sampler.rows(step)}
    assert seen == set(range(230))


def test_preprocessing_and_class_weights_come_from_the_rows_trained_on(plan: TrainingPlan, frame: pd.DataFrame) -> None:
    held = changed(plan, validation_share=0.5)
    found, settings = load_training_data(held), held.settings
    expected = fit_preprocessing(
        frame.iloc[:128],
        plan.features,
        DOMAIN,
        settings.model.max_tokens,
        settings.model.hashed_words,
        settings.model.prior_labels,
    )
    assert found.preprocessing == expected
    assert settings.optimizer.class_weight_power == 0.5
    weights = found.class_weights
    assert weights[found.labels[:128]].mean() == pytest.approx(1)
    rarest = np.argmin(np.bincount(found.labels[:128], minlength=len(LABELS)))
    assert weights.argmax() == rarest


def test_validation_batches_are_as_many_on_every_rank(plan: TrainingPlan) -> None:
    found = load_training_data(changed(plan, validation_share=0.1))
    ranks = [validation_batches(found, 100, rank, world_size=4) for rank in range(4)]
    assert len({len(batches) for batches in ranks}) == 1
    rows = np.concatenate([batch for batches in ranks for batch in batches])
    assert sorted(rows.tolist()) == list(range(found.trained + 2, len(found.rows)))
    assert max(len(batch) * found.rows.lengths[batch].max() for batches in ranks for batch in batches) <= 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation_share": 0.001}, "0.001 of 256 rows are 0, fewer than the ranks"),
        ({"validation_share": 0.95}, "batch_rows: 16, of 13 training rows"),
    ],
)
def test_a_validation_part_that_leaves_too_little_is_refused(
    snapshot: Snapshot, settings: TrainingSettings, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        plan_training(snapshot, override(settings, change), tmp_path, tmp_path)
