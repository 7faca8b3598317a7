from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.display import markdown_table, plain
from assets.evaluation import evaluate as module
from assets.evaluation.baseline import baseline_probabilities
from assets.evaluation.evaluate import Champion, evaluate, evaluate_refit
from assets.evaluation.metrics import measure
from assets.evaluation.pictures import PICTURES
from assets.evaluation.report import load_evaluation
from assets.evaluation.tables import slices_table
from assets.exceptions import BundleError, SnapshotError
from assets.lake import Lake
from assets.settings import load_domain, load_settings
from assets.training.tasks.classification.labels import places

LABELS = tuple(load_domain().labels)
GATE = load_settings("quick").gate

DAY = "2024-06-01"
CHALLENGER, CHAMPION = Path("models/challenger"), Champion("3", "champion", Path("models/champion"))
Serve = Callable[..., list[str]]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture
def bundles(fake_bundle: type) -> tuple[object, object]:
    return fake_bundle("challenger", 0.8), fake_bundle("champion", 0.7)


def test_everyone_is_measured_on_the_same_rows(lake, snapshot, settings, serve: Serve, bundles) -> None:
    serve(*bundles)
    found = evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    test = snapshot.test()
    for who, bundle in zip(("challenger", "champion"), bundles, strict=True):
        assert found.contenders()[who] == measure(places(test["label"], LABELS), bundle.predict_proba(test), 10)
    assert {metrics.rows for metrics in found.contenders().values()} == {240}
    assert found.champion.version == "3"
    assert found.golden.rows == 16
    assert found == load_evaluation(lake, DAY)


def test_another_model_than_the_challenger_is_not_measured(
    lake, snapshot, settings, fake_bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.evaluation.evaluate.load_bundle", lambda _: fake_bundle("another"))
    with pytest.raises(BundleError, match=r"challenger: contains another model, another"):
        evaluate(lake, DAY, snapshot, CHALLENGER, None, settings, GATE)


def test_what_it_leaves_is_readable_and_small(lake, snapshot, settings, serve: Serve, bundles) -> None:
    serve(*bundles)
    folder = evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE).folder(lake)
    answers = pd.read_parquet(folder / "predictions.parquet")
    assert list(answers["record_id"]) == list(snapshot.test()["record_id"])
    assert np.allclose(answers["confidence"], [max(row) for row in answers["probabilities"]])
    assert list(pd.read_parquet(folder / "golden.parquet").columns) == ["record_id", "probabilities"]
    assert "text" not in answers
    for picture in PICTURES.values():
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
        assert 10_000 < (folder / picture).stat().st_size < 150_000
    assert {file.suffix for file in folder.iterdir()} == {".json", ".parquet", ".png"}


def test_any_name_of_a_slice_is_drawn_and_shown(
    lake, snapshot, settings, serve: Serve, bundles, monkeypatch: pytest.MonkeyPatch, cells
) -> None:
    names = [r"$\frac{$", "a|b <img src=x>", "x" * 10_000, "two\nlines", *(f"free text {n}" for n in range(200))]
    test = snapshot.test().assign(channel=(names * 2)[:240])
    monkeypatch.setattr(type(snapshot), "test", lambda _: test)
    serve(*bundles)
    found = evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    channels = {part.name for part in found.slices if part.by == "channel"}
    assert len(channels) == 10
    assert {f"channel {name}" for name in names[:4]} <= channels
    assert (found.folder(lake) / PICTURES["accuracy by slice"]).stat().st_size < 150_000
    assert {plain(name) for name in channels} <= {
        row[0] for row in cells(markdown_table(*slices_table(found, load_domain())))
    }


def test_small_slices_decide_nothing(lake, snapshot, settings, serve: Serve, bundles) -> None:
    serve(*bundles)
    parts = evaluate(lake, DAY, snapshot, CHALLENGER, None, settings, GATE).slices
    assert {part.decides for part in parts} == {True, False}
    assert all(part.decides == (part.rows >= 30 and part.by != "label") for part in parts)
    assert sum(part.rows for part in parts if part.by == "label") == 240


def test_labels_with_few_training_rows_are_named(
    lake, snapshot, settings, serve: Serve, bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(*bundles)
    rows = {"cards": 10, "mortgage": 9, "other": 0}
    train = snapshot.train()
    place = train.groupby("label").cumcount()
    train = train[place < train["label"].map(rows).fillna(np.inf)]
    monkeypatch.setattr(type(snapshot), "train", lambda _: train)
    found = evaluate(lake, DAY, snapshot, CHALLENGER, None, settings, GATE)
    assert found.rare_labels == {"mortgage": 9, "other": 0}
    assert load_evaluation(lake, DAY).rare_labels == found.rare_labels
    assert set(train["label"]) == set(LABELS) - {"other"}


def test_the_same_inputs_are_not_measured_twice(lake, snapshot, settings, serve: Serve, bundles) -> None:
    loaded = serve(*bundles)
    first = evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    loaded.clear()
    assert evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE) == first
    assert loaded == []


@pytest.mark.parametrize("change", ["champion", "snapshot", "settings"])
def test_other_inputs_are_measured_anew(change, lake, snapshot, settings, serve: Serve, bundles) -> None:
    loaded = serve(*bundles)
    first = evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    loaded.clear()
    champion = None if change == "champion" else CHAMPION
    snapshot = replace(snapshot, id="another") if change == "snapshot" else snapshot
    settings = settings.model_copy(update={"calibration_bins": 5}) if change == "settings" else settings
    assert evaluate(lake, DAY, snapshot, CHALLENGER, champion, settings, GATE).id != first.id
    assert "challenger" in loaded


def test_a_challenger_that_became_champion_keeps_the_evaluation_it_won(
    lake, snapshot, settings, serve: Serve, bundles
) -> None:
    loaded = serve(*bundles)
    won = evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    loaded.clear()
    assert evaluate(lake, DAY, snapshot, CHALLENGER, Champion("4", "challenger", CHALLENGER), settings, GATE) == won
    assert loaded == []


def test_a_champion_that_knows_other_labels_is_compared_by_their_names(
    lake, snapshot, settings, serve: Serve, bundles, fake_bundle: type
) -> None:
    class Reordered(fake_bundle):  # type: ignore[misc]
        def predict_proba(self, rows: pd.DataFrame, batch_rows: int = 64) -> np.ndarray:
            return np.column_stack([super().predict_proba(rows, batch_rows)[:, ::-1], np.zeros(len(rows))])

    serve(*bundles)
    known = evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    serve(bundles[0], Reordered("champion", 0.7, labels=(*reversed(LABELS), "gone")))
    found = evaluate(Lake(lake.root / "other"), DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    assert found.champion == known.champion


def test_a_champion_is_not_compared_with_itself(lake, snapshot, settings, serve: Serve, bundles) -> None:
    serve(*bundles)
    assert (
        evaluate(lake, DAY, snapshot, CHALLENGER, Champion("4", "challenger", CHALLENGER), settings, GATE).champion
        is None
    )


def test_a_refit_is_measured_on_the_reference_rows_beside_what_it_is_a_refit_of(
    lake, snapshot, settings, serve: Serve, bundles
) -> None:
    loaded = serve(*bundles)
    published = evaluate(lake, DAY, snapshot, CHALLENGER, None, settings, GATE)
    refit = evaluate_refit(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    assert refit.refit_of == "champion"
    assert refit.challenger.rows == refit.reference.rows == snapshot.reference_rows
    assert set(pd.read_parquet(refit.folder(lake) / "golden.parquet")["record_id"]) <= set(
        snapshot.reference()["record_id"]
    )
    assert load_evaluation(lake, DAY) == published
    loaded.clear()
    assert evaluate_refit(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE) == refit
    assert loaded == []


def test_a_champion_that_needs_a_lost_feature_is_a_clear_error(lake, snapshot, settings, serve: Serve, bundles) -> None:
    challenger, champion = bundles
    serve(challenger, replace(champion, features=("x", "lost")))
    with pytest.raises(SnapshotError, match=r"champion version 3 needs the feature 'lost'"):
        evaluate(lake, DAY, snapshot, CHALLENGER, CHAMPION, settings, GATE)
    assert lake.version(f"evaluation/{DAY}") is None


@pytest.mark.parametrize(("noise", "equal"), [(1e-7, True), (1e-4, False), (float("nan"), False)])
def test_a_bundle_that_serves_other_numbers_is_not_published(
    noise, equal, lake, snapshot, settings, monkeypatch: pytest.MonkeyPatch, bundles
) -> None:
    loads = iter([bundles[0], replace(bundles[0], noise=noise)])
    monkeypatch.setattr(module, "load_bundle", lambda path: next(loads))
    assert evaluate(lake, DAY, snapshot, CHALLENGER, None, settings, GATE).golden.equal is equal
    assert (lake.version(f"evaluation/{DAY}") is not None) is equal


def test_the_baseline_learns_and_is_repeatable(snapshot) -> None:
    train, test = snapshot.train(), snapshot.test()
    answers = baseline_probabilities(train, test, LABELS)
    assert np.allclose(answers.sum(axis=1), 1)
    assert measure(places(test["label"], LABELS), answers, 10).accuracy > 0.5  # the hint is right for 64 rows in 100
    assert (baseline_probabilities(train, test, LABELS) == answers).all()


def test_a_label_that_was_not_trained_on_has_no_chance(snapshot) -> None:
    train = snapshot.train()
    answers = baseline_probabilities(train[train["label"] != "bank_account"], snapshot.test(), LABELS)
    assert (answers[:, 0] == 0).all()
